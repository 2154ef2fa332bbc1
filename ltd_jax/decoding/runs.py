"""Runs as files: a comparison that can be stopped, and answers as FastChat and EAGLE have them.

An answer file holds one task of one method, one question a line, sorted by id. `new_tokens`,
`wall_time` (seconds, prefill included) and `idxs` (cycles - 1) are per turn, as EAGLE's; `pre_num`,
`dyn_tokens` and `dyn_depths` are per cycle of all turns, as LTD's, whose speed script adds
`pre_len_times` to the time: 0 here, where the policies' time is part of `wall_time`.
"""

import dataclasses
import hashlib
import json
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ltd_jax.config import describe_sampling
from ltd_jax.decoding import benchmark
from ltd_jax.decoding.benchmark import Method, Run
from ltd_jax.files import (
    OTHER_FOLDER,
    UserError,
    from_json,
    hashable_fields,
    identity_of,
    replacing,
    require_same,
    to_json,
)
from ltd_jax.models.pair import Pair
from ltd_jax.questions import Question
from ltd_jax.replay import record
from ltd_jax.replay.record import Prompt


@dataclasses.dataclass(frozen=True)
class Turn:
    """One turn of one question, as a prompt."""

    prompt: Prompt
    question: Question
    turn: int


def load_or_decode(
    pair: Pair,
    methods: Sequence[Method],
    prompts: Sequence[Prompt],
    new_tokens: int,
    path: Path,
    *,
    progress: Callable[[str, float], None] = lambda stage, share: None,
) -> list[Run]:
    """Decodes all prompts with all methods in turns; prompts that the file holds are not repeated.

    Args:
      path: of the file of runs (JSON lines), written after every prompt.
      progress: as `benchmark.interleaved` reports it.

    Raises:
      UserError: the file is damaged, or of another pair, device, prompts or methods.
    """
    head = _head(pair, methods, prompts, new_tokens)
    kept = _load(path, head, [method.name for method in methods])
    done_prompts = frozenset(run.prompt for run in kept)
    for batch in benchmark.interleaved(
        pair, methods, prompts, new_tokens, skip=done_prompts, progress=progress
    ):
        kept += batch
        what = f"Cannot write {path}"
        rows = [to_json(row, what) for row in (head, *map(dataclasses.asdict, kept))]
        with replacing(path) as temporary:
            temporary.write_text("\n".join(rows) + "\n")
    return kept


def _head(
    pair: Pair, methods: Sequence[Method], prompts: Sequence[Prompt], new_tokens: int
) -> dict[str, Any]:
    """What runs must share to be compared, as JSON values."""
    digest = hashlib.sha256()
    for method in methods:
        digest.update(method.name.encode())
        for leaf in jax.tree.leaves(method.policy):
            digest.update(np.asarray(leaf).tobytes())
    return {
        "fingerprint": pair.fingerprint,
        "dtype": np.dtype(pair.dtype).name,
        "device": pair.device,
        "prompts": record.digest(prompts),
        "new_tokens": new_tokens,
        "methods": digest.hexdigest()[:12],
        "sampling": describe_sampling(pair.config.sampling, pair.seed),
        "cycle": json.loads(json.dumps(dataclasses.asdict(pair.config.cycle))),
    }


def _load(path: Path, head: dict[str, Any], names: Sequence[str]) -> list[Run]:
    """The runs of a file with this head; [] where there is no file."""
    if not path.exists():
        return []
    try:
        before, *rows = [from_json(line) for line in path.read_text("utf-8-sig").splitlines()]
        runs = [Run(**dict(hashable_fields(row))) for row in rows]
        there, here = identity_of(before), identity_of(head)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to measure again.") from error
    require_same(f"{path} was made with", there, here, remedy=OTHER_FOLDER)
    for name in head:
        if before.get(name) != head[name]:
            words = name.replace("_", " ")
            raise UserError(
                f"{path} was made with other {words} ({before.get(name)}); {OTHER_FOLDER}."
            )
    done: dict[int, list[str]] = {}
    for run in runs:
        done.setdefault(run.prompt, []).append(run.method)
    if any(sorted(methods) != sorted(names) for methods in done.values()):
        raise UserError(f"{path} is damaged: a prompt lacks a method; delete it to measure again.")
    return runs


def write_answers(
    folder: Path, pair: Pair, turns: Sequence[Turn], tasks: Sequence[str], runs: Sequence[Run]
) -> list[Path]:
    """Writes FOLDER/TASK/METHOD.jsonl for every task and method; returns the paths.

    Args:
      turns: one for every prompt of the runs.
    """
    by_file: dict[Path, dict[int | str, list[Run]]] = {}
    for run in sorted(runs, key=lambda run: _place(turns[run.prompt])):
        path = folder / tasks[run.task] / f"{run.method.replace(':', '-')}.jsonl"
        question_id = turns[run.prompt].question.question_id
        by_file.setdefault(path, {}).setdefault(question_id, []).append(run)
    for path, by_question in by_file.items():
        rows = [
            {
                "question_id": question_id,
                "answer_id": uuid.uuid4().hex[:22],
                "model_id": answers[0].method,
                "choices": [_choice(pair, answers)],
                "tstamp": time.time(),
            }
            for question_id, answers in by_question.items()
        ]
        with replacing(path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(by_file)


def _place(turn: Turn) -> tuple[bool, int | str, int]:
    """Where a turn stands in an answer file: by number, then those with other ids."""
    question_id = turn.question.question_id
    return isinstance(question_id, str), question_id, turn.turn


def _choice(pair: Pair, runs: Sequence[Run]) -> dict[str, Any]:
    """One question's answers, turn by turn."""
    return {
        "index": 0,
        "turns": [pair.decode(run.tokens).strip() for run in runs],
        "idxs": [len(run.committed) - 1 for run in runs],
        "new_tokens": [len(run.tokens) for run in runs],
        "wall_time": [run.prefill_seconds + run.seconds for run in runs],
        "pre_len_times": [0.0 for _ in runs],
        "pre_num": [count for run in runs for count in run.committed],
        "dyn_tokens": [size for run in runs for size in run.sizes],
        "dyn_depths": [levels for run in runs for levels in run.levels],
    }
