"""Autotune's sentences say what its numbers say."""

import pytest

from experiments.report import advice
from experiments.report.advice import Advice, AtContext, Found


def found(method, rate, levels=None, size=None, live=(None, None, None)):
    return Found(
        method=method,
        levels=levels,
        size=size,
        tokens_per_second=rate,
        speedup=rate / 100,
        live=live[0],
        live_low=live[1],
        live_high=live[2],
    )


def made(chosen, best=120.0, learned=126.0, contexts=((64, 1.2), (256, 1.1))) -> Advice:
    return Advice(
        schema=1,
        environment={},
        ground={"device": "a machine"},
        methods=[
            found("autoregressive", 100.0),
            found("eagle3", 80.0, 5, 16),
            found("best_constant", best, 1, 3, (1.15, 1.1, 1.2)),
            found("ltd", learned, live=(1.25, 1.2, 1.3)),
            found("optimum", 150.0),
        ],
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
        "A choice that knows the text would be 1.25x the best constant; the policies go 20 % of "
        "that way.",
        "Speculation pays at every measured length of context: 1.20x at 64 tokens (1 level, size "
        "3), 1.10x at 256 tokens (1 level, size 3).",
        "Use: learned policies, 1.26x plain decoding by replay; measured live 1.25x (95 % "
        "interval 1.20 to 1.30).",
    ]


@pytest.mark.parametrize(
    ("learned", "words"), [(120.1, "add nothing"), (110.0, "worse, so do not use them")]
)
def test_a_learned_policy_that_is_not(learned, words):
    assert words in advice.sentences(made("best_constant", learned=learned))[1]


@pytest.mark.parametrize(("speedup", "says"), [(1.2, "pays"), (0.9, "does not pay")])
def test_one_context(speedup, says):
    found = advice.sentences(made("best_constant", contexts=((64, speedup),)))[3]
    assert found == (
        f"Speculation {says} with these caches: {speedup:.2f}x at 64 tokens (1 level, size 3)."
    )


def test_where_speculation_does_not_pay():
    some = advice.sentences(made("autoregressive", contexts=((64, 1.2), (256, 0.9))))
    assert some[3].startswith("Speculation pays only at a context of 64 tokens: ")
    none = advice.sentences(made("autoregressive", contexts=((64, 0.8), (256, 0.9))))
    assert none[3].startswith("Speculation pays at no measured length of context")
    assert none[4] == "Decode without a draft here: nothing is faster than plain decoding."


def test_the_picture_is_one():
    assert advice.picture(made("ltd")).startswith(b"\x89PNG")
