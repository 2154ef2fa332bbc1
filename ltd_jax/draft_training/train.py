"""The training loop that target and draft share: batches by step number, checkpoints, a log.

Everything random is a function of (seed, step), so a run that was killed and resumed is the run
that was not: parameters, optimiser and step come from the checkpoint, the batch from the step.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from rich import progress

from ltd_jax import checkpoint
from ltd_jax.files import UserError

LOG_EVERY = 20  # steps
Loss = Callable[[Any, Any, Any], jax.Array]  # of parameters, frozen arrays and a batch


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run over random windows of the corpus."""

    tokens: int = 10_000_000  # to train on
    sequence: int = 256  # tokens per window
    long_sequence: int = 384  # tokens per window in the last `long_share` of training
    long_share: float = 0.25
    batch_tokens: int = 2304  # per step, whatever the window
    learning_rate: float = 2e-3
    warmup_steps: int = 100
    decay_share: float = 0.4  # of all steps, linear to zero at the end
    weight_decay: float = 0.1
    max_gradient_norm: float = 1.0
    kind_shares: tuple[float, ...] = (0.40, 0.34, 0.13, 0.13)  # code, tests, docs, tables
    seed: int = 0
    save_every: int = 200  # steps

    @property
    def steps(self) -> int:
        """Optimiser steps of the whole run."""
        return max(1, self.tokens // self.batch_tokens)

    def window(self, step: int) -> int:
        """Tokens per window at a step."""
        return self.long_sequence if step >= (1 - self.long_share) * self.steps else self.sequence


@struct.dataclass
class TrainState:
    """What a resumed run needs."""

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


def sample_batch(streams: list[np.ndarray], config: TrainConfig, step: int) -> np.ndarray:
    """Windows [B, T + 1] i32 of step `step`, each from a kind drawn by `kind_shares`."""
    random = np.random.default_rng((config.seed, step))
    window = config.window(step)
    rows = max(1, config.batch_tokens // window)
    kinds = random.choice(len(streams), size=rows, p=np.asarray(config.kind_shares))
    starts = [random.integers(0, len(streams[kind]) - window) for kind in kinds]
    pairs = zip(kinds, starts, strict=True)
    return np.stack([streams[k][s : s + window + 1] for k, s in pairs]).astype(np.int32)


def train(
    init_params: Callable[[], Any],
    loss: Loss,
    batch: Callable[[int], Any],
    config: TrainConfig,
    folder: Path,
    provenance: dict[str, Any],
    frozen: Any = (),
) -> Any:
    """Runs (or resumes) a training and returns its parameters; writes checkpoints and log.jsonl.

    Args:
      loss: of parameters, what is frozen, and a batch; compiled once per function object.
      batch: the batch of a step, a pytree of arrays; the same whenever it is asked for.
      frozen: arrays that the loss reads and that do not learn.

    Raises:
      UserError: the folder holds a training of another provenance.
    """
    params = init_params()
    state = TrainState(params, optimizer(config).init(params))
    with checkpoint.manager(folder / "checkpoints") as checkpoints:
        first, state = _begun(checkpoint.restore(checkpoints, state), state, provenance, folder)
        started = time.monotonic()
        for step in progress.track(
            range(first, config.steps), description=str(folder), update_period=5
        ):
            try:
                with checkpoint.uninterrupted():
                    rows = jax.tree.map(jnp.asarray, batch(step))
                    state, value = _advance(loss, config, state, frozen, rows)
            except KeyboardInterrupt:
                checkpoint.save(checkpoints, step + 1, state, provenance)
                raise
            if (step + 1) % LOG_EVERY == 0:
                _log(folder, step + 1, float(value), (time.monotonic() - started) / LOG_EVERY)
                started = time.monotonic()
            if (step + 1) % config.save_every == 0 or step + 1 == config.steps:
                checkpoint.save(checkpoints, step + 1, state, provenance)
    return state.params


def _begun(
    restored: checkpoint.Restored | None,
    fresh: TrainState,
    provenance: dict[str, Any],
    folder: Path,
) -> tuple[int, TrainState]:
    """The first step and the state there; UserError for a training of another provenance."""
    if restored is None:
        return 0, fresh
    if restored.provenance != provenance:
        raise UserError(
            f"{folder} holds a training with other settings or another start; give another --out "
            "or delete it."
        )
    return restored.step, restored.state


@partial(jax.jit, static_argnames=("loss", "config"))
def _advance(
    loss: Loss, config: TrainConfig, state: TrainState, frozen: Any, rows: Any
) -> tuple[TrainState, jax.Array]:
    """One step of training: the state behind it and its loss."""
    value, gradient = jax.value_and_grad(loss)(state.params, frozen, rows)
    updates, opt_state = optimizer(config).update(gradient, state.optimizer, state.params)
    return TrainState(optax.apply_updates(state.params, updates), opt_state), value


def _log(folder: Path, step: int, loss: float, seconds: float) -> None:
    row = {"step": step, "loss": round(loss, 4), "step_seconds": round(seconds, 3)}
    with (folder / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
