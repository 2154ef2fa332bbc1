"""Makes rope.npz from transformers and torch (neither is needed to run the tests).

python -m tests.models.golden.make_rope

Each case: cosines and sines [2, n, R/2] of prompts that are read at once, at a quarter and at the
end of each; and [2, n, R/2] of tokens that are read one by one after a prompt of 32. Of real
models: [2, n, R/2] at some positions. Of whole models: greedy texts, generated with a cache.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from tests.models.golden import families, rope


def embedding(fields):
    """A new embedding of a config.json: those of before leave no trace."""
    given = {name: value for name, value in fields.items() if value is not None}
    config = transformers.LlamaConfig(**{name: _copied(value) for name, value in given.items()})
    made = LlamaRotaryEmbedding(config)
    assert made.rope_type == "default" or made.rope_type in ROPE_INIT_FUNCTIONS
    return made


def _copied(value):
    return dict(value) if isinstance(value, dict) else value


def tables(made, positions) -> np.ndarray:
    """Cosines and sines [2, n, R/2] of one pass."""
    cos, sin = made(torch.zeros(1, dtype=torch.float32), torch.tensor([list(positions)]))
    half = cos.shape[-1] // 2
    return np.stack([cos[0, :, :half].numpy(), sin[0, :, :half].numpy()])


def text(folder: Path, prompt: tuple[int, ...]) -> np.ndarray:
    """The greedy text after a prompt, each token from a pass over one token and a cache."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    tokens, read, cache = list(prompt), list(prompt), None
    with torch.no_grad():
        for _ in range(rope.NEW_TOKENS):
            found = model(torch.tensor([read]), past_key_values=cache, use_cache=True)
            read, cache = [int(found.logits[0, -1].argmax())], found.past_key_values
            tokens += read
    return np.asarray(tokens[len(prompt) :], np.int16)


def main() -> None:
    arrays = {"versions": np.array([transformers.__version__, torch.__version__])}
    for name, fields in rope.CASES.items():
        at_once = [
            tables(embedding(fields), range(length))[:, [length // 4, length - 1]]
            for length in rope.LENGTHS
        ]
        made = embedding(fields)
        tables(made, range(32))
        by_one = [tables(made, [position]) for position in rope.AFTER]
        arrays[f"{name}/at once"] = np.concatenate(at_once, axis=1)
        arrays[f"{name}/by one"] = np.concatenate(by_one, axis=1)
    for name, fields in rope.REAL.items():
        arrays[name] = tables(embedding(fields), rope.REAL_POSITIONS)
    with tempfile.TemporaryDirectory() as root:
        for name, fields in rope.WHOLE.items():
            folder = families.write(Path(root) / name, name, fields)
            for place, prompt in rope.PROMPTS.items():
                arrays[f"{name}/{place}"] = text(folder, prompt)
                plain = families.write(Path(root) / "plain", name, fields | {"rope_scaling": None})
                arrays[f"{name}/{place}, plain"] = text(plain, prompt)
                print(name, place, len(set(arrays[f"{name}/{place}"].tolist())), "tokens")
    np.savez_compressed(rope.GOLDEN, **arrays)
    print(rope.GOLDEN.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
