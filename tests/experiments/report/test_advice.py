"""Autotune's sentences say what its numbers say."""

import pytest

from experiments.report import advice, plots
from experiments.report.advice import Advice, AtContext, Candidate

CONSTANT, LEARNED = (1.15, 1.1, 1.2), (1.25, 1.2, 1.3)  # measured live, with 95% intervals
UNMEASURED = (None, None, None)


def candidate(method, rate, levels=None, size=None, live=UNMEASURED):
    return Candidate(
        method=method,
        levels=levels,
        size=size,
        tokens_per_second=rate,
        speedup=rate / 100,
        live=live[0],
        live_low=live[1],
        live_high=live[2],
    )


def made(
    chosen="ltd",
    best=120.0,
    learned=126.0,
    contexts=((64, 1.2), (256, 1.1)),
    live=(CONSTANT, LEARNED),
    over=None,
) -> Advice:
    return Advice(
        schema=1,
        environment={},
        ground={"device": "a machine"},
        methods=[
            candidate("autoregressive", 100.0),
            candidate("eagle3", 80.0, 5, 16),
            candidate("best_constant", best, 1, 3, live[0]),
            candidate("ltd", learned, live=live[1]),
            candidate("optimum", 150.0),
        ],
        live_over_constant=over,
        contexts=[AtContext(context=n, levels=1, size=3, speedup=ratio) for n, ratio in contexts],
        chosen=chosen,
        share_of_gap=0.2,
        seconds=100.0,
    )


def test_a_learned_policy_that_is_worth_it():
    text = advice.sentences(made("ltd"))
    assert text == [
        "The best constant setting here is 1 level and size 3: 1.20x plain decoding, and 1.50x "
        "EAGLE-3's default of 5 levels and size 16.",
        "Learned policies are 1.05x the best constant: worth using.",
        "A choice that knows the text would be 1.25x the best constant; the policies go 20% of "
        "that way.",
        "Speculation pays at every measured length of context: 1.20x at 64 tokens (1 level, size "
        "3), 1.10x at 256 tokens (1 level, size 3).",
        "Use: learned policies, 1.26x plain decoding by replay; measured live 1.25x (95% "
        "interval 1.20 to 1.30).",
    ]


@pytest.mark.parametrize(
    ("learned", "words"), [(120.1, "add nothing"), (110.0, "worse, so do not use them")]
)
def test_a_learned_policy_that_is_not(learned, words):
    lacking = made("best_constant", learned=learned, live=(UNMEASURED, UNMEASURED))
    assert words in advice.sentences(lacking)[1]
    assert advice.choose(lacking["methods"]) == "best_constant"


OVERLAPPING = ((1.226, 1.0, 1.6), (1.222, 0.89, 2.09))


def test_intervals_that_overlap_do_not_recommend_learned_policies():
    found = made("best_constant", learned=123.6, live=OVERLAPPING)
    assert advice.sentences(found)[1] == (
        "Learned policies are 1.03x the best constant by replay, but not distinguishable live; "
        "simplest: the constant."
    )
    assert advice.choose(found["methods"]) == "best_constant"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(1.01, 1.05, "faster"), (0.98, 1.05, "unclear"), (0.9, 0.95, "disputed")],
)
def test_a_ratio_prompt_by_prompt_decides_before_the_two_intervals(low, high, verdict):
    over = {"ratio": (low + high) / 2, "low": low, "high": high}
    found = made(learned=123.6, live=OVERLAPPING, over=over)
    learned, constant = found["methods"][3], found["methods"][2]
    assert advice.compare(learned, constant, over) == verdict
    said = advice.sentences(found)[1]
    assert ("worth using" in said) == (verdict == "faster")
    assert ("simplest: the constant" in said) == (verdict != "faster")
    assert advice.choose(found["methods"], over) == (
        "ltd" if verdict == "faster" else "best_constant"
    )


def test_without_a_live_check_replay_decides_alone():
    assert advice.choose(made(live=(UNMEASURED, UNMEASURED))["methods"]) == "ltd"
    slow = made(best=98.0, learned=97.0, live=(UNMEASURED, UNMEASURED))
    assert advice.choose(slow["methods"]) == "autoregressive"


def test_a_choice_that_is_surely_slower_live_is_not_made():
    found = made(live=((0.8, 0.7, 0.9), (0.9, 0.91, 0.99)))
    assert advice.choose(found["methods"]) == "autoregressive"


def test_a_live_interval_around_one_is_said_to_show_nothing():
    said = advice.sentences(made("best_constant", live=OVERLAPPING))[-1]
    assert said.startswith("Use: best constant, 1.20x plain decoding by replay; measured live")
    assert said.endswith(
        "1.00 to 1.60), which does not show that it is faster than plain decoding."
    )


@pytest.mark.parametrize(("speedup", "says"), [(1.2, "pays"), (0.9, "does not pay")])
def test_one_context(speedup, says):
    said = advice.sentences(made("best_constant", contexts=((64, speedup),)))[3]
    assert said == (
        f"Speculation {says} with these caches: {speedup:.2f}x at 64 tokens (1 level, size 3)."
    )


def test_where_speculation_does_not_pay():
    some = advice.sentences(made("autoregressive", contexts=((64, 1.2), (256, 0.9))))
    assert some[3].startswith("Speculation pays only at a context of 64 tokens: ")
    none = advice.sentences(made("autoregressive", contexts=((64, 0.8), (256, 0.9))))
    assert none[3].startswith("Speculation pays at no measured length of context")
    assert none[4].startswith("Decode without a draft here: nothing is shown to be faster than")


@pytest.mark.parametrize("live", [(CONSTANT, LEARNED), (UNMEASURED, UNMEASURED)])
def test_labels_of_the_picture_stand_clear_of_the_live_marks(live):
    figure = plots.advice(made("ltd", live=live))
    assert plots.encode(figure).startswith(b"\x89PNG")
    (axes,) = figure.axes
    marks = {line.get_ydata()[0]: max(line.get_xdata()) for line in axes.lines}
    for label in axes.texts:
        assert label.xy[0] >= marks.get(label.xy[1], 0)
