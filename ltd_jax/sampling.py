"""How the target's logits become a token: temperature, repetition penalty, top-p, top-k.

The order is that of EAGLE's and LTD's decoders, and each step is Hugging Face's. What speculative
decoding keeps is the distribution *after* these steps.
"""

import dataclasses
from typing import Any, Literal

Rule = Literal["coupled", "sequential"]
LEAST_TEMPERATURE = 1e-3  # below it, f32 logits over the temperature overflow or are greedy anyway


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """Greedy decoding unless told otherwise; every field names another compiled program."""

    temperature: float = 0.0  # 0 = greedy, the most probable token
    top_k: int = 0  # only the k most probable tokens; 0 = all
    top_p: float = 1.0  # only the most probable tokens that together reach this probability
    repetition_penalty: float = 1.0  # on logits of tokens that the text has already; 1 = none
    draft_temperature: float = 1.0  # of the draft's scores; it moves the tree, never the output
    rule: Rule = "coupled"  # how a tree is tested, see cycle/walk.py; no rule moves the output

    def __post_init__(self) -> None:
        least = LEAST_TEMPERATURE
        if not (self.temperature == 0 or least <= self.temperature < float("inf")):
            raise ValueError(
                f"temperature is {self.temperature} but must be 0 (greedy) or at least {least}."
            )
        if self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k} but must be 0 (all tokens) or more.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p} but must lie above 0 and at most at 1.")
        if not 0 < self.repetition_penalty < float("inf"):
            raise ValueError(
                f"repetition_penalty is {self.repetition_penalty} but must be above 0; 1 = none."
            )
        if not least <= self.draft_temperature < float("inf"):
            raise ValueError(
                f"draft_temperature is {self.draft_temperature} but must be at least {least}."
            )
        if self.rule not in ("coupled", "sequential"):
            raise ValueError(f"rule is {self.rule!r} but must be coupled or sequential.")
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise ValueError(
                "top_k and top_p change nothing at temperature 0, where the most probable token is "
                "taken; raise the temperature or leave them out."
            )
        if self.temperature == 0 and self.rule == "sequential":
            raise ValueError(
                "rule sequential changes nothing at temperature 0, where nothing is drawn; raise "
                "the temperature or leave it out."
            )

    @property
    def is_argmax(self) -> bool:
        """Whether the target's largest logit decides, and nothing else."""
        return self.temperature == 0 and self.repetition_penalty == 1

    @property
    def is_reproducible(self) -> bool:
        """Whether one seed gives one text, whoever decodes it."""
        return self.rule == "coupled"


GREEDY = SamplingConfig()


def described(config: SamplingConfig, seed: int | None = None) -> dict[str, Any] | None:
    """For provenance: None for greedy decoding; the seed where it matters."""
    return None if config == GREEDY else dataclasses.asdict(config) | {"seed": seed}
