"""Ratios, intervals and rows on runs made by hand, and one real interleaved run."""

import dataclasses
import functools
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from ltd_jax.cycle import step
from ltd_jax.decoding import benchmark, lossless
from ltd_jax.decoding.benchmark import Method, Ratio, Run
from ltd_jax.files import UserError
from ltd_jax.policies.policy import Constant
from ltd_jax.replay.record import Prompt
from tests.cycle import tiny

CYCLE = tiny.CONFIG.cycle


def made(method: str, prompt: int, seconds: float, task: int = 0) -> Run:
    return Run(method, prompt, task, (1, 2, 3, 4, 5), 0.1, seconds, (2, 2), (3, 3), (2, 2))


def test_rates_sum_before_dividing():
    runs = [made("a", 0, 1.0), made("a", 1, 3.0)]
    assert benchmark.tokens_per_second(runs) == pytest.approx(8 / 4)


def timed(method: str, seconds: list[float], task: int = 0) -> list[Run]:
    """A run of every prompt of a task."""
    return [made(method, 100 * task + prompt, one, task) for prompt, one in enumerate(seconds)]


def test_a_speedup_is_the_ratio_of_the_two_rates_beside_it():
    runs = [
        *timed(benchmark.PLAIN, [1.0, 2.0, 9.0]),
        *timed(benchmark.PLAIN, [4.0, 4.0], task=1),
        *timed("b", [1.0, 1.0, 2.0]),
        *timed("b", [8.0, 8.0], task=1),
    ]
    rows = {(row["method"], row["task"]): row for row in benchmark.method_rows(runs, ["x", "y"])}
    for task, speedup in (("x", 12 / 4), ("y", 8 / 16)):
        rates = [rows[name, task]["tokens_per_second"] for name in ("b", benchmark.PLAIN)]
        assert rows["b", task]["speedup"] == pytest.approx(rates[0] / rates[1])
        assert rows["b", task]["speedup"] == pytest.approx(speedup)
    for name in ("speedup", *benchmark.NUMBERS):
        mean = (rows["b", "x"][name] + rows["b", "y"][name]) / 2
        assert rows["b", "mean"][name] == pytest.approx(mean)


def test_intervals_hold_the_ratio_and_shrink_with_agreement():
    random = np.random.default_rng(0)
    plain = timed("a", [1.5] * 60)
    noisy = timed("b", (1 + 0.1 * random.normal(size=60)).tolist())
    found = benchmark.over(noisy + plain, "b", "a")
    assert found.low < found.ratio < found.high and found.high - found.low < 0.1
    assert found.side == 1 and benchmark.over(noisy + plain, "a", "b").side == -1
    agreeing = [run for task in (0, 1) for run in timed("a", [1.2] * 5, task)]
    agreeing += timed("b", [1.0] * 5) + timed("b", [0.6] * 5, task=1)
    found = benchmark.over(agreeing, "b", "a")
    assert (found.ratio, found.low, found.high) == pytest.approx((1.6, 1.6, 1.6))


def test_a_single_prompt_has_no_interval_and_shows_nothing():
    runs = timed("a", [1.0]) + timed("b", [0.5])
    assert benchmark.over(runs, "b", "a") == Ratio(2.0, None, None)
    assert Ratio(2.0, None, None).side == 0 and Ratio(2.0, 0.9, 3.0).side == 0
    more = timed("a", [1.0, 1.0], task=1) + timed("b", [0.5, 0.5], task=1)
    assert benchmark.over(runs + more, "b", "a") == Ratio(2.0, None, None)
    assert benchmark.over(runs, "b", "c") is None


@pytest.mark.parametrize("prompts", [3, 8])
def test_intervals_of_few_prompts_hold_the_truth_about_as_often_as_they_say(prompts):
    random = np.random.default_rng(prompts)
    held = 0
    for seed in range(100):
        runs = []
        for task in range(4):
            runs += timed("a", [1.0] * prompts, task)
            runs += timed("b", random.lognormal(0.0, 0.2, prompts).tolist(), task)
        found = benchmark.over(runs, "b", "a", seed=seed)
        held += found.low <= np.exp(-0.02) <= found.high  # 1 over the mean of the seconds
    assert held >= 85


