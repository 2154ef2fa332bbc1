"""Rotary settings as config.json files have them, and the places of a text that are compared.

Shared by the script that makes the golden file and by the tests that read it.
"""

from pathlib import Path
from typing import Any

from tests.models.golden import families

GOLDEN = Path(__file__).parent / "rope.npz"
ORIGINAL = 64  # tokens of the original context of the small cases
LENGTHS = (32, 64, 65, 128, 256)  # of prompts that are read at once, up to four times the original
AFTER = (40, 64, 65, 130, 255)  # positions of tokens that are read one by one, after 32 at once
HALF = {"partial_rotary_factor": 0.5}
LONG = {
    "short_factor": [1.0, 1.05, 1.1, 1.2, 1.3, 1.5, 1.7, 2.0],
    "long_factor": [1.0, 1.5, 2.0, 3.0, 4.5, 6.0, 8.0, 12.0],
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def fields(
    scaling: dict[str, Any] | None = None, theta: float = 1e4, head_dim: int = 16, **others: Any
) -> dict[str, Any]:
    """A config.json in the older spelling, with a small context."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 4 * head_dim,
        "num_attention_heads": 4,
        "head_dim": head_dim,
        "max_position_embeddings": ORIGINAL,
        "rope_theta": theta,
        "rope_scaling": scaling,
    } | others


def newer(parameters: dict[str, Any], **others: Any) -> dict[str, Any]:
    """A config.json in the newer spelling."""
    return fields(None, **others) | {"rope_theta": None, "rope_parameters": parameters}


OLD = {"original_max_position_embeddings": ORIGINAL}
WIDE = {"max_position_embeddings": 4 * ORIGINAL}
CASES: dict[str, dict[str, Any]] = {
    "default": fields(theta=5e5),
    "default, newer": newer({"rope_type": "default", "rope_theta": 1e6}),
    "mrope": newer({"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]}),
    "linear": fields({"type": "linear", "factor": 4.0}),
    "linear by less than 1": fields({"type": "linear", "factor": 0.5}),
    "linear, newer, part": newer(
        {"rope_type": "linear", "factor": 2.5, "rope_theta": 5e4, **HALF}, head_dim=32
    ),
    "dynamic": fields({"type": "dynamic", "factor": 2.0}),
    "dynamic, newer": newer({"rope_type": "dynamic", "factor": 3.7, "rope_theta": 5e5}),
    "dynamic, odd context": fields(
        {"rope_type": "dynamic", "factor": 1.3}, max_position_embeddings=60
    ),
    "yarn": fields({"type": "yarn", "factor": 4.0, **OLD}, theta=1e6, head_dim=32),
    "yarn, all said": newer(
        {
            "rope_type": "yarn",
            "rope_theta": 1e5,
            "factor": 8.0,
            "attention_factor": 1.25,
            "beta_fast": 16,
            "beta_slow": 2,
            "truncate": False,
        }
        | OLD,
        head_dim=32,
    ),
    "yarn, mscale": fields(
        {"type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.0, **OLD}
    ),
    "yarn, a step": fields({"type": "yarn", "factor": 4.0, "beta_fast": 1, "beta_slow": 1, **OLD}),
    "yarn, factor null": fields({"type": "yarn", "factor": None, **OLD}, **WIDE),
    "yarn, original not said": fields({"type": "yarn", "factor": 2.0}),
    "yarn, original at the top": fields({"type": "yarn", "factor": 2.0, **OLD}, **WIDE)
    | {"original_max_position_embeddings": 32},
    "llama3": fields({"rope_type": "llama3", **LLAMA3, **OLD}, theta=5e5, head_dim=32, **WIDE),
    "llama3, newer": newer(
        {"rope_type": "llama3", **LLAMA3, **OLD, "rope_theta": 5e5}, head_dim=32, **WIDE
    ),
    "llama3, equal bounds": fields(
        {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 4.0, **OLD}, **WIDE
    ),
    "llama3, bounds exchanged": fields(
        {"rope_type": "llama3", **LLAMA3, "low_freq_factor": 16.0, **OLD}, **WIDE
    ),
    "longrope": fields({"type": "longrope", **LONG, **OLD}, **WIDE),
    "longrope, newer": newer(
        {"rope_type": "longrope", "rope_theta": 1e5, "factor": 16.0, **LONG, **OLD}, **WIDE
    ),
    "longrope, part": newer(
        {
            "rope_type": "longrope",
            "rope_theta": 1e5,
            "attention_factor": 1.1,
            **LONG,
            **OLD,
            **HALF,
        },
        head_dim=32,
        **WIDE,
    ),
    "both spellings": fields({"type": "linear", "factor": 4.0}, theta=1e4)
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "saved by v4 again": fields(theta=1e4)
    | {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
}
# As published, at few places: the shapes and numbers of real models.
REAL: dict[str, dict[str, Any]] = {
    "vicuna-13b-v1.5-16k": fields(
        {"factor": 4.0, "type": "linear"}, head_dim=128, max_position_embeddings=4096
    ),
    "Llama-3.1-8B": fields(
        {"rope_type": "llama3", **LLAMA3, "original_max_position_embeddings": 8192},
        theta=5e5,
        head_dim=128,
        max_position_embeddings=131072,
    ),
    "Qwen2.5-7B with yarn": fields(
        {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768},
        theta=1e6,
        head_dim=128,
        max_position_embeddings=32768,
    ),
}
REAL_POSITIONS = (1, 2047, 8192, 32767, 131071)

# Whole models, whose texts cross the original context, or begin beyond it.
WHOLE: dict[str, dict[str, Any]] = {
    "dynamic": families.BASE
    | {"max_position_embeddings": 32, "rope_scaling": {"type": "dynamic", "factor": 2.0}},
    "longrope": families.BASE
    | {
        "hidden_size": 64,
        "rope_scaling": {"type": "longrope", **LONG, "original_max_position_embeddings": 32},
    },
}
PROMPTS = {"before": families.PROMPT, "beyond": families.PROMPT * 2}
NEW_TOKENS = 48
