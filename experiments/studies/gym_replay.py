"""The environments of learning for gymnasium's interface, in numpy, for Stable-Baselines3.

The same observations and rewards (the paper's) and episodes as `learning.environment`, for one
sequence on the host. `bench_learning` trains on them side by side.
"""

import importlib.util
from collections.abc import Callable
from typing import Any, Literal

import jax
import numpy as np

from ltd_jax.config import PolicyConfig, PPOConfig
from ltd_jax.learning.environment import EnvData
from ltd_jax.replay.simulate import Simulator


class Walk:
    """One sequence: a position in the simulator and the levels drafted there.

    Args:
      policy: "size" chooses a size at random levels; "depth" goes on (1) or stops (0) after every
        level, at a fixed size.
      size_index: of that size.
    """

    def __init__(
        self,
        simulator: Simulator,
        policy: Literal["size", "depth"],
        size_index: int = 0,
        seed: int = 0,
    ) -> None:
        self.config, self.policy, self.size_index = simulator.config, policy, size_index
        self.random = np.random.default_rng(seed)
        self.simulator = jax.device_get(simulator)
        self.probability = np.exp(self.simulator.log_prob)
        self.position = self.levels = 0
        self.restart()

    @property
    def action_count(self) -> int:
        """Sizes, or going on and stopping."""
        return len(self.config.sizes) if self.policy == "size" else 2

    def restart(self) -> None:
        """Moves to any position."""
        self.position = int(self.random.integers(len(self.simulator.tokens_left)))
        self.draft()

    def draft(self) -> None:
        """Begins a new tree."""
        at_random = int(self.random.integers(1, self.config.max_levels + 1))
        self.levels = at_random if self.policy == "size" else 1

    def observe(self) -> np.ndarray:
        """f32 [O], the paper's observations as `policies.observe` builds them."""
        probability_DWW = self.probability[self.position]
        if self.policy == "depth":
            shown = probability_DWW[self.levels - 1]
        else:
            drafted = np.arange(self.config.max_levels)[:, None, None] < self.levels
            shown = np.where(drafted, probability_DWW, 0)
        length = self.simulator.length[self.position] / self.config.context
        scalars = [self.levels / self.config.max_levels, length]
        return np.append(shown.reshape(-1), scalars).astype(np.float32)

    def act(self, action: int) -> tuple[float, bool]:
        """Reward, and whether the episode is over."""
        if self.policy == "size":
            return self.verify(action)
        self.levels = min(self.levels + action, self.config.max_levels)
        if action == 1 and self.levels < self.config.max_levels:
            return 0.0, False
        return self.verify(self.size_index)[0], True

    def verify(self, size_index: int) -> tuple[float, bool]:
        """The rest of the cycle: its reward, and whether the text is over."""
        here, chosen = self.simulator, (self.position, self.levels - 1, size_index)
        decisions = float(here.size_seconds) + float(here.depth_seconds) * self.levels
        seconds = float(here.seconds[chosen]) + decisions
        left = int(here.tokens_left[self.position])
        committed = min(int(here.accepted[chosen]) + 1, left)
        over = committed == left
        self.position += committed
        self.restart() if over else self.draft()
        return committed / seconds * float(here.plain_seconds), over


def has_sb3() -> bool:
    """Whether Stable-Baselines3 is installed."""
    return importlib.util.find_spec("stable_baselines3") is not None


def sb3_update(
    name: Literal["size", "depth"],
    data: EnvData,
    widths: PolicyConfig,
    settings: PPOConfig,
) -> Callable[[], Any]:
    """One update of the other library with the same settings, on the CPU."""
    import stable_baselines3
    import torch

    sizes = data.simulator.config.sizes
    size_index = 0 if data.other is None else sizes.index(int(data.other.size))
    networks = {
        "pi": list(getattr(widths, f"{name}_actor")),
        "vf": list(getattr(widths, f"{name}_critic")),
    }
    model = stable_baselines3.PPO(
        "MlpPolicy",
        as_vector(Walk(data.simulator, name, size_index)),
        learning_rate=settings.learning_rate,
        n_steps=settings.rollout,
        batch_size=settings.minibatch,
        n_epochs=settings.epochs,
        gamma=settings.gamma,
        ent_coef=settings.entropy,
        policy_kwargs={"net_arch": networks, "activation_fn": torch.nn.ReLU},
        device="cpu",
        seed=0,
    )
    return lambda: model.learn(settings.rollout, reset_num_timesteps=False) and None


def as_vector(walk: Walk) -> Any:
    """A walk as Stable-Baselines3 takes it: one environment in a row of one."""
    import gymnasium
    from stable_baselines3.common.vec_env import DummyVecEnv

    class GymEnvironment(gymnasium.Env):
        """The walk behind gymnasium's methods."""

        def __init__(self) -> None:
            width = len(walk.observe())
            self.observation_space = gymnasium.spaces.Box(0, 1, (width,), np.float32)
            self.action_space = gymnasium.spaces.Discrete(walk.action_count)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return walk.observe(), {}

        def step(self, action: Any) -> Any:
            reward, over = walk.act(int(action))
            return walk.observe(), reward, over, False, {}

    return DummyVecEnv([GymEnvironment])
