"""The training loop of drafts (and of the embedded target): batches by step, checkpoints, a log.

Everything random is a function of (seed, step), so a run that was killed and resumed is the run
that was not: parameters, optimiser and step come from the checkpoint, the batch from the step.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from ltd_jax import checkpoint, files, finite
from ltd_jax.config import DraftConfig, TargetConfig, require_at_least
from ltd_jax.draft_training import pack
from ltd_jax.draft_training.loss import DraftLoss, Frozen, folded
from ltd_jax.draft_training.pack import Mixture, Windows
from ltd_jax.files import UserError
from ltd_jax.models import sharding
from ltd_jax.models.eagle3 import Eagle3Params
from ltd_jax.models.target import TargetParams

LOG_EVERY = 20  # steps
# Of parameters, frozen arrays and a batch, f32 []. Hashed by value: equal ones compile once.
Loss = Callable[[Any, Any, Any], jax.Array]
Look = Callable[[int, Any], None]  # at the parameters after a step
Progress = Callable[[int, int, float], None]  # steps done, of how many, the last one's loss


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run over random windows of token streams."""

    tokens: int = 10_000_000  # to train on
    window: int = 256  # tokens
    long_window: int = 384  # tokens, in the last `long_share` of training
    long_share: float = 0.25
    batch_tokens: int = 2304  # per step, whatever the window
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    decay_share: float = 0.4  # of all steps, linear to zero at the end
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    seed: int = 0
    save_every: int = 200  # steps

    def __post_init__(self) -> None:
        require_at_least(1, self, "tokens", "window", "long_window", "batch_tokens", "save_every")
        require_at_least(0, self, "seed", "warmup_steps")
        for name in ("long_share", "decay_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)} but must lie in 0..1.")

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return max(1, self.tokens // self.batch_tokens)

    def window_at(self, step: int) -> int:
        """Tokens per window at a step."""
        return self.long_window if step >= (1 - self.long_share) * self.steps else self.window


@struct.dataclass
class TrainState:
    """Parameters and optimiser: all that a resumed run needs beside its step."""

    params: Any
    optimizer: optax.OptState


def schedule(config: TrainConfig) -> optax.Schedule:
    """Linear warm-up, constant, linear decay to zero."""
    decay = max(1, int(config.decay_share * config.steps))
    stable = max(0, config.steps - config.warmup_steps - decay)
    rate = config.learning_rate
    return optax.join_schedules(
        [
            optax.linear_schedule(0.0, rate, config.warmup_steps),
            optax.constant_schedule(rate),
            optax.linear_schedule(rate, 0.0, decay),
        ],
        [config.warmup_steps, config.warmup_steps + stable],
    )


def optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """AdamW with clipped gradients; vectors (norms, biases) are not decayed."""
    return optax.chain(
        optax.clip_by_global_norm(config.max_gradient_norm),
        optax.adamw(
            schedule(config),
            b1=0.9,
            b2=0.95,
            weight_decay=config.weight_decay,
            mask=lambda params: jax.tree.map(lambda leaf: leaf.ndim > 1, params),
        ),
    )


def sample_batch(mixture: Mixture, config: TrainConfig, step: int) -> np.ndarray:
    """Windows [B, T + 1] i32 of a step, `batch_tokens` in all."""
    window = config.window_at(step)
    rows = max(1, config.batch_tokens // window)
    return pack.sample_windows(mixture, rows=rows, window=window, seed=config.seed, step=step)


def sample_mixed_batch(
    mixture: Mixture, text_BT: np.ndarray, config: TrainConfig, step: int
) -> Windows:
    """Windows of a step: half of the streams, half texts that the target wrote.

    Args:
      text_BT: integers, as long as the windows.
    """
    half = dataclasses.replace(config, batch_tokens=config.batch_tokens // 2)
    window_BT = sample_batch(mixture, half, step)
    row_B = pack.sample_rows(text_BT, rows=len(window_BT), seed=config.seed, step=step)
    own_BT = text_BT[row_B].astype(np.int32)
    return pack.one_text_each(np.concatenate([window_BT, own_BT]))


def train_draft(
    start: Eagle3Params,
    draft_config: DraftConfig,
    target_config: TargetConfig,
    target_params: TargetParams,
    config: TrainConfig,
    batch: Callable[[int], Windows],
    folder: Path,
    *,
    scale: jax.Array | None = None,
    mesh: Mesh | None = None,
    learned_from: str | None = None,
    look: Look = lambda step, params: None,
    look_at: Collection[int] = (),
    progress: Progress = lambda step, steps, loss: None,
) -> Eagle3Params:
    """Trains a draft or resumes; the target, its embedding and the vocabulary map stay as they are.

    On accelerators the draft's products are bfloat16; its parameters are f32 everywhere.

    Args:
      start: the weights to begin with, e.g. `eagle3.init` with `pack.frequent_tokens`; f32.
      batch: the windows of a step, e.g. `sample_mixed_batch`.
      folder: where checkpoints and log.jsonl go.
      scale: f32 [features * target E], the usual size of the target's features
        (`loss.feature_scale`); None = 1.
      mesh: of devices that share every batch, with the target on them (models/sharding.py).
      learned_from: names the texts behind `batch`, so that no other ones are gone on with.
      look: called with the whole draft after the steps `look_at`; see `train`.

    Raises:
      UserError: the folder holds a training with other settings or another start, the devices do
        not divide a batch, or a batch has tokens that the target does not know.
    """
    own, frozen, loss = _parts(start, draft_config, target_config, target_params, scale)
    params = train(
        own,
        loss,
        lambda step: _known(batch(step), target_config.vocab_size, f"Batch {step}"),
        config,
        folder,
        {
            "draft": str(draft_config),
            "train": str(config),
            "start": checkpoint.digest(start),
            "target": checkpoint.digest(target_params),
            "scale": checkpoint.digest(frozen.scale),
            "mesh": None if mesh is None else dict(mesh.shape),
            "learned_from": learned_from,
        },
        frozen=frozen,
        mesh=mesh,
        look=lambda step, params: look(step, folded(params, frozen, frozen.scale)),
        look_at=look_at,
        progress=progress,
    )
    return folded(params, frozen, frozen.scale)


def _known(windows: Windows, vocab_size: int, what: str) -> Windows:
    """The windows; UserError where they have tokens that the target does not know."""
    pack.known_tokens(windows.token, vocab_size, what)
    return windows


def _parts(
    start: Eagle3Params,
    draft_config: DraftConfig,
    target_config: TargetConfig,
    target_params: TargetParams,
    scale: jax.Array | None,
) -> tuple[Eagle3Params, Frozen, DraftLoss]:
    """What learns, what does not, and the loss."""
    ones = jnp.ones(start.fuse.shape[:1], jnp.float32)
    frozen = Frozen(target_params, start.target_token, ones if scale is None else scale)
    dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    own = folded(start, frozen, 1 / frozen.scale).replace(embedding=None, target_token=None)
    return own, frozen, DraftLoss(draft_config, target_config, dtype)


def time_step(
    start: Eagle3Params,
    draft_config: DraftConfig,
    target_config: TargetConfig,
    target_params: TargetParams,
    config: TrainConfig,
    batch: Callable[[int], Windows],
    steps: int,
    *,
    scale: jax.Array,
    mesh: Mesh | None,
) -> float:
    """Seconds of the fastest of some steps of `train_draft`, compiling left out."""
    own, frozen, loss = _parts(start, draft_config, target_config, target_params, scale)
    own, frozen = sharding.put((own, frozen), mesh)
    state = sharding.put(TrainState(own, optimizer(config).init(own)), mesh)
    seconds = []
    for step in range(steps + 1):
        began = time.monotonic()
        arrays = _divided(batch(step), mesh)
        state, value = _update(loss, config, mesh, state, frozen, arrays)
        value.block_until_ready()
        seconds.append(time.monotonic() - began)
    return min(seconds[1:])


def train(
    start: Any,
    loss: Loss,
    batch: Callable[[int], Any],
    config: TrainConfig,
    folder: Path,
    provenance: dict[str, Any],
    *,
    frozen: Any = (),
    mesh: Mesh | None = None,
    look: Look = lambda step, params: None,
    look_at: Collection[int] = (),
    progress: Progress = lambda step, steps, loss: None,
) -> Any:
    """Runs (or resumes) a training and returns its parameters; writes checkpoints and log.jsonl.

    An interrupt is obeyed after the step at work, whose state is saved. Long because checkpoints,
    log, interrupts and looks all read what was done, saved and logged so far.

    Args:
      start: the parameters to begin with.
      batch: the batch of a step, a pytree of arrays; the same whenever it is asked for.
      provenance: JSON that tells this training from others.
      frozen: arrays that the loss reads and that do not learn.
      mesh: of devices whose replicas each take a share of every batch; gradients are summed by XLA.
      look: called with the parameters after the steps `look_at`, once they are saved; where it was
        interrupted, again.
      progress: called after every LOG_EVERY steps and the last one.

    Raises:
      UserError: the folder holds a training of another provenance, the devices do not divide a
        batch, or a step gave NaN or infinity; the last checkpoint is from before it.
    """
    state = TrainState(start, optimizer(config).init(start))
    frozen = sharding.put(frozen, mesh)
    with checkpoint.manager(folder / "checkpoints") as checkpoints:
        step, restored = 0, checkpoint.restore(checkpoints, state)
        if restored is not None:
            if restored.provenance != provenance:
                raise UserError(
                    f"{folder} holds a training with other settings or another start; delete it "
                    "or train elsewhere."
                )
            step, state = restored.step, restored.state
        state = sharding.put(state, mesh)
        saved, logged, started = step, step, time.monotonic()
        values: list[jax.Array] = []  # of the steps from `logged` on

        def save() -> None:
            _require_finite(values, logged, saved)
            checkpoint.save(checkpoints, step, state, provenance)

        try:
            if step in look_at:
                look(step, state.params)
            while step < config.steps:
                with checkpoint.uninterrupted():
                    arrays = _divided(batch(step), mesh)
                    state, value = _update(loss, config, mesh, state, frozen, arrays)
                    values.append(value)
                    step += 1
                    is_last = step == config.steps
                    if step % config.save_every == 0 or is_last or step in look_at:
                        save()
                        saved = step
                    if step % LOG_EVERY == 0 or is_last:  # waits for the device
                        _require_finite(values, logged, saved)
                        progress(step, config.steps, float(value))
                        seconds = (time.monotonic() - started) / (step - logged)
                        _log(folder, step, float(value), seconds)
                        logged, started, values = step, time.monotonic(), []
                if step in look_at:
                    began = time.monotonic()
                    look(step, state.params)
                    started += time.monotonic() - began
        except KeyboardInterrupt:
            if saved < step:
                save()
            raise
    return state.params


def _divided(batch: Any, mesh: Mesh | None) -> Any:
    """A batch on its devices; UserError where the replicas do not divide it."""
    if mesh is None:
        return jax.tree.map(jnp.asarray, batch)
    rows = {len(leaf) for leaf in jax.tree.leaves(batch)}
    replicas = mesh.shape.get(sharding.REPLICA, 1)
    if any(count % replicas for count in rows):
        raise UserError(
            f"{replicas} devices do not divide a batch of {min(rows)} windows; change "
            "`batch_tokens` or `replicas`."
        )
    return jax.device_put(batch, sharding.batch_sharding(mesh))


@partial(jax.jit, static_argnames=("loss", "config", "mesh"))
def _update(
    loss: Loss,
    config: TrainConfig,
    mesh: Mesh | None,
    state: TrainState,
    frozen: Any,
    batch: Any,
) -> tuple[TrainState, jax.Array]:
    """One gradient step: the state after it and the loss before it.

    The loss is nan where the gradient is not finite, so that it tells of the state, too.
    """
    value, gradient = jax.value_and_grad(loss)(state.params, frozen, batch)
    is_finite = finite.all_finite(gradient)
    updates, opt_state = optimizer(config).update(gradient, state.optimizer, state.params)
    state = TrainState(optax.apply_updates(state.params, updates), opt_state)
    if mesh is not None:  # as the next step takes it, so that it is the same program
        state = jax.lax.with_sharding_constraint(state, sharding.sharding(mesh))
    return state, jnp.where(is_finite, value, jnp.nan)


def _require_finite(values: list[jax.Array], before: int, saved: int) -> None:
    """Raises UserError for the first of some steps' losses that is not finite.

    Args:
      before: steps done before them.
      saved: the last step that is saved.
    """
    for step, value in enumerate(jax.device_get(values), before + 1):
        if not np.isfinite(value):
            kept = f"the checkpoint of step {saved} is kept" if saved else "no step is saved"
            raise UserError(
                f"The loss of step {step} or its gradient is NaN or infinite ({kept}); train with "
                "a lower `learning_rate` in another folder, or look for bad weights and texts."
            )


def _log(folder: Path, step: int, loss: float, seconds: float) -> None:
    row = {"step": step, "loss": round(loss, 4), "step_seconds": round(seconds, 3)}
    path = folder / "log.jsonl"
    with files.writing(path), path.open("a") as file:
        file.write(json.dumps(row) + "\n")
