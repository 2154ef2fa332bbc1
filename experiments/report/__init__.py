"""A run's numbers for people: pages, pictures, tables and sentences; the paper's numbers as data.

`write` makes report.json (schema 2; units: seconds, tokens), report.html, report.md and pictures:

    schema                  2
    environment             device, device_count, dtype, python, jax, ltd_jax, date, command
    pair                    target, draft, fingerprint, parameters [of the target, of the draft]
    lossless                dtype, tokens_compared, mismatches, near_ties (texts whose first
                            difference is at two logits that rounding can turn)
    methods                 rows of method (autoregressive, eagle3, best_constant, ltd), task (or
                            "mean" of the tasks), tokens_per_second, speedup over plain decoding
                            with speedup_low and speedup_high (95%; null with a single prompt),
                            committed_per_cycle, levels_mean, size_mean, policy_share of the time
                            of its cycles by the latency table
    without_repetition      rows of method, task, repetition_share (left out), committed_per_cycle,
                            speedup, of cycles that start outside of exact repetitions
    ltd_over_best_constant  ratio, low, high, as the mean of tasks
    replay_vs_live          rows of controller, predicted_ and measured_tokens_per_second, means
                            of tasks
    optimum                 by replay, means of tasks: best_constant (levels, size,
                            tokens_per_second), dynamic_programme_tokens_per_second,
                            share_gained_by_ltd (0 = best constant, 1 = optimum)
    learning                decisions, seconds, positions_recorded, recording_seconds
"""

from experiments.report.figures import Figures
from experiments.report.page import headline_picture, write

__all__ = ["Figures", "headline_picture", "write"]
