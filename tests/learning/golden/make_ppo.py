"""Makes before.zip, after.zip and ppo.npz with Stable-Baselines3 (which no test needs).

python -m tests.learning.golden.make_ppo

One rollout of the real library over two environments whose episodes end or are cut, its advantages
and returns; then, with other weights than those that acted, its losses and gradients on the whole
rollout as one minibatch.
"""

from pathlib import Path

import gymnasium
import numpy as np
import stable_baselines3
import torch
from stable_baselines3.common import logger

FOLDER = Path(__file__).parent
STEPS, ENVIRONMENTS, WIDTH, ACTIONS = 32, 2, 3, 4
KEPT = ("reward", "terminated", "truncated", "next_observation")
LOSSES = {
    "policy": "train/policy_gradient_loss",
    "value": "train/value_loss",
    "entropy": "train/entropy_loss",  # of the opposite sign
    "total": "train/loss",
}


class Walk(gymnasium.Env):
    """Random observations; a step may terminate, every fifth one is cut, and both may coincide."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (WIDTH,), np.float32)
    action_space = gymnasium.spaces.Discrete(ACTIONS)

    def __init__(self, seed: int) -> None:
        self.random, self.log, self.count = np.random.default_rng(seed), [], 0

    def reset(self, *, seed=None, options=None):
        self.count = 0
        return self.draw(), {}

    def draw(self) -> np.ndarray:
        return self.random.normal(size=WIDTH).astype(np.float32)

    def step(self, action):
        self.count += 1
        seen, reward = self.draw(), float(self.random.normal() + action)
        terminated, truncated = bool(self.random.random() < 0.2), self.count == 5
        self.log.append((reward, terminated, truncated, seen))
        return seen, reward, terminated, truncated, {}


def main() -> None:
    model = stable_baselines3.PPO(
        "MlpPolicy",
        stable_baselines3.common.vec_env.DummyVecEnv(
            [lambda seed=seed: Walk(seed) for seed in range(ENVIRONMENTS)]
        ),
        n_steps=STEPS,
        batch_size=STEPS * ENVIRONMENTS,
        n_epochs=1,
        gamma=0.9,
        ent_coef=0.01,
        policy_kwargs={"net_arch": {"pi": [8], "vf": [8, 4]}, "activation_fn": torch.nn.ReLU},
        seed=0,
        device="cpu",
    )
    model.set_logger(logger.configure(None, []))
    _, callback = model._setup_learn(STEPS * ENVIRONMENTS)
    model.collect_rollouts(model.env, callback, model.rollout_buffer, STEPS)
    model.save(FOLDER / "before.zip")
    buffer = model.rollout_buffer
    logs = [environment.log for environment in model.env.envs]
    arrays = {
        name: np.array([[row[index] for row in log] for log in logs]).swapaxes(0, 1)
        for index, name in enumerate(KEPT)
    }
    arrays |= {
        "observation": buffer.observations,
        "action": buffer.actions[..., 0].astype(np.int32),
    }
    arrays |= {"log_prob": buffer.log_probs, "advantage": buffer.advantages}
    arrays |= {"target": buffer.returns, "last": model._last_obs}
    arrays = {name: np.copy(value) for name, value in arrays.items()}
    torch.manual_seed(3)
    with torch.no_grad():
        for tensor in model.policy.parameters():
            tensor.add_(0.3 * torch.randn_like(tensor))
    model.save(FOLDER / "after.zip")
    model.train()
    said = model.logger.name_to_value
    arrays |= {f"loss/{name}": np.float32(said[key]) for name, key in LOSSES.items()}
    for name, tensor in model.policy.named_parameters():
        arrays[f"gradient/{name}"] = tensor.grad.numpy()
    arrays["clipped"] = np.float32(said["train/clip_fraction"])
    arrays["versions"] = np.array([stable_baselines3.__version__, torch.__version__])
    np.savez_compressed(FOLDER / "ppo.npz", **arrays)
    ends = arrays["terminated"].sum(), arrays["truncated"].sum()
    both = (arrays["terminated"] & arrays["truncated"]).sum()
    print("terminated, truncated, both:", *ends, both, "clipped:", arrays["clipped"])


if __name__ == "__main__":
    main()
