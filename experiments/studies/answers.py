"""Answer files in the form of FastChat and EAGLE, for the judges and speed scripts around them.

One file per task and method: OUT/answers/TASK/METHOD.jsonl, one question a line, sorted by id.
`new_tokens`, `wall_time` (seconds, prefill included) and `idxs` (cycles - 1) are per turn, as
EAGLE's; `pre_num`, `dyn_tokens` and `dyn_depths` are per cycle of all turns, as LTD's, whose speed
script adds `pre_len_times` to the time: 0 here, where the policies' time is part of `wall_time`.
"""

import json
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tokenizers

from ltd_jax.decoding.benchmark import Run
from ltd_jax.files import replacing
from ltd_jax.workflow import PromptSet, PromptTurn


def write(
    folder: Path, asking: PromptSet, runs: Sequence[Run], tokenizer: tokenizers.Tokenizer
) -> list[Path]:
    """Writes all files and returns their paths."""
    paths = []
    for index, task in enumerate(asking.tasks):
        for method in dict.fromkeys(run.method for run in runs):
            ours = [
                (asking.turns[run.prompt], run)
                for run in runs
                if run.method == method and run.task == index
            ]
            path = folder / task / f"{method.replace(':', '-')}.jsonl"
            rows = [json.dumps(row) for row in rows_of(ours, method, tokenizer)]
            with replacing(path) as temporary:
                temporary.write_text("\n".join(rows) + "\n")
            paths.append(path)
    return paths


def rows_of(
    ours: Sequence[tuple[PromptTurn, Run]], method: str, tokenizer: tokenizers.Tokenizer
) -> list[dict[str, Any]]:
    """A task's rows, by question id."""
    by_question: dict[int, list[tuple[PromptTurn, Run]]] = {}
    for asked, run in ours:
        by_question.setdefault(asked.question.question_id, []).append((asked, run))
    return [
        {
            "question_id": question_id,
            "answer_id": uuid.uuid4().hex[:22],
            "model_id": method,
            "choices": [choice_of(by_question[question_id], tokenizer)],
            "tstamp": time.time(),
        }
        for question_id in sorted(by_question)
    ]


def choice_of(
    turns: Sequence[tuple[PromptTurn, Run]], tokenizer: tokenizers.Tokenizer
) -> dict[str, Any]:
    """One question's answers, turn by turn."""
    runs = [run for _, run in sorted(turns, key=lambda item: item[0].turn)]
    return {
        "index": 0,
        "turns": [tokenizer.decode(list(run.tokens)).strip() for run in runs],
        "idxs": [len(run.committed) - 1 for run in runs],
        "new_tokens": [len(run.tokens) for run in runs],
        "wall_time": [run.prefill_seconds + run.seconds for run in runs],
        "pre_len_times": [0.0 for _ in runs],
        "pre_num": [count for run in runs for count in run.committed],
        "dyn_tokens": [size for run in runs for size in run.sizes],
        "dyn_depths": [levels for run in runs for levels in run.levels],
    }
