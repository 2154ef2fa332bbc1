import dataclasses

import pytest

from ltd_jax import config
from ltd_jax.config import GREEDY, SamplingConfig


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"temperature": -1.0}, r"temperature is -1.0 but must be 0 \(greedy\)"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": float("inf")}, "temperature is inf"),
        ({"temperature": 1e-9}, "at least 0.001"),
        ({"temperature": 1.0, "top_k": -3}, "top_k is -3"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0.0 but must lie above 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"temperature": 1.0, "top_p": float("nan")}, "top_p is nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty is 1e-40"),  # 1 / it overflows
        ({"repetition_penalty": 1e38}, "repetition_penalty is 1e.38 but must lie in 0.001..1000"),
        ({"draft_temperature": 0.0}, "draft_temperature is 0.0"),
        ({"rule": "block"}, "rule is 'block'"),
        ({"top_p": 0.9}, "change nothing at temperature 0"),
        ({"top_k": 5}, "change nothing at temperature 0"),
        ({"rule": "sequential"}, "rule sequential changes nothing at temperature 0"),
    ],
)
def test_wrong_settings_get_a_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        SamplingConfig(**settings)


def test_the_default_is_greedy():
    assert SamplingConfig() == GREEDY and GREEDY.is_argmax and GREEDY.is_reproducible
    assert not SamplingConfig(repetition_penalty=1.2).is_argmax
    assert SamplingConfig(repetition_penalty=1.2).is_reproducible
    assert SamplingConfig(temperature=1.0).is_reproducible
    assert not SamplingConfig(temperature=1.0, rule="sequential").is_reproducible


def test_provenance_names_what_is_not_greedy():
    assert config.describe_sampling(GREEDY, 7) is None
    warm = SamplingConfig(temperature=0.8)
    assert config.describe_sampling(warm, 7) == dataclasses.asdict(warm) | {"seed": 7}