@pytest.fixture(scope="module")
def real():
    pair = tiny.pair(0)
    methods = [Method(benchmark.PLAIN), Method("eagle3", Constant(4, 12))]
    prompts = [Prompt(np.asarray(prompt, np.int32), 0) for prompt in tiny.prompts(0)]
    batches = list(benchmark.interleaved(pair, methods, prompts, 20))
    return pair, prompts, sum(batches, []), batches


def test_every_method_warms_up_before_what_is_measured(monkeypatch):
    done = []

    def decode(pair, method, prompt, index, new_tokens):
        done.append((method.name, index, new_tokens))
        return Run(method.name, index, prompt.task, (1, 2), 0.1, 0.2, (0,), (0,), (1,))

    monkeypatch.setattr(benchmark, "decode", decode)

    def warm_up(pair, policy, progress):
        done.append(policy)
        progress(1.0)

    monkeypatch.setattr(benchmark.generate, "warm_up", warm_up)
    said = []
    prompts = [Prompt(np.zeros(2, np.int32), task) for task in (1, 1, 0, 0)]
    methods = [Method("one"), Method("two", Constant(1, 1))]
    measure = functools.partial(benchmark.interleaved, tiny.pair(0), methods, prompts, 20)
    measured = list(
        measure(
            skip=frozenset(range(3)), progress=lambda *stage_and_share: said.append(stage_and_share)
        )
    )
    assert len(measured) == 1 and done[:2] == [None, Constant(1, 1)]
    assert sorted(done[2:]) == [("one", 3, 20), ("two", 3, 20)]
    compiling = [(f"compiling {name}", share) for name in ("one", "two") for share in (0.0, 1.0)]
    assert said == [*compiling, (benchmark.DECODING, 0.75), (benchmark.DECODING, 1.0)]
    again = measure(skip=frozenset(range(4)))
    assert list(again) == [] and len(done) == 4  # nothing to measure, nothing to warm up


def test_every_method_decodes_every_prompt(real):
    _, prompts, runs, batches = real
    assert len(batches) == len(prompts)
    assert {(run.method, run.prompt) for run in runs} == {
        (method, index) for method in (benchmark.PLAIN, "eagle3") for index in range(len(prompts))
    }
    assert all(len(run.tokens) == 20 and run.seconds > 0 for run in runs)
    assert all(sum(run.committed) == 19 for run in runs)


def test_rows_and_lossless(real):
    pair, prompts, runs, _ = real
    rows = benchmark.method_rows(runs, ["only"])
    assert [(row["method"], row["task"]) for row in rows] == [
        (method, task) for method in (benchmark.PLAIN, "eagle3") for task in ("only", "mean")
    ]
    assert rows[0]["speedup"] == 1.0 and rows[2]["levels_mean"] == 4.0
    checked = lossless.compare(pair, runs, prompts, benchmark.PLAIN)
    assert checked["tokens_compared"] == 20 * len(prompts) and checked["mismatches"] == 0


def ended(method: str, prompt: int, task: int) -> Run:
    """A text that its first token ended."""
    return Run(method, prompt, task, (7,), 0.1, 0.0, (), (), ())


def test_texts_that_end_at_once_are_no_rows():
    names = (benchmark.PLAIN, "eagle3")
    longer = [made(name, prompt, 1.0) for prompt in (1, 3) for name in names]
    runs = [ended(name, prompt, task) for prompt, task in ((0, 0), (2, 1)) for name in names]
    rows = benchmark.method_rows([*runs, *longer], ["some", "none"])
    assert [row["task"] for row in rows] == 2 * ["some", "mean"]
    assert rows == benchmark.method_rows(longer, ["some", "none"])
    with pytest.raises(UserError, match="All texts ended with their first token"):
        benchmark.method_rows(runs, ["some", "none"])


def test_warming_up_compiles_although_the_first_text_ends_at_once():
    pair, prompt = tiny.pair(0), Prompt(np.asarray(tiny.prompts(0)[0], np.int32), 0)
    first = benchmark.decode(pair, Method(benchmark.PLAIN), prompt, 0, 2).tokens[0]
    stopping = dataclasses.replace(pair, stop_tokens=(first,))
    cycle = dataclasses.replace(pair.config.cycle, cycles_per_call=2)  # a program of its own
    model = pair.model.replace(config=dataclasses.replace(pair.config, cycle=cycle))
    stopping = dataclasses.replace(stopping, model=model)
    before = step.run_plain._cache_size()
    (runs,) = benchmark.interleaved(stopping, [Method(benchmark.PLAIN)], [prompt], 8)
    assert [run.tokens for run in runs] == [(first,)]
    assert step.run_plain._cache_size() == before + 1


