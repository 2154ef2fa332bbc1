"""A draft for any target: its own texts, windows, a vocabulary, a training, what came of it.

    FOLDER/talk/          what the target said, a file per round (talk.py)
    FOLDER/training/      checkpoints and log.jsonl (train.py)
    FOLDER/scale.npy      the usual size of the target's features; plan.json, how long to train
    FOLDER/judged.json    what a judge said of it on the way
    FOLDER/training.json  how it was trained and its numbers on held-out texts

Stopped at any moment, the same call goes on, and ends with the same draft.
"""

import dataclasses
import functools
import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ltd_jax import checkpoint, files
from ltd_jax.config import DraftConfig, TargetConfig, require_at_least
from ltd_jax.draft_training import loss as losses
from ltd_jax.draft_training import pack, talk, train
from ltd_jax.draft_training.loss import UNROLL, DraftLoss, Frozen
from ltd_jax.draft_training.pack import Conversation, Windows
from ltd_jax.draft_training.talk import ANSWER, Script, TalkConfig
from ltd_jax.draft_training.train import TrainConfig
from ltd_jax.files import UserError
from ltd_jax.models import eagle3, sharding
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.target import TargetParams

Progress = Callable[[str, float], None]
Judge = Callable[[int, DraftConfig, Eagle3Params], dict[str, Any]]  # of a draft after a step
SCALED_BY = 16  # windows whose features say how large features are
TIMED_STEPS = 3  # of training, when a time is given and not a number of tokens
LEAST_HELD_OUT = 2  # conversations


@dataclasses.dataclass(frozen=True)
class CourseConfig:
    """How much a target says, and how a draft learns from it."""

    tokens: int = 2_000_000  # that the target says
    talk: TalkConfig = TalkConfig()
    train: TrainConfig = TrainConfig(
        tokens=4_000_000,
        window=512,
        long_share=0.0,
        batch_tokens=4096,
        learning_rate=1e-3,
        warmup_steps=50,
        decay_share=0.6,
        weight_decay=0.05,
    )
    minutes: float | None = None
    """of training, whose tokens follow from the measured time of a step; None = `train.tokens`"""
    draft_vocab_size: int = 8192  # tokens that the draft speaks of, at most
    judgements: int = 3
    """times that a draft is judged, evenly over its training; the last one at its end"""
    held_out: float = 0.025  # share of the questions that are measured on, not trained on
    replicas: int = 1  # that each take a share of the conversations and of every batch
    devices: int = 1  # of each replica, that the target is split over

    def __post_init__(self) -> None:
        require_at_least(1, self, "tokens", "draft_vocab_size", "judgements")
        require_at_least(1, self, "replicas", "devices")
        if not 0 < self.held_out <= 0.5:
            raise ValueError(
                f"held_out is {self.held_out} but must lie above 0 and at most at 0.5."
            )
        if self.minutes is not None and not 0 < self.minutes < float("inf"):
            raise ValueError(f"minutes is {self.minutes} but must be above 0.")
        if self.train.window <= UNROLL + 1:
            raise ValueError(f"train.window is {self.train.window} but must be above {UNROLL + 1}.")
        if self.train.long_share:
            raise ValueError("train.long_share must be 0: all windows of a course are one length.")
        if self.talk.rows % self.replicas:
            raise ValueError(
                f"talk.rows is {self.talk.rows} but must be a multiple of replicas, which is "
                f"{self.replicas}."
            )
        rows, rest = divmod(self.train.batch_tokens, self.train.window)
        if rest or not rows or rows % self.replicas:
            raise ValueError(
                f"train.batch_tokens is {self.train.batch_tokens} but must be a multiple of "
                f"{self.replicas} times train.window ({self.train.window})."
            )


@dataclasses.dataclass(frozen=True)
class Trained:
    """A draft that was trained, and its numbers."""

    config: DraftConfig
    params: Eagle3Params
    report: dict[str, Any]  # what training.json holds


