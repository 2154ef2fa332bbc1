"""Bad flags and prompts: one clear sentence and exit code 2."""

import shutil
import sys

import pytest

from experiments import generate, inspect, profile_latency, record_traces, train_policies
from tests.system.refusing import refusal


def nothing(root):
    pass


SAY = ("--prompt", "hi", "--new-tokens", "4", "--context", "64")
REFUSED = {
    "nothing to decode": (generate, nothing, (), ["--prompt", "--chat"]),
    "two things to decode": (generate, nothing, (*SAY, "--prompt-ids", "1"), ["Give one of"]),
    "no new tokens": (generate, nothing, (*SAY, "--new-tokens", "0"), ["--new-tokens", "0"]),
    "fewer than no tokens": (generate, nothing, (*SAY, "--new-tokens", "-3"), ["-3"]),
    "empty prompt": (generate, nothing, (*SAY, "--prompt", "", "--style", "plain"), ["no tokens"]),
    "long prompt": (generate, nothing, (*SAY, "--prompt", "x" * 70), ["87 tokens", "holds 64"]),
    "small context": (generate, nothing, (*SAY, "--context", "20"), ["context holds 20"]),
    "context of one": (generate, nothing, (*SAY, "--context", "1"), ["context is 1"]),
    "ids that are words": (generate, nothing, ("--prompt-ids", "1,two"), ["1,two"]),
    "no ids": (generate, nothing, ("--prompt-ids", ""), ["--prompt-ids"]),
    "id too large": (generate, nothing, ("--prompt-ids", "1,260"), ["0..259"]),
    "id beyond all numbers": (generate, nothing, ("--prompt-ids", "9" * 40), ["0..259"]),
    "negative id": (generate, nothing, ("--prompt-ids=-1",), ["0..259"]),
    "chat as JSON": (generate, nothing, ("--chat", "--json"), ["--json", "--chat"]),
    "style without template": (
        generate,
        nothing,
        (*SAY, "--style", "qwen3", "--target", "bare"),
        ["bare", "chat template"],
    ),
    "RoPE base": (generate, nothing, (*SAY, "--draft-rope-theta", "0"), ["--draft-rope-theta"]),
    "feature layers": (
        generate,
        nothing,
        (*SAY, "--feature-layers", "5", "2", "9"),
        ["feature_layers", "(5, 2, 9)"],
    ),
    "negative temperature": (generate, nothing, (*SAY, "--temperature", "-1"), ["temperature"]),
    "no nucleus": (
        generate,
        nothing,
        (*SAY, "--temperature", "1", "--top-p", "0"),
        ["top_p is 0.0 but must lie above 0"],
    ),
    "fewer than no tokens to draw from": (
        generate,
        nothing,
        (*SAY, "--temperature", "1", "--top-k", "-2"),
        ["top_k is -2"],
    ),
    "a nucleus without temperature": (
        generate,
        nothing,
        (*SAY, "--top-p", "0.9"),
        ["temperature 0", "leave them out"],
    ),
    "no penalty at all": (
        generate,
        nothing,
        (*SAY, "--repetition-penalty", "0"),
        ["repetition_penalty is 0.0"],
    ),
    "missing folder": (generate, nothing, (*SAY, "--draft", "./none"), ["none", "--draft"]),
    "draft as target": (generate, nothing, (*SAY, "--target", "draft"), ["Eagle3"]),
    "unknown controller": (generate, nothing, (*SAY, "--controller", "best"), ["'best'"]),
    "no levels": (
        generate,
        nothing,
        (*SAY, "--controller", "constant:levels=0,size=2"),
        ["constant:levels=0,size=2"],
    ),
    "size beyond the tree": (
        generate,
        nothing,
        (*SAY, "--controller", "constant:levels=1,size=101"),
        ["size 101"],
    ),
    "levels beyond the context": (
        generate,
        nothing,
        (*SAY, "--controller", "constant:levels=64,size=2"),
        ["max_levels 64", "64"],
    ),
    "no policies named": (generate, nothing, (*SAY, "--controller", "ltd"), ["--policies"]),
    "inspecting without a config": (
        inspect,
        nothing,
        ("--target", "asked", "--no-weights"),
        ["asked/config.json"],
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(root, monkeypatch, capsys, name):
    module, damage, arguments, words = REFUSED[name]
    shutil.copytree(root / "target", root / "bare")
    (root / "bare" / "tokenizer_config.json").unlink()
    damage(root)
    monkeypatch.chdir(root)
    sentence = refusal(
        module, monkeypatch, capsys, "--target", "target", "--draft", "draft", *arguments
    )
    assert all(word in sentence for word in words), sentence


WRONG_FLAGS = {
    "unknown split": (record_traces, ("--split", "exam"), "exam"),
    "unknown dtype": (generate, ("--dtype", "int8"), "int8"),
    "unknown style": (generate, ("--style", "poem"), "poem"),
    "no number": (generate, ("--context", "much"), "much"),
    "unknown flag": (generate, ("--speed", "9"), "--speed"),
    "falling sizes": (record_traces, ("--cycle.sizes", "4", "2"), "ascending"),
    "no levels": (record_traces, ("--cycle.max-levels", "0"), "max_levels is 0"),
    "no prompts": (record_traces, ("--prompts", "0"), "prompts is 0"),
    "no turns": (record_traces, ("--turns", "0"), "turns is 0"),
    "one new token": (record_traces, ("--new-tokens", "1"), "new_tokens is 1"),
    "no visits": (profile_latency, ("--measure.visits", "0"), "visits is 0"),
    "falling contexts": (profile_latency, ("--measure.contexts", "9", "4"), "ascending"),
    "no updates": (train_policies, ("--learning.exact.updates", "0"), "updates is 0"),
    "no environments": (train_policies, ("--learning.size.environments", "0"), "environments is 0"),
    "never validated": (train_policies, ("--learning.validate-every", "0"), "validate_every is 0"),
    "odd minibatch": (train_policies, ("--learning.size.minibatch", "1000"), "multiple"),
}


@pytest.mark.parametrize("name", WRONG_FLAGS)
def test_wrong_flags(monkeypatch, capsys, name):
    module, arguments, word = WRONG_FLAGS[name]
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as end:
        module.main()
    printed = capsys.readouterr()
    assert end.value.code == 2 and printed.out == "" and "Traceback" not in printed.err
    assert word in printed.err
