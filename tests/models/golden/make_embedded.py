"""Makes embedded.json from transformers and torch (neither is needed to run the tests).

python -m tests.models.golden.make_embedded

The embedded target's folder as `AutoModelForCausalLM` and `AutoTokenizer` load it, in f32: ids of
prompts cut from the package's test questions, and 64 greedy tokens behind each.
"""

import json
from pathlib import Path

import torch
import transformers

ASSETS = Path(__file__).parents[3] / "ltd_jax" / "assets"
GOLDEN = Path(__file__).parent / "embedded.json"
PROMPTS_PER_TASK, PROMPT_TOKENS, NEW_TOKENS = 2, 48, 64


def prompts() -> list[str]:
    """The first test questions of every task."""
    found = []
    for path in sorted((ASSETS / "prompts" / "test").glob("*.jsonl")):
        rows = path.read_text(encoding="utf-8").splitlines()[:PROMPTS_PER_TASK]
        found += [json.loads(row)["turns"][0] for row in rows]
    return found


def gap(logits: torch.Tensor) -> float:
    """How far the best logit lies above the second best."""
    best = logits.topk(2).values
    return float(best[0] - best[1])


def continuation(model, tokens: list[int]) -> tuple[list[int], float]:
    """64 greedy tokens, every one from a pass over all before it, and the smallest logit gap."""
    text, smallest = list(tokens), float("inf")
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            logits = model(torch.tensor([text])).logits[0, -1]
            smallest = min(smallest, gap(logits))
            text.append(int(logits.argmax()))
    return text[len(tokens) :], smallest


def main() -> None:
    folder = ASSETS / "target"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    for prompt in prompts():
        ids = tokenizer(prompt, add_special_tokens=False).input_ids[-PROMPT_TOKENS:]
        tokens, smallest = continuation(model, ids)
        rows.append({"prompt": ids, "tokens": tokens, "text": tokenizer.decode(tokens)})
        print(len(ids), "prompt tokens, smallest logit gap", round(smallest, 4))
    versions = {"transformers": transformers.__version__, "torch": torch.__version__}
    GOLDEN.write_text(json.dumps({"versions": versions, "rows": rows}, indent=0) + "\n")


if __name__ == "__main__":
    main()