def train_draft(
    params: TargetParams,
    config: TargetConfig,
    course: CourseConfig,
    script: Script | None,
    folder: Path,
    *,
    texts: Sequence[np.ndarray] = (),
    start: tuple[DraftConfig, Eagle3Params] | None = None,
    judge: Judge | None = None,
    judged_by: str = "",
    progress: Progress = lambda stage, share: None,
) -> Trained:
    """Trains a draft for a target, or goes on with it.

    Long because two calls of the trainer, to time a step and to learn, name all they need.

    Args:
      params: the target's, in ordinary layout; where there are several devices, as `load_target`
        puts them there, or on one.
      script: of its conversations (script.py); None = only `texts` are learned from.
      texts: token ids of further texts, each i32 [n].
      start: a draft to go on from; None = a new one, of the target's width.
      judge: says how good a draft is, with "mean" among what it says; None = there is none.
      judged_by: names what the judge asks; what it said under another name does not count.

    Raises:
      UserError: the folder holds a training of other settings, there is too little to learn from,
        or something cannot be written.
    """
    mesh = sharding.mesh_of(course.devices, config.kv_head_count, course.replicas)
    params = sharding.put(params, mesh)
    said = _listen(params, config, course, script, folder / "talk", texts, mesh, progress)
    lessons, tests = held_apart(said, course.held_out)
    window = course.train.window
    windows, unseen = pack.fill(lessons, window), pack.fill(tests, window)
    if start is None:
        start = new_draft(params, config, course, lessons)
    draft_config, first = start
    scale = _scale(params, config, windows, folder / "scale.npy")
    rows, seed = course.train.batch_tokens // window, course.train.seed
    batch = functools.partial(pack.sample_packed, windows, rows, seed)
    time_step = lambda: train.time_step(
        first,
        draft_config,
        config,
        params,
        course.train,
        batch,
        TIMED_STEPS,
        scale=scale,
        mesh=mesh,
    )
    plan = _plan(course, time_step, folder / "plan.json")
    progress("train the draft", 0.0)
    learned_from = str(checkpoint.digest(windows))
    judged = _Judged(judge, draft_config, folder / "judged.json", learned_from, judged_by)
    trained = train.train_draft(
        first,
        draft_config,
        config,
        params,
        plan,
        batch,
        folder / "training",
        scale=scale,
        mesh=mesh,
        learned_from=learned_from,
        look=judged.look,
        look_at=[] if judge is None else judged_at(plan.steps, course.judgements),
        progress=lambda step, steps, loss: progress("train the draft", step / steps),
    )
    curve = _curve(folder / "training" / "log.jsonl")
    report = {
        "schema": 1,
        "environment": files.environment(str(params.embedding.dtype)),
        "course": dataclasses.asdict(course),
        "conversations": {"learned": len(lessons), "held_out": len(tests)},
        "tokens": {"said": sum(len(one.token) for one in said), "trained": plan.tokens},
        "windows": {"count": windows.count, "filled": float(np.mean(np.asarray(windows.text) > 0))},
        "known_share": known_share(lessons, first.target_token),
        "training_seconds": round(_seconds(curve), 1),
        "held_out": measure(trained, draft_config, params, config, scale, unseen),
        "curve": curve,
    }
    if judge is not None:
        report["judgements"] = judged.rows
    files.write_json(folder / "training.json", report)
    return Trained(draft_config, trained, report)


def judged_at(steps: int, times: int) -> list[int]:
    """The steps of so many judgements, evenly up to the last one."""
    return sorted({max(1, round(steps * time / times)) for time in range(1, times + 1)})


