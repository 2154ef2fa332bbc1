"""Bad flags and prompts: one clear sentence and exit code 2."""

import shutil

import pytest

from tests.system import refusing
from tests.system.refusing import refusal

SAY = ("--prompt", "hi", "--new-tokens", "4", "--context", "64")
REFUSED = {
    "nothing to decode": ("generate", (), ["--prompt", "--chat"]),
    "two things to decode": ("generate", (*SAY, "--prompt-ids", "1"), ["Give one of"]),
    "no new tokens": ("generate", (*SAY, "--new-tokens", "0"), ["--new-tokens", "0"]),
    "fewer than no tokens": ("generate", (*SAY, "--new-tokens", "-3"), ["-3"]),
    "empty prompt": ("generate", (*SAY, "--prompt", "", "--style", "plain"), ["no tokens"]),
    "long prompt": ("generate", (*SAY, "--prompt", "x" * 70), ["87 tokens", "holds 64"]),
    "small context": ("generate", (*SAY, "--context", "20"), ["context holds 20"]),
    "context of one": ("generate", (*SAY, "--context", "1"), ["context is 1"]),
    "ids that are words": ("generate", ("--prompt-ids", "1,two"), ["1,two"]),
    "no ids": ("generate", ("--prompt-ids", ""), ["--prompt-ids"]),
    "id too large": ("generate", ("--prompt-ids", "1,260"), ["0..259"]),
    "id beyond all numbers": ("generate", ("--prompt-ids", "9" * 40), ["0..259"]),
    "negative id": ("generate", ("--prompt-ids=-1",), ["0..259"]),
    "chat as JSON": ("generate", ("--chat", "--json"), ["--json", "--chat"]),
    "style without template": (
        "generate",
        (*SAY, "--style", "qwen3", "--target", "bare"),
        ["bare", "chat template"],
    ),
    "RoPE base": ("generate", (*SAY, "--draft-rope-theta", "0"), ["--draft-rope-theta"]),
    "feature layers": (
        "generate",
        (*SAY, "--feature-layers", "5", "2", "9"),
        ["feature_layers", "(5, 2, 9)"],
    ),
    "negative temperature": ("generate", (*SAY, "--temperature", "-1"), ["temperature"]),
    "no nucleus": (
        "generate",
        (*SAY, "--temperature", "1", "--top-p", "0"),
        ["top_p is 0.0 but must lie above 0"],
    ),
    "fewer than no tokens to draw from": (
        "generate",
        (*SAY, "--temperature", "1", "--top-k", "-2"),
        ["top_k is -2"],
    ),
    "a nucleus without temperature": (
        "generate",
        (*SAY, "--top-p", "0.9"),
        ["temperature 0", "leave them out"],
    ),
    "no penalty at all": (
        "generate",
        (*SAY, "--repetition-penalty", "0"),
        ["repetition_penalty is 0.0"],
    ),
    "missing folder": ("generate", (*SAY, "--draft", "./none"), ["none", "--draft"]),
    "draft as target": ("generate", (*SAY, "--target", "draft"), ["Eagle3"]),
    "unknown policy": ("generate", (*SAY, "--policy", "best"), ["'best'"]),
    "no levels": (
        "generate",
        (*SAY, "--policy", "constant:levels=0,size=2"),
        ["constant:levels=0,size=2"],
    ),
    "size beyond the tree": (
        "generate",
        (*SAY, "--policy", "constant:levels=1,size=101"),
        ["size 101"],
    ),
    "levels beyond the context": (
        "generate",
        (*SAY, "--policy", "constant:levels=64,size=2"),
        ["max_levels 64", "64"],
    ),
    "no policy file": ("generate", (*SAY, "--policy", "ltd"), ["--policy"]),
    "inspecting without a config": (
        "inspect",
        ("--target", "asked", "--no-weights"),
        ["asked/config.json"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(root, monkeypatch, capsys, name):
    command, arguments, words = REFUSED[name]
    shutil.copytree(root / "target", root / "bare")
    (root / "bare" / "tokenizer_config.json").unlink()
    monkeypatch.chdir(root)
    where = ("--target", "target", "--draft", "draft")
    sentence = refusal(command, monkeypatch, capsys, *where, *arguments)
    assert all(word in sentence for word in words), sentence


WRONG_FLAGS = {
    "unknown split": ("record", ("--split", "exam"), "exam"),
    "unknown dtype": ("generate", ("--dtype", "int8"), "int8"),
    "unknown style": ("generate", ("--style", "poem"), "poem"),
    "no number": ("generate", ("--context", "much"), "much"),
    "unknown flag": ("generate", ("--speed", "9"), "--speed"),
    "falling sizes": ("record", ("--sizes", "4", "2"), "ascending"),
    "no levels": ("record", ("--max-levels", "0"), "max_levels is 0"),
    "no prompts": ("record", ("--prompts", "0"), "prompts is 0"),
    "no turns": ("record", ("--turns", "0"), "turns is 0"),
    "one new token": ("record", ("--new-tokens", "1"), "new_tokens is 1"),
    "no visits": ("profile", ("--profiling.visits", "0"), "visits is 0"),
    "falling contexts": ("profile", ("--profiling.contexts", "9", "4"), "ascending"),
    "no updates": ("train", ("--learning.exact.updates", "0"), "updates is 0"),
    "no environments": ("train", ("--learning.size.environments", "0"), "environments is 0"),
    "never validated": ("train", ("--learning.validate-every", "0"), "validate_every is 0"),
    "odd minibatch": ("train", ("--learning.size.minibatch", "1000"), "multiple"),
}


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_wrong_flags(monkeypatch, capsys, tmp_path, name):
    command, arguments, word = WRONG_FLAGS[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        refusing.run(command, monkeypatch, capsys, *arguments)
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == "" and "Traceback" not in printed.err
    assert word in printed.err
