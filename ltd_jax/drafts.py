"""`ltd train-draft`: an EAGLE-3 draft for any target, judged on questions that it did not learn."""

import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from rich.console import Console

from ltd_jax import checkpoint, files, flags, workflow
from ltd_jax import text as texts_of
from ltd_jax.config import (
    LEAST_LAYERS,
    CycleConfig,
    DraftConfig,
    PairConfig,
    TargetConfig,
    require_at_least,
)
from ltd_jax.draft_training import course
from ltd_jax.draft_training import script as script_of
from ltd_jax.draft_training.course import CourseConfig
from ltd_jax.draft_training.talk import Script
from ltd_jax.files import ASSETS, UserError, write_json
from ltd_jax.models import pair as pairs
from ltd_jax.models import sharding
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.hf import hub, rope, weights
from ltd_jax.models.hf.weights import Dialect
from ltd_jax.models.pair import Model, Pair
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
    judge: int = 4
    """held-out questions per task, on which the draft is judged by replay (--judgements times);
    0 = none"""
    compile_cache: bool = True  # keep compiled programs, so that the next start is quick
    json: bool = False  # print one JSON object alone; the rest goes to stderr

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(0, self, "judge")

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
    judged = judged_questions(config, folder)
    settings, params = weights.load_target(
        folder, jnp.dtype(dtype), config.devices, replicas=config.replicas
    )
    if not settings.feature_layers:
        raise UserError(
            f"{config.target} has {settings.layer_count} layers; a draft needs a target of at "
            f"least {LEAST_LAYERS}."
        )
    with flags.progress_bars(console) as progress:
        judge = None
        if judged is not None:
            target = (settings, params)
            judge = functools.partial(judge_draft, config, judged, folder, target, progress)
        trained = course.train_draft(
            params,
            settings,
            config.course,
            script_for(config, folder),
            config.out,
            texts=plain_texts(config, folder),
            start=start_of(config, settings, params),
            judge=judge,
            judged_by=str(judged),
            progress=progress,
        )
        out = config.out / "draft"
        weights.save_draft(out, trained.config, trained.params, ml_dtypes.bfloat16, config.dialect)
        report = trained.report | {"target": hub.name_of(folder)}
    write_json(config.out / "training.json", report)
    page = course.card(report)
    with files.replacing(config.out / "README.md") as temporary:
        temporary.write_text(page, encoding="utf-8")
    print(json.dumps(report)) if config.json else console.print(page, highlight=False, markup=False)
    flags.say(f"Next: ltd tune --target {config.target} --draft {out}")


def judged_questions(config: DraftFlags, folder: Path) -> QuestionConfig | None:
    """The held-out questions that the draft is judged on; None = none are wanted.

    Raises:
      UserError: there are none to hold out.
    """
    if not config.judge:
        return None
    questions = config.questions or pairs.usual_questions(folder)
    asked = QuestionConfig(questions, prompts=config.judge, new_tokens=JUDGED_TOKENS)
    load_question_set(asked, "test")
    return asked


def script_for(config: DraftFlags, folder: Path) -> Script | None:
    """What is said around the target's turns: its own template's words, or prompts; None = none."""
    if not config.talks:
        return None
    chat, stops = texts_of.open_chat(folder), texts_of.stop_tokens(folder)
    if config.questions is None:
        return script_of.of_chat(chat, stops)
    asked = load_question_set(QuestionConfig(config.questions, prompts=MANY), "train")
    talks = [
        [*([Message("system", one.system)] if one.system else []), Message("user", one.turns[0])]
        for of_task in asked.values()
        for one in of_task
    ]
    return script_of.of_prompts([chat.encode(talk).tolist() for talk in talks], stops)


def plain_texts(config: DraftFlags, folder: Path) -> list[np.ndarray]:
    """The token ids of the files of plain text, i32 [n] each."""
    if not config.texts:
        return []
    tokenizer = texts_of.load_tokenizer(folder)
    read = [tokenizer.encode(files.read_text(path)).ids for path in config.texts]
    return [np.asarray(ids, np.int32) for ids in read]


def start_of(
    config: DraftFlags, settings: TargetConfig, params: TargetParams
) -> tuple[DraftConfig, Eagle3Params] | None:
    """The draft to go on from; None = a new one.

    Raises:
      UserError: it is no EAGLE-3 draft, or of a form that is not trained here.
    """
    if config.start is None:
        return None
    folder = hub.folder_of(config.start, "start")
    embedding = params.embedding.astype(jnp.float32)
    head = None if params.head is None else params.head.astype(jnp.float32)
    found = weights.load_draft(folder, settings, embedding, jnp.float32, head=head)
    draft, own = found.config, found.params
    if not (isinstance(draft, DraftConfig) and isinstance(own, Eagle3Params)):
        raise UserError(f"{config.start} is no EAGLE-3 draft; `start` must be one.")
    read = pairs.with_features(settings, found.feature_layers, None).feature_layers
    faults = {
        "an embedding of its own": own.embedding is not embedding,
        "norms before fc": bool(draft.fuse_norms),
        "a sliding window": bool(draft.sliding_layers),
        f"features of layers {read}": read != settings.feature_layers,
    }
    for fault, is_so in faults.items():
        if is_so:
            raise UserError(
                f"{config.start} has {fault}, which is not trained here; leave out `start`."
            )
    if config.dialect == "eagle":
        rope.refuse_for_eagle(draft)
    spoken = own.embedding.T if own.head is None else own.head
    return dataclasses.replace(draft, own_head=True), own.replace(head=spoken)


def judge_draft(
    config: DraftFlags,
    asked: QuestionConfig,
    folder: Path,
    target: tuple[TargetConfig, TargetParams],
    progress: Progress,
    step: int,
    draft: DraftConfig,
    params: Eagle3Params,
) -> dict[str, Any]:
    """Committed tokens per cycle at JUDGE's most levels and size, by replay, task by task.

    Args:
      target: as it was loaded from the folder.
      step: of the training, that the draft was trained to.
      params: f32.
    """
    settings, own = target
    dtype = own.embedding.dtype
    context = min(JUDGE.context, pairs.preset_of(folder).most_context)
    cycle = dataclasses.replace(JUDGE, context=context)
    floats = lambda leaf: leaf.astype(dtype) if leaf.dtype == jnp.float32 else leaf
    pair_config = PairConfig(settings, draft, cycle, devices=config.devices)
    models = (own, jax.tree.map(floats, params))
    if config.replicas > 1:
        mesh = sharding.mesh_of(config.devices, settings.kv_head_count)
        models = sharding.of_one_replica(models, mesh)
    pair = Pair(
        model=Model(*models, pair_config),
        dtype=dtype,
        stop_tokens=texts_of.stop_tokens(folder),
        fingerprint=str(checkpoint.digest(params)),
        folder=folder,
        names=(hub.name_of(folder), "the draft"),
    )
    stages = StageConfig(config.out / "judge" / f"{step}-{config.judge}", asked)
    said = lambda stage, share: progress(f"judge after {step} steps", share)
    trace = workflow.load_or_record(pair, stages, "test", progress=said)
    levels, size = cycle.max_levels, cycle.sizes[-1]
    by_task: dict[str, list[np.ndarray]] = {}
    for start, gained in traces.gains(trace, cycle, levels, size):
        task = trace.provenance["tasks"][trace.task[start]]
        by_task.setdefault(task, []).append(gained)
    means = {task: float(np.concatenate(of).mean()) for task, of in by_task.items()}
    return {
        "levels": levels,
        "size": size,
        "beam_width": cycle.beam_width,
        "tasks": means,
        "mean": float(np.mean([*means.values()])),
    }