def test_a_wrong_token_is_a_mismatch(real):
    pair, prompts, runs, _ = real
    broken = [
        Run(**(vars(run) | {"tokens": (*run.tokens[:7], run.tokens[7] ^ 1, *run.tokens[8:])}))
        if run.method == "eagle3" and run.prompt == 1
        else run
        for run in runs
    ]
    checked = lossless.compare(pair, broken, prompts, benchmark.PLAIN)
    assert checked["mismatches"] == 1
    assert checked["tokens_compared"] == 20 * (len(prompts) - 1) + 7
    short = [
        Run(**(vars(run) | {"tokens": run.tokens[:-1]}))
        if run.method == "eagle3" and run.prompt == 0
        else run
        for run in runs
    ]
    assert lossless.compare(pair, short, prompts, benchmark.PLAIN)["mismatches"] == 1


def test_policies_are_compared_with_plain_decoding_in_a_call():
    shares = []
    prompts = [list(prompt) for prompt in tiny.prompts(0)]
    policies = {"short": Constant(1, 1), "long": Constant(5, 12)}
    rows = benchmark.benchmark(tiny.pair(0), policies, prompts, 12, progress=shares.append)
    assert [row["method"] for row in rows] == [benchmark.PLAIN, "short", "long"]
    assert rows[0]["speedup"] == 1 and rows[2]["levels_mean"] == 5
    assert shares == pytest.approx([0, 1 / 3, 2 / 3, 1])


def test_a_policy_is_checked_against_plain_decoding_in_a_call():
    prompts = [list(prompt) for prompt in tiny.prompts(0)]
    found = lossless.check_lossless(tiny.pair(0), Constant(5, 12), prompts, 12)
    assert found == {"dtype": "float32", "tokens_compared": 36, "mismatches": 0, "near_ties": 0}


@pytest.mark.parametrize(
    ("dtype", "logit", "expected"),
    [
        ("bfloat16", 5.311, 4 * 2.0**-5),  # steps of 2^-7 at 1, of four times that from 4 to 8
        ("bfloat16", 16.0, 0.5),
        ("bfloat16", 15.9, 0.25),
        ("bfloat16", -20.0, 0.5),
        ("bfloat16", 0.01, 4 * 2.0**-7),  # of sums whose parts are larger
        ("float16", 16.0, 4 * 2.0**-6),
        ("float32", 16.0, 64 * 2.0**-19),
        ("float32", 1.0, 64 * 2.0**-23),
    ],
)
def test_a_near_tie_follows_from_the_dtype_and_the_logits_size(dtype, logit, expected):
    assert lossless.near_tie(dtype, logit) == expected


def test_the_page_says_what_a_near_tie_is():
    page = Path(lossless.__file__).parents[2] / "docs" / "troubleshooting.md"
    text = " ".join(page.read_text(encoding="utf-8").split())
    near = [f"{lossless.near_tie('bfloat16', logit):g}" for logit in (5.0, 16.0)]
    assert lossless.STEPS["bfloat16"] == lossless.STEPS["float16"]
    assert f"less than {lossless.STEPS['bfloat16']} steps of the dtype at their size" in text
    assert f"in bfloat16 {near[0]} for logits near 5, {near[1]} near 16" in text


def test_near_ties_in_half_precision_are_none_in_single(monkeypatch):
    """Two logits of 5.311 and 5.294, where bfloat16 texts were seen to part."""
    monkeypatch.setattr(lossless, "_best", lambda *_: np.array([5.311, 5.294]))
    text_T = np.zeros(0, np.int32)
    for dtype, decides in (("float32", False), ("bfloat16", True), ("float16", False)):
        pair = dataclasses.replace(tiny.pair(0), dtype=jnp.dtype(dtype))
        found = lossless.rounding_decides(pair, np.array([1, 2], np.int32), text_T)
        assert found == decides