class _Judged:
    """What a judge said of a draft on the way, by step; said once, and kept.

    Raises:
      UserError: the file is damaged.
    """

    def __init__(
        self, judge: Judge | None, draft: DraftConfig, path: Path, learned_from: str, asked: str
    ) -> None:
        self.judge, self.draft, self.path = judge, draft, path
        self.named = {"learned_from": learned_from, "asked": asked}
        self.rows: list[dict[str, Any]] = []
        if path.exists():
            with files.reading_json(path, "list of judgements", 1, "delete it") as kept:
                if {name: kept[name] for name in self.named} == self.named:
                    self.rows = list(kept["rows"])

    def look(self, step: int, params: Eagle3Params) -> None:
        """Judges the draft after a step, if that was not done before."""
        if self.judge is None or any(row["step"] == step for row in self.rows):
            return
        self.rows.append({"step": step} | self.judge(step, self.draft, params))
        files.write_json(self.path, {"schema": 1} | self.named | {"rows": self.rows})


def _listen(
    params: TargetParams,
    config: TargetConfig,
    course: CourseConfig,
    script: Script | None,
    folder: Path,
    texts: Sequence[np.ndarray],
    mesh: Mesh | None,
    progress: Progress,
) -> list[Conversation]:
    """What is learned from, without doubles; in an order that is a function of the seed."""
    window = course.train.window
    pieces = [one[start : start + window] for one in texts for start in range(0, len(one), window)]
    whole = [Conversation(one, np.full(len(one), ANSWER, np.uint8)) for one in pieces]
    for tokens in pieces:
        pack.known_tokens(tokens, config.vocab_size, "A text")
    if script is not None:
        script = _fitting(script, course.talk, config.vocab_size)
        progress("let the target talk", 0.0)
        for spoken in talk.rounds(
            params,
            config,
            course.talk,
            script,
            course.tokens,
            folder,
            seed=course.train.seed,
            mesh=mesh,
            progress=functools.partial(progress, "let the target talk"),
        ):
            whole += pack.conversations(spoken)
    whole = pack.without_doubles(whole)
    order = np.random.default_rng(course.train.seed).permutation(len(whole))
    return [whole[index] for index in order]


def _fitting(script: Script, talk: TalkConfig, vocab_size: int) -> Script:
    """The script without openings that leave no room for an answer; says how many.

    Raises:
      UserError: none is left, or one has tokens that the target does not know.
    """
    for words in (*(one.tokens for one in script.openings), script.to_answer, script.to_user):
        pack.known_tokens(np.asarray(words, np.int32), vocab_size, "A prompt or the chat template")
    least = pack.LEAST_ANSWER
    fitting = tuple(one for one in script.openings if len(one.tokens) + least < talk.slots)
    missing = len(script.openings) - len(fitting)
    if not fitting:
        raise UserError(f"No opening leaves room for an answer in {talk.slots} `talk.slots`.")
    if missing:
        warnings.warn(
            f"{missing} of {len(script.openings)} openings leave no room for an answer in "
            f"{talk.slots} `talk.slots` and are left out.",
            stacklevel=2,
        )
    return script._replace(openings=fitting)


def held_apart(
    said: Sequence[Conversation], share: float
) -> tuple[list[Conversation], list[Conversation]]:
    """What is learned and what is held out: whole questions, with all answers to them.

    Raises:
      UserError: there are too few questions.
    """
    asked = lambda one: one.token[: int(np.argmax(one.kind == ANSWER)) or None].tobytes()
    questions = list(dict.fromkeys(map(asked, said)))
    count = max(LEAST_HELD_OUT, round(share * len(questions)))
    if len(questions) <= count:
        raise UserError(
            f"There are {len(questions)} questions or texts, too few to learn from; give more "
            "`tokens`, `questions` or `texts`."
        )
    held = set(questions[-count:])
    split = {side: [one for one in said if (asked(one) in held) == side] for side in (False, True)}
    return split[False], split[True]


