"""The replay environments for gymnasium's interface, in numpy: what Stable-Baselines3 learns on.

The same observations (the paper's), rewards and episodes as `replay.environment`, for one sequence
on the host. `bench_learning` trains on them side by side; nothing else uses them.
"""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from experiments.studies.learning_speed import PAPER_LEARNING, PAPER_WIDTHS
from ltd_jax.config import CycleConfig, PPOConfig, Reward
from ltd_jax.replay import optimum
from ltd_jax.replay.simulate import Simulator


class Walk:
    """One sequence: a position in the replay and the levels drafted there.

    Args:
      policy: "size" chooses a size at random levels; "depth" goes on (1) or stops (0) after every
        level, at a fixed size.
      size: index of that size.
    """

    def __init__(
        self,
        replay: Simulator,
        config: CycleConfig,
        policy: Literal["size", "depth"],
        reward: Reward,
        size: int = 0,
        seed: int = 0,
    ) -> None:
        self.config, self.policy, self.reward, self.size = config, policy, reward, size
        self.random = np.random.default_rng(seed)
        names = ("accepted", "remaining", "length", "context", "share", "seconds")
        self.replay = {name: np.asarray(getattr(replay, name)) for name in names}
        self.probability = np.exp(np.asarray(replay.score))
        self.plain = float(replay.plain_seconds)
        self.decision = float(replay.depth_seconds), float(replay.size_seconds)
        self.position = self.levels = 0
        self.restart()

    def restart(self) -> None:
        """Any position."""
        self.position = int(self.random.integers(len(self.replay["remaining"])))
        self.draft()

    def draft(self) -> None:
        """A new tree."""
        at_random = int(self.random.integers(1, self.config.max_levels + 1))
        self.levels = at_random if self.policy == "size" else 1

    def observe(self) -> np.ndarray:
        """f32 [O], as `cycle.observe` builds the paper's observations."""
        probability_DWW = self.probability[self.position]
        if self.policy == "depth":
            seen = probability_DWW[self.levels - 1]
        else:
            drafted = np.arange(self.config.max_levels)[:, None, None] < self.levels
            seen = np.where(drafted, probability_DWW, 0)
        length = self.replay["length"][self.position] / self.config.context
        scalars = [self.levels / self.config.max_levels, length]
        return np.append(seen.reshape(-1), scalars).astype(np.float32)

    def act(self, action: int) -> tuple[float, bool]:
        """Reward, and whether the episode is over."""
        if self.policy == "size":
            return self.verify(action)
        self.levels = min(self.levels + action, self.config.max_levels)
        if action == 1 and self.levels < self.config.max_levels:
            return 0.0, False
        return self.verify(self.size)[0], True

    def verify(self, size: int) -> tuple[float, bool]:
        """The rest of the cycle: its reward, and whether the text is over."""
        place, level = self.position, self.levels - 1
        row, share = self.replay["context"][place], self.replay["share"][place]
        table = self.replay["seconds"]
        after = min(row + 1, len(table) - 1)
        seconds = (1 - share) * table[row, level, size] + share * table[after, level, size]
        seconds += self.decision[1] + self.decision[0] * self.levels
        accepted, left = int(self.replay["accepted"][place, level, size]), self.replay["remaining"]
        committed = min(accepted + 1, int(left[place]))
        over = committed == left[place]
        self.position += committed
        self.restart() if over else self.draft()
        return self.reward_of(accepted, committed, float(seconds)), bool(over)

    def reward_of(self, accepted: int, committed: int, seconds: float) -> float:
        """As `replay.environment`, without a running throughput."""
        rewards: dict[str, float] = {
            "paper": committed / seconds * self.plain,
            "accepted": accepted,
            "time": -seconds / self.plain,
        }
        return rewards[self.reward]


def vector(walk: Walk, actions: int) -> Any:
    """A walk as Stable-Baselines3 takes it: one environment in a row of one."""
    import gymnasium
    from stable_baselines3.common.vec_env import DummyVecEnv

    class Environment(gymnasium.Env):
        """The walk behind gymnasium's methods."""

        def __init__(self) -> None:
            width = len(walk.observe())
            self.observation_space = gymnasium.spaces.Box(0, 1, (width,), np.float32)
            self.action_space = gymnasium.spaces.Discrete(actions)

        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            return walk.observe(), {}

        def step(self, action: Any) -> Any:
            reward, over = walk.act(int(action))
            return walk.observe(), reward, over, False, {}

    return DummyVecEnv([functools.partial(Environment)])


def has_sb3() -> bool:
    """Whether Stable-Baselines3 is installed."""
    return importlib.util.find_spec("stable_baselines3") is not None


def training(
    name: Literal["size", "depth"], config: CycleConfig, settings: PPOConfig, replay: Simulator
) -> Callable[[], Any]:
    """One update of the other library with the same settings, on the processor."""
    import stable_baselines3
    import torch

    widths = {
        kind: list(getattr(PAPER_WIDTHS, f"{name}_{part}"))
        for kind, part in (("pi", "actor"), ("vf", "critic"))
    }
    size = config.sizes.index(optimum.best_constant(replay, config).size)
    walk = Walk(replay, config, name, PAPER_LEARNING.reward, size)
    actions = len(config.sizes) if name == "size" else 2
    model = stable_baselines3.PPO(
        "MlpPolicy",
        vector(walk, actions),
        learning_rate=settings.learning_rate,
        n_steps=settings.rollout,
        batch_size=settings.minibatch,
        n_epochs=settings.epochs,
        gamma=settings.gamma,
        ent_coef=settings.entropy,
        policy_kwargs={"net_arch": widths, "activation_fn": torch.nn.ReLU},
        device="cpu",
        seed=0,
    )
    return lambda: model.learn(settings.rollout, reset_num_timesteps=False) and None
