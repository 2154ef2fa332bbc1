"""A target says what transformers says of the same files: logits, and greedy answers by token.

    python -m experiments.proofs.check_transformers --target smollm2 \
      --out experiments/results/transformers

For a folder of the Hugging Face form or a GGUF file, which transformers reads and dequantises by
code of its own. Needs torch, transformers and, for GGUF, accelerate and gguf. Both run in
float32 on the processor. Every question's answer is decoded by transformers' `generate`, by plain
decoding and, where there is a draft, speculatively; its logits are compared over all positions of
question and answer. Where answers part at a near tie, whose two logits differ by less than both
sides' rounding, it is counted apart. Writes OUT/transformers.json; exit code 1 when a text differs
elsewhere, or a logit by more than a thousandth of the logits' deviation.
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import ltd_jax as ltd
from ltd_jax import files, flags, workflow
from ltd_jax.cli import StageFlags
from ltd_jax.config import NoDraft
from ltd_jax.files import UserError
from ltd_jax.models import target
from ltd_jax.models.hf import gguf, hub
from ltd_jax.models.pair import Model, Pair
from ltd_jax.policies.policy import Constant
from ltd_jax.replay import record

INSTALL = "pip install torch transformers accelerate gguf"
TIE = 1e-3  # two logits this near may change places by the order of a sum
MOST_ERROR = 1e-3  # of a logit, in deviations of the logits


@dataclasses.dataclass(frozen=True)
class Config(StageFlags):
    """What is compared."""

    out: Path = Path("runs/transformers")


@dataclasses.dataclass(frozen=True)
class Row:
    """One question's comparison."""

    task: str
    prompt_tokens: int
    new_tokens: int  # compared, up to the first difference
    logit_error: float  # greatest difference of two logits at one position
    logit_spread: float  # standard deviation of the logits, to see the error against
    plain_differs: bool
    speculative_differs: bool | None  # None = there is no draft
    are_near_ties: bool  # where answers part, in all that do


def main() -> None:
    config = flags.parse(lambda preset: Config())
    flags.writable(config.out)
    torch, reference = load_reference(config.target)
    pair = flags.load_pair(config, config.cycle)
    if np.dtype(pair.dtype) != np.float32 or pair.config.sampling.temperature:
        raise UserError(
            "Only greedy answers in float32 are compared; give `dtype` float32 and leave out "
            "`temperature`."
        )
    prompts = workflow.load_prompts(pair, config.stages, "test")
    rows = []
    for prompt in prompts.prompts:
        row = compare(
            pair,
            torch,
            reference,
            prompt.token,
            task=prompts.tasks[prompt.task],
            new_tokens=config.asked.new_tokens,
        )
        rows.append(row)
        flags.say(
            f"{row.task}: {row.new_tokens} tokens, logits differ by {row.logit_error:.1e} at "
            f"most, {'DIFFERENT' if differs(row) else 'the same answer'}"
        )
    summary = summarise(rows)
    versions = {
        name: importlib.import_module(name).__version__ for name in ("torch", "transformers")
    }
    environment = pair.environment | versions
    listed = [dataclasses.asdict(row) for row in rows]
    content = {"pair": list(pair.names), **summary, "rows": listed, "environment": environment}
    files.write_json(config.out / "transformers.json", content)
    flags.say(
        f"{summary['tokens']} tokens of {len(rows)} answers, {summary['different']} different, "
        f"{summary['near_ties']} of them at near ties; logits differ by "
        f"{summary['logit_error']:.1e} at most."
    )
    sys.exit(is_wrong(summary))


def load_reference(given: Path | str) -> tuple[Any, Any]:
    """torch and transformers' model of a target, f32.

    Raises:
      UserError: one of the two is not installed.
    """
    try:
        torch, transformers = (importlib.import_module(name) for name in ("torch", "transformers"))
    except ImportError as error:
        raise UserError(
            f"{error.name} is not installed, and transformers is what is compared with; run "
            f"`{INSTALL}`."
        ) from error
    folder = hub.folder_of(given, "target")
    file, how = gguf.file_of(folder), {}
    if file is not None:
        folder, how = file.parent, {"gguf_file": file.name}
    read = transformers.AutoModelForCausalLM.from_pretrained
    try:
        model = read(folder, dtype=torch.float32, attn_implementation="eager", **how)
    except (ImportError, OSError, ValueError) as error:
        raise UserError(
            f"transformers cannot read {given} ({error}); if it lacks a package, run `{INSTALL}`."
        ) from error
    return torch, model.eval()


