"""A made-up run: a report and the arrays of its plots."""

from types import SimpleNamespace

import numpy as np

from experiments.report.figures import Figures
from experiments.report.words import METHODS

SIZES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
LEVELS = 8

TASKS = ("code", "tests", "docs", "tables", "mean")


def rows():
    plain = {"code": 412.0, "tests": 405.0, "docs": 398.0, "tables": 420.0, "mean": 408.8}
    gains = {"autoregressive": 1.0, "eagle3": 1.31, "best_constant": 1.58, "ltd": 1.66}
    tilts = {"code": 1.05, "tests": 1.12, "docs": 0.88, "tables": 0.97, "mean": 1.0}
    settings = {"eagle3": (5.0, 16.0), "best_constant": (2.0, 4.0), "ltd": (2.37, 4.81)}
    made = []
    for task in TASKS:
        for method in METHODS:
            fast = method != "autoregressive"
            speedup = gains[method] * tilts[task] if fast else 1.0
            levels, size = settings.get(method, (0.0, 0.0))
            made.append(
                {
                    "method": method,
                    "task": task,
                    "tokens_per_second": plain[task] * speedup,
                    "speedup": speedup,
                    "speedup_low": speedup - 0.04 * fast,
                    "speedup_high": speedup + 0.05 * fast,
                    "committed_per_cycle": 1.0 + 0.31 * levels,
                    "levels_mean": levels,
                    "size_mean": size,
                    "policy_share": 0.013 if method == "ltd" else 0.0,
                }
            )
    return made


def numbers():
    """A whole report, as `json.loads` would give it."""
    return {
        "schema": 2,
        "skipped": [],
        "environment": {
            "device": "cpu, 2 cores",
            "device_count": 1,
            "dtype": "float32",
            "python": "3.11.7",
            "jax": "0.10.2",
            "ltd_jax": "0.1.0",
            "date": "2026-01-31",
            "command": "python -m experiments.quickstart --out <runs> & more",
        },
        "pair": {
            "target": "assets/target",
            "draft": "assets/draft",
            "fingerprint": "0123456789ab",
            "parameters": [7_214_336, 1_311_744],
        },
        "lossless": {
            "dtype": "float32",
            "tokens_compared": 24_576,
            "mismatches": 0,
            "near_ties": 0,
        },
        "methods": rows(),
        "without_repetition": [
            {
                "method": method,
                "task": task,
                "repetition_share": 0.25,
                "committed_per_cycle": 2.1,
                "speedup": 1.4,
            }
            for task in TASKS
            for method in METHODS[1:]
        ],
        "ltd_over_best_constant": {"ratio": 1.05, "low": 1.02, "high": 1.08},
        "replay_vs_live": [
            {
                "controller": name,
                "predicted_tokens_per_second": 640.0 * factor,
                "measured_tokens_per_second": 640.0,
            }
            for name, factor in [("2 levels, size 4", 1.013), ("LTD", 0.968)]
        ],
        "optimum": {
            "best_constant": {"levels": 2, "size": 4, "tokens_per_second": 646.0},
            "dynamic_programme_tokens_per_second": 853.0,
            "share_gained_by_ltd": 0.17,
        },
        "learning": {
            "decisions": 3_112_000,
            "seconds": 171.3,
            "positions_recorded": 24_310,
            "recording_seconds": 38.2,
        },
    }


def curves():
    found = []
    for stage, last in [("size-alone", 100), ("depth-alone", 1000), ("iter1-size", 100)]:
        for update in range(0, 51, 5):
            done = update / 50
            validation = 560 + 110 * (1 - np.exp(-4 * done)) + 4 * np.sin(9 * done)
            decisions = int(done * last * 1000)
            point = {"stage": stage, "decisions": decisions, "seconds": 30 * done}
            found.append(SimpleNamespace(**point, validation=float(validation)))
    return found


def figures():
    """All parts of the plots."""
    levels_D, size_V = np.arange(1, LEVELS + 1.0), np.asarray(SIZES, float)
    reach_DV = 1 - np.exp(-size_V[None] / (2.2 * levels_D[:, None] ** 0.6))
    draft_D, verify_V = 4e-4 * levels_D, 1.9e-3 + 9e-5 * size_V

    def chosen(levels, size):
        far_DV = (levels_D[:, None] - levels) ** 2 + (np.arange(len(SIZES)) - size) ** 2 / 3
        return np.round(4000 * np.exp(-far_DV / 1.5))

    committed_DV = 1 + 2.6 * (1 - np.exp(-levels_D / 2.5))[:, None] * reach_DV
    cycle_DV = draft_D[:, None] + verify_V + 1e-4
    return Figures(
        sizes=SIZES,
        tokens_per_second=committed_DV / cycle_DV,
        committed=committed_DV,
        cycle_seconds=cycle_DV,
        draft_seconds=draft_D,
        verify_seconds=verify_V,
        plain_seconds=2.4e-3,
        curves=curves(),
        validation_constant=646.0,
        validation_optimum=853.0,
        choices_easy=chosen(3, 6),
        choices_hard=chosen(1, 2),
    )