def new_draft(
    params: TargetParams,
    config: TargetConfig,
    course: CourseConfig,
    lessons: Sequence[Conversation],
) -> tuple[DraftConfig, Eagle3Params]:
    """A draft of one layer as the target's, whose norm and head are the target's; f32.

    Its vocabulary are the tokens that the target says most often.
    """
    names = ("vocab_size", "hidden_size", "intermediate_size", "head_count", "kv_head_count")
    shared = {name: getattr(config, name) for name in (*names, "head_dim", "rms_norm_eps")}
    size = min(course.draft_vocab_size, config.vocab_size)
    draft_config = DraftConfig(
        **shared, draft_vocab_size=size, target_hidden_size=config.hidden_size
    )
    said = [one.token[one.kind == ANSWER] for one in lessons]
    vocabulary = pack.frequent_tokens([np.concatenate(said)], draft_config)
    embedding = params.embedding.astype(jnp.float32)
    key = jax.random.key(course.train.seed)
    first = eagle3.init(key, draft_config, embedding, vocabulary)
    head = embedding.T if params.head is None else params.head.astype(jnp.float32)
    head = jnp.take(head, vocabulary, axis=1)
    return draft_config, first.replace(norm=params.norm.astype(jnp.float32), head=head)


def known_share(said: Sequence[Conversation], target_token: jax.Array) -> float:
    """The share of the target's own words that are in a draft's vocabulary."""
    own = np.concatenate([one.token[one.kind == ANSWER] for one in said])
    return float(np.isin(own, np.asarray(target_token)).mean())


def _scale(params: TargetParams, config: TargetConfig, windows: Windows, path: Path) -> jax.Array:
    """The usual size of features (`loss.feature_scale`), kept: it decides every later bit."""
    if not path.exists():
        few = jax.tree.map(lambda part: part[:SCALED_BY], windows)
        found = np.asarray(losses.feature_scale(params, config, few))
        if not (np.isfinite(found) & (found > 0)).all():
            raise UserError(
                f"The target's features are zero, NaN or infinite in {params.embedding.dtype}; "
                "load it in another `dtype`, or check its weights."
            )
        with files.replacing(path) as temporary, temporary.open("wb") as stream:
            np.save(stream, found)
    try:
        return jnp.asarray(np.load(path, allow_pickle=False))
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}); delete it to measure again.") from error


def _plan(course: CourseConfig, time_step: Callable[[], float], path: Path) -> TrainConfig:
    """The training's settings; where a time is asked for, measured once and kept in a file."""
    if course.minutes is None:
        return course.train
    asked = {"minutes": course.minutes, "train": dataclasses.asdict(course.train)}
    if path.exists():
        with files.reading_json(path, "plan", 1, "delete it to measure again") as plan:
            if plan["asked"] != json.loads(json.dumps(asked)):
                raise UserError(f"{path} was made for other settings; {files.OTHER_FOLDER}.")
            return dataclasses.replace(course.train, tokens=int(plan["tokens"]))
    seconds = time_step()
    steps = max(1, int(60 * course.minutes / seconds))
    tokens = steps * course.train.batch_tokens
    record = {"schema": 1, "asked": asked, "step_seconds": seconds, "tokens": tokens}
    files.write_json(path, record)
    return dataclasses.replace(course.train, tokens=tokens)


def measure(
    params: Eagle3Params,
    draft_config: DraftConfig,
    target_params: TargetParams,
    config: TargetConfig,
    scale: jax.Array,
    windows: Windows,
) -> dict[str, Any]:
    """How well a draft guesses the target's own words, in a chain of UNROLL steps.

    Returns:
      "agree": per step, the share of rows whose best token is the text's next; "chain": per step,
      the share of rows where it was so in all steps up to this one; "committed": tokens that a
      cycle with such a chain commits, 1 + the sum of "chain"; "loss": per step, nats.
    """
    frozen = Frozen(target_params, params.target_token, scale)
    own = losses.folded(params, frozen, 1 / scale).replace(embedding=None, target_token=None)
    judge = DraftLoss(draft_config, config, worth=(0.0, 0.0, 1.0))
    by_step = jax.jit(judge.by_step)
    rows_S, agree_S, chain_S, cross_S, known_S = np.zeros((5, UNROLL))
    chains = 0
    for row in range(windows.count):
        one = jax.tree.map(lambda part, row=row: part[row : row + 1], windows)
        cross_SR, worth_SR, hit_SR = (np.asarray(part[0]) for part in by_step(own, frozen, one))
        counts_SR = _answers(one, worth_SR.shape[1])
        full_R = counts_SR.all(axis=0)
        chain_S += (np.logical_and.accumulate(hit_SR, axis=0) & full_R).sum(1)
        chains += int(full_R.sum())
        agree_S += (hit_SR & counts_SR).sum(1)
        rows_S += counts_SR.sum(1)
        cross_S += cross_SR.sum(1)
        known_S += worth_SR.sum(1)
    chain_S /= max(chains, 1)
    return {
        "agree": _rounded(agree_S / np.maximum(rows_S, 1)),
        "chain": _rounded(chain_S),
        "committed": round(1 + float(chain_S.sum()), 4),
        "loss": _rounded(cross_S / np.maximum(known_S, 1e-9)),
    }


