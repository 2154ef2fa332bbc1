"""Makes size.zip, depth.zip and sb3.npz with the real library (which no test needs).

python -m tests.baselines.golden.make_sb3

Small networks of the published shapes' ends, their logits and values on fixed observations.
"""

from pathlib import Path

import gymnasium
import numpy as np
import stable_baselines3
import torch

FOLDER = Path(__file__).parent
KINDS = {
    "size": (1268, 24, {"net_arch": {"pi": [6, 4], "vf": [3, 2]}}),
    "depth": (
        128,
        2,
        {"net_arch": {"pi": [8], "vf": [4, 3]}, "activation_fn": torch.nn.ReLU},
    ),
}


class Blank(gymnasium.Env):
    """Spaces alone."""

    def __init__(self, width: int, actions: int) -> None:
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (width,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(actions)


def observations(width: int) -> np.ndarray:
    """Eight rows like the published ones: cumulative log-probabilities and small scalars."""
    random = np.random.default_rng(width)
    rows = -random.exponential(4, (8, width))
    rows[:, -28:] = random.uniform(0, 1.2, (8, 28))
    return rows.astype(np.float32)


def answers(policy: torch.nn.Module, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Logits (normalised, as the library keeps them) and values."""
    seen = torch.as_tensor(rows)
    with torch.no_grad():
        logits = policy.get_distribution(seen).distribution.logits
        return {"logits": logits.numpy(), "value": policy.predict_values(seen)[:, 0].numpy()}


def main() -> None:
    versions = [stable_baselines3.__version__, torch.__version__]
    arrays = {"versions": np.array(versions)}
    for name, (width, actions, kwargs) in KINDS.items():
        model = stable_baselines3.PPO(
            "MlpPolicy", Blank(width, actions), policy_kwargs=kwargs, seed=1, device="cpu"
        )
        torch.manual_seed(2)
        for tensor in model.policy.parameters():  # larger than at first, so that choices differ
            torch.nn.init.normal_(tensor, std=0.4 if tensor.ndim == 1 else tensor.shape[1] ** -0.5)
        model.save(FOLDER / f"{name}.zip")
        rows = observations(width)
        found = answers(model.policy, rows)
        arrays |= {f"{name}/observation": rows}
        arrays |= {f"{name}/{key}": value for key, value in found.items()}
        print(name, found["logits"].argmax(1))
    np.savez_compressed(FOLDER / "sb3.npz", **arrays)


if __name__ == "__main__":
    main()
