"""`ltd train-draft`: an EAGLE-3 draft for any target, judged on questions that it did not learn."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
from rich.console import Console

from ltd_jax import files, flags, workflow
from ltd_jax import text as texts_of
from ltd_jax.config import CycleConfig, DraftConfig, TargetConfig
from ltd_jax.draft_training import course
from ltd_jax.draft_training import script as script_of
from ltd_jax.draft_training.course import CourseConfig
from ltd_jax.draft_training.talk import Script
from ltd_jax.files import ASSETS, UserError, write_json
from ltd_jax.models import pair as pairs
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.hf import hub, weights
from ltd_jax.models.hf.weights import Dialect
from ltd_jax.models.target import TargetParams
from ltd_jax.questions import QuestionConfig, load_question_set
from ltd_jax.replay import trace as traces
from ltd_jax.text import Message
from ltd_jax.workflow import Progress, StageConfig

MANY = 1_000_000  # questions: all that there are
JUDGE = CycleConfig(beam_width=8, max_levels=6, sizes=(0, 24), context=512)  # as drafts are judged
JUDGED_TOKENS = 128  # of an answer


@dataclasses.dataclass(frozen=True)
class DraftFlags(CourseConfig):
    """For which target, from what, and how long."""

    target: Path = ASSETS / "target"  # folder of weights and tokenizer, GGUF file, or hub id
    out: Path = Path("runs/draft")  # folder that is written; what is done there is gone on with
    start: Path | None = None  # a draft to go on from; None = a new one
    questions: Path | None = None
    """a question file or a folder of them, whose training questions the target answers; None = it
    asks itself, by its chat template"""
    texts: tuple[Path, ...] = ()  # files of plain text to learn from, too
    talks: bool = True  # let the target talk; --no-talks learns from --texts alone
    dtype: flags.DType = "auto"  # of the target: auto = bfloat16 on accelerators, else float32
    dialect: Dialect = "eagle"  # how the draft's layer is called in the folder that is written
    judge: int = 4  # held-out questions per task, on which the draft is judged by replay; 0 = none
    compile_cache: bool = True  # keep compiled programs, so that the next start is quick
    json: bool = False  # print one JSON object alone; the rest goes to stderr

    @property
    def course(self) -> CourseConfig:
        """How much the target says, and how the draft learns."""
        names = [field.name for field in dataclasses.fields(CourseConfig)]
        return CourseConfig(**{name: getattr(self, name) for name in names})


def train_draft(config: DraftFlags) -> None:
    """Train an EAGLE-3 draft for a target, from nothing but what the target says itself.

    The target asks and answers by its own chat template (or answers --questions), half greedily,
    half sampled; the draft learns to guess its words, seven steps ahead. Writes OUT/draft (a folder
    that EAGLE and its like read), OUT/training.json and OUT/README.md with its numbers on held-out
    texts.

    ltd train-draft --target my/target --out runs/draft --minutes 10
    ltd train-draft --target my/model.gguf --questions my/questions --tokens 5000000
    ltd train-draft --target my/target --start my/draft --train.learning-rate 3e-4
    """
    flags.require_backend()
    flags.keep_programs(config.compile_cache)
    flags.writable(config.out)
    console = Console(stderr=config.json)
    folder = hub.folder_of(config.target, "target")
    dtype = pairs.default_dtype(folder) if config.dtype == "auto" else config.dtype
    settings, params = weights.load_target(folder, jnp.dtype(dtype), packed=False)
    with flags.progress_bars(console) as progress:
        trained = course.train_draft(
            params,
            settings,
            config.course,
            script_for(config, folder),
            config.out,
            texts=plain_texts(config, folder),
            start=start_of(config, settings, params),
            progress=progress,
        )
        out = config.out / "draft"
        weights.save_draft(out, trained.config, trained.params, ml_dtypes.bfloat16, config.dialect)
        report = trained.report | {"target": hub.name_of(folder)}
        if config.judge:
            report["committed"] = judge_draft(config, folder, dtype, progress)
    write_json(config.out / "training.json", report)
    page = course.card(report)
    (config.out / "README.md").write_text(page, encoding="utf-8")
    print(json.dumps(report)) if config.json else console.print(page, highlight=False, markup=False)
    flags.say(f"Next: ltd tune --target {config.target} --draft {out}")


def script_for(config: DraftFlags, folder: Path) -> Script | None:
    """What is said around the target's turns: its own template's words, or prompts; None = none."""
    if not config.talks:
        return None
    chat, stops = texts_of.open_chat(folder), texts_of.stop_tokens(folder)
    if config.questions is None:
        return script_of.of_chat(chat, stops)
    asked = load_question_set(QuestionConfig(config.questions, prompts=MANY), "train")
    first = [one.turns[0] for of_task in asked.values() for one in of_task]
    prompts = [chat.encode([Message("user", turn)]).tolist() for turn in first]
    return script_of.of_prompts(prompts, stops)


def plain_texts(config: DraftFlags, folder: Path) -> list[np.ndarray]:
    """The token ids of the files of plain text, i32 [n] each."""
    tokenizer = texts_of.load_tokenizer(folder) if config.texts else None
    encode = lambda text: tokenizer.encode(text).ids if tokenizer is not None else []
    return [np.asarray(encode(files.read_text(path)), np.int32) for path in config.texts]


def start_of(
    config: DraftFlags, settings: TargetConfig, params: TargetParams
) -> tuple[DraftConfig, Eagle3Params] | None:
    """The draft to go on from; None = a new one."""
    if config.start is None:
        return None
    folder = hub.folder_of(config.start, "start")
    embedding = params.embedding.astype(jnp.float32)
    found = weights.load_draft(folder, settings, embedding, jnp.float32)
    if not (isinstance(found.config, DraftConfig) and isinstance(found.params, Eagle3Params)):
        raise UserError(f"{config.start} is no EAGLE-3 draft; `start` must be one.")
    return found.config, found.params


def judge_draft(config: DraftFlags, target: Path, dtype: str, progress: Progress) -> dict[str, Any]:
    """Committed tokens per cycle at JUDGE's most levels and size, by replay, task by task."""
    context = min(JUDGE.context, pairs.preset_of(target).most_context)
    cycle = dataclasses.replace(JUDGE, context=context)
    pair = pairs.load(target, config.out / "draft", cycle=cycle, dtype=dtype)
    questions = config.questions or pairs.usual_questions(target)
    asked = QuestionConfig(questions, prompts=config.judge, new_tokens=JUDGED_TOKENS)
    stages = StageConfig(config.out / "judge", asked)
    trace = workflow.load_or_record(pair, stages, "test", progress=progress)
    levels, size = JUDGE.max_levels, JUDGE.sizes[-1]
    by_task: dict[str, list[np.ndarray]] = {}
    for start, gained in traces.gains(trace, cycle, levels, size):
        task = trace.provenance["tasks"][trace.task[start]]
        by_task.setdefault(task, []).append(gained)
    means = {task: float(np.concatenate(of).mean()) for task, of in by_task.items()}
    return {
        "levels": levels,
        "size": size,
        "beam_width": JUDGE.beam_width,
        "tasks": means,
        "mean": float(np.mean([*means.values()])),
    }