def _rounded(numbers: np.ndarray) -> list[float]:
    return [round(float(number), 4) for number in numbers]


def _answers(window: Windows, rows: int) -> np.ndarray:
    """Whether each step of each row [UNROLL, R] predicts a token that the target said in answer."""
    kind, text = np.asarray(window.kind[0]), np.asarray(window.text[0])
    here = text[:rows] > 0
    steps = []
    for step in range(UNROLL):
        part = slice(2 + step, 2 + step + rows)
        steps.append((kind[part] == ANSWER) & (text[part] == text[:rows]) & here)
    return np.stack(steps)


def _curve(path: Path) -> list[dict[str, Any]]:
    """The rows of a training's log by step: what was done again after a kill is there once."""
    rows = {}
    for line in path.read_text("utf-8").splitlines() if path.exists() else ():
        try:
            row = json.loads(line)
            rows[row["step"]] = row
        except (ValueError, TypeError, KeyError):  # half a line, of a process that was killed
            continue
    return [rows[step] for step in sorted(rows)]


def _seconds(curve: Sequence[dict[str, Any]]) -> float:
    """The time of all logged steps."""
    steps = [0, *(row["step"] for row in curve)]
    counts = [after - before for before, after in zip(steps, steps[1:], strict=False)]
    return sum(row["step_seconds"] * count for row, count in zip(curve, counts, strict=True))


def card(report: dict[str, Any]) -> str:
    """A page in Markdown about a draft: its target, what it learned from, how well it guesses."""
    held_out, said = report["held_out"], report["conversations"]
    rows = [
        f"| {step + 1} | {agree:.1%} | {chain:.1%} | {nats:.2f} |"
        for step, (agree, chain, nats) in enumerate(
            zip(held_out["agree"], held_out["chain"], held_out["loss"], strict=True)
        )
    ]
    lines = [
        f"# An EAGLE-3 draft for {report['target']}",
        "",
        f"Learned from {said['learned']:,} conversations of {report['tokens']['said']:,} tokens "
        f"({report['tokens']['trained']:,} tokens of training in "
        f"{report['training_seconds']:,.0f} s on {report['environment']['device']}). "
        f"{report['known_share']:.1%} of the target's own words are in the draft's vocabulary.",
        "",
        f"On {said['held_out']:,} conversations that it did not learn: a chain of {UNROLL} drafted "
        f"tokens commits {held_out['committed']:.2f} tokens in a cycle.",
        "",
        "| step | next token guessed | all up to it | loss, nats |",
        "|---|---|---|---|",
        *rows,
        "",
    ]
    if "judgements" in report:
        *earlier, found = report["judgements"]
        tasks = ", ".join(f"{task} {mean:.2f}" for task, mean in found["tasks"].items())
        lines += [
            f"On held-out questions, by replay with {found['levels']} levels, size "
            f"{found['size']} and beam width {found['beam_width']}: {found['mean']:.2f} tokens in "
            f"a cycle ({tasks}).",
            "",
        ]
        lines += [f"- after {row['step']:,} steps: {row['mean']:.2f}" for row in earlier]
        lines += [""] * bool(earlier)
    return "\n".join(lines)
