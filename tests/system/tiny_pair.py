"""A tiny pair as a user has it on disk: random weights in shards, a tokenizer of bytes, a template.

Commands start on it in a second, so a test can damage one thing in it and look at what is said.
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from ltd_jax.config import CycleConfig
from ltd_jax.models.hf import weights as hf_weights
from tests.models import folders

END = "<|end|>"
VOCABULARY = 260
TARGET = dataclasses.replace(folders.TARGET, vocab_size=VOCABULARY)
TOKENS = np.arange(40, 56)  # target ids of the draft's ids
DRAFT = dataclasses.replace(folders.DRAFT, vocab_size=VOCABULARY, draft_vocab_size=len(TOKENS))
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}[assistant]"
)
SHARD_BYTES = 16_000
QUESTION = '{"question_id": 1, "category": "a", "turns": ["one"]}'
CYCLE = CycleConfig(beam_width=2, max_levels=2, sizes=(0, 2), context=64, prefill_chunk=16)
FLAGS = (
    *("--beam-width", 2, "--max-levels", 2, "--sizes", 0, 2),
    *("--context", 64, "--prefill-chunk", 16),
)  # of CYCLE


def tokenizer(*more: str) -> tokenizers.Tokenizer:
    """One token for every byte, one for the end, and more if asked for."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    found = tokenizers.Tokenizer(
        models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[])
    )
    found.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found.decoder = decoders.ByteLevel()
    found.add_special_tokens([END])
    found.add_tokens(list(more))
    return found


def write(root: Path) -> Path:
    """Writes root/target and root/draft; returns the root."""
    target, draft = folders.target_params(TARGET), folders.draft_params(DRAFT, tokens=TOKENS)
    hf_weights.save_target(root / "target", TARGET, target, "float32", shard_bytes=SHARD_BYTES)
    hf_weights.save_draft(root / "draft", DRAFT, draft, "float32")
    tokenizer().save(str(root / "target" / "tokenizer.json"))
    settings = {"chat_template": TEMPLATE, "eos_token": END}
    (root / "target" / "tokenizer_config.json").write_text(json.dumps(settings))
    (root / "target" / "generation_config.json").write_text('{"eos_token_id": [256, 257]}')
    return root
