"""Makes families.npz from transformers and torch (neither is needed to run the tests).

python -m tests.models.golden.make_families

Each family: logits [20, 48] of the prompt, the three feature states [20, 48], 64 greedy tokens.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers

from tests.models.golden import families


def golden(folder: Path) -> dict[str, np.ndarray]:
    """What transformers says of a folder."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    tokens = list(families.PROMPT)
    with torch.no_grad():
        found = model(torch.tensor([tokens]), output_hidden_states=True)
        layers = len(model.model.layers)
        states = [found.hidden_states[i][0] for i in (2, layers // 2, layers - 3)]
        for _ in range(families.NEW_TOKENS):
            tokens.append(int(model(torch.tensor([tokens])).logits[0, -1].argmax()))
    return {
        "logits": found.logits[0].numpy(),
        "features": torch.cat(states, dim=-1).numpy(),
        "greedy": np.asarray(tokens[len(families.PROMPT) :], np.int16),
    }


def main() -> None:
    arrays: dict[str, np.ndarray] = dict(np.load(families.GOLDEN))  # of before are kept
    with tempfile.TemporaryDirectory() as root:
        for family in families.FAMILIES:
            if f"{family}/logits" in arrays:
                continue
            found = golden(families.write(Path(root) / family, family))
            arrays |= {f"{family}/{name}": value for name, value in found.items()}
            arrays["versions"] = np.array([transformers.__version__, torch.__version__])
            print(family, len(set(found["greedy"].tolist())), "different greedy tokens")
    np.savez_compressed(families.GOLDEN, **arrays)


if __name__ == "__main__":
    main()