def compare(
    pair: Pair, torch: Any, reference: Any, prompt_T: np.ndarray, *, task: str, new_tokens: int
) -> Row:
    """One prompt's answers and logits, of transformers and of the pair."""
    expected = generate_reference(torch, reference, pair, prompt_T, new_tokens)
    answers = [tokens_of(ltd.generate_plain(pair, prompt_T, new_tokens))]
    if not isinstance(pair.config.draft, NoDraft):
        policy = Constant(pair.config.cycle.max_levels, pair.config.cycle.sizes[-1])
        answers.append(tokens_of(ltd.generate(pair, policy, prompt_T, new_tokens)))
    whole_T = np.concatenate([prompt_T, np.asarray(expected, np.int32)])
    with torch.no_grad():
        (theirs_TX,) = reference(torch.tensor(whole_T[None].astype(np.int64))).logits.numpy()
    known = len(whole_T)
    padded_T = np.zeros(record.room_for(known, pair.config.cycle.context), np.int32)
    padded_T[:known] = whole_T  # what is behind a token does not change it
    ours_TX = np.asarray(all_logits(pair.model, jnp.asarray(padded_T)))
    ours_TX = ours_TX[:known, : theirs_TX.shape[1]]
    parted = [first_difference(expected, answer) for answer in answers]
    differ = [answer != expected for answer in answers]
    chosen = theirs_TX[len(prompt_T) - 1 :]  # by place of the answer, what its token was chosen of
    are_ties = [
        bool(np.diff(np.sort(chosen[place])[-2:])[0] < TIE)
        for place, is_other in zip(parted, differ, strict=True)
        if is_other
    ]
    return Row(
        task=task,
        prompt_tokens=len(prompt_T),
        new_tokens=min(parted),
        logit_error=float(np.abs(ours_TX - theirs_TX).max()),
        logit_spread=float(theirs_TX.std()),
        plain_differs=differ[0],
        speculative_differs=differ[1] if len(differ) > 1 else None,
        are_near_ties=all(are_ties),
    )


def generate_reference(
    torch: Any, reference: Any, pair: Pair, prompt_T: np.ndarray, new_tokens: int
) -> list[int]:
    """The greedy answer of transformers' `generate`, with the token that ends it."""
    prompt = torch.tensor(prompt_T[None].astype(np.int64))
    answer = reference.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        do_sample=False,
        max_new_tokens=new_tokens,
        eos_token_id=list(pair.stop_tokens) or None,
        pad_token_id=0,
    )
    return [int(token) for token in answer[0, len(prompt_T) :]]


@jax.jit
def all_logits(model: Model, token_T: jax.Array) -> jax.Array:
    """The target's logits [T, X] over a text."""
    return target.causal_forward(model.target, model.config.target, token_T, None)[0]


def tokens_of(steps: Any) -> list[int]:
    """All tokens of a decoding."""
    return [int(token) for step in steps for token in step.tokens]


def first_difference(expected: Sequence[int], found: Sequence[int]) -> int:
    """Tokens before two answers part; the shorter one's length where it begins the other."""
    alike = zip(expected, found, strict=False)
    parted = (index for index, (one, other) in enumerate(alike) if one != other)
    return next(parted, min(len(expected), len(found)))


def differs(row: Row) -> bool:
    """Whether an answer is another than transformers'."""
    return row.plain_differs or bool(row.speculative_differs)


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Of all questions."""
    return {
        "answers": len(rows),
        "tokens": sum(row.new_tokens for row in rows),
        "different": sum(differs(row) for row in rows),
        "near_ties": sum(differs(row) and row.are_near_ties for row in rows),
        "logit_error": max(row.logit_error for row in rows),
        "logit_spread": float(np.mean([row.logit_spread for row in rows])),
    }


def is_wrong(summary: dict[str, Any]) -> bool:
    """Whether answers part where there is no near tie, or logits differ by more than rounding."""
    is_far = summary["logit_error"] > MOST_ERROR * summary["logit_spread"]
    return bool(summary["different"] > summary["near_ties"] or is_far)


if __name__ == "__main__":
    flags.run(main, resumes=False)
