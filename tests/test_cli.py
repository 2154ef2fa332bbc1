"""`ltd` as a user starts it: help, streams, JSON, chat, a look at a pair, and refusals."""

import dataclasses
import io
import json
import shutil
import sys

import numpy as np
import pytest
import tokenizers

from ltd_jax import cli, flags, presets
from ltd_jax import text as texts
from ltd_jax.files import ASSETS
from ltd_jax.models.hf import tensors as hf_tensors
from ltd_jax.presets import EMBEDDED_CYCLE, EMBEDDED_POLICY
from tests.models.folders import edit
from tests.models.hf.test_weights import rewrite
from tests.system import refusing, tiny_pair

TINY = ("--context", 96, "--new-tokens", 12)
PROMPT = ("--prompt", "def read(path):")
PLAIN = ("--policy", "autoregressive")


def generate(monkeypatch, capsys, *arguments):
    """What `ltd generate` prints on stdout and stderr."""
    printed = refusing.run("generate", monkeypatch, capsys, *arguments)
    return printed.out, printed.err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_subcommand_explains_itself(name, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        refusing.run(name, monkeypatch, capsys, "--help")
    printed = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0 and "--" in printed and f"usage: ltd {name} " in printed


def test_without_a_subcommand_all_are_listed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ltd"])
    cli.main()
    printed = capsys.readouterr().out
    assert all(f"ltd {name}" in printed for name in cli.COMMANDS) and "Long because" not in printed
    assert "no subcommand 'decode'; choose generate" in refusing.refusal(
        "decode", monkeypatch, capsys
    )


@pytest.mark.parametrize("name", ["autoregressive", "constant:levels=2,size=4"])
def test_json_and_stream_say_the_same(monkeypatch, capsys, name):
    policy = ("--policy", name)
    out, err = generate(monkeypatch, capsys, *PROMPT, *policy, *TINY, "--json")
    answer = json.loads(out)
    speeds = {"committed_per_cycle", "cycles", "first_token_seconds", "tokens_per_second"}
    assert set(answer) == {"tokens", "text"} | speeds
    assert len(answer["tokens"]) == 12 and all(answer[name] > 0 for name in speeds)
    assert (answer["cycles"] == 11) == (name == "autoregressive")
    assert answer["committed_per_cycle"] == pytest.approx(11 / answer["cycles"])
    tokenizer = texts.load_tokenizer(ASSETS / "target")
    assert answer["text"] == tokenizer.decode(answer["tokens"])
    assert err.count(f"compiling {name}") == 2 and "fingerprint" not in err  # begun, and done
    stdin = io.StringIO("def read(path):\n")
    monkeypatch.setattr(sys, "stdin", stdin)
    flags_of = ("--prompt", "-", *policy, *TINY, "--compare", "--verbose")
    out, err = generate(monkeypatch, capsys, *flags_of)
    assert out.startswith(answer["text"]) and "[12 tokens, " in out and "fingerprint: " in err
    assert ("x plain decoding's" in out) == (name != "autoregressive")
    ids = ",".join(map(str, tokenizer.encode("def read(path):").ids))
    out, _ = generate(monkeypatch, capsys, "--prompt-ids", ids, *policy, *TINY, "--json")
    assert json.loads(out)["tokens"] == answer["tokens"] and json.loads(out)["text"] is None


def test_without_a_policy_what_was_tuned_decodes_else_a_constant(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    _, err = generate(monkeypatch, capsys, *PROMPT, *TINY)
    assert "policy: constant:levels=2,size=3; `ltd tune` finds what is fastest here" in err
    folder = tmp_path / "runs" / "tuned"
    folder.mkdir(parents=True)
    identity = dict.fromkeys(("fingerprint", "device", "dtype", "latency"), "other")
    cycle = dataclasses.asdict(EMBEDDED_CYCLE)
    settings = {"schema": 1, "policy": "constant:levels=1,size=1", "cycle": cycle} | identity
    (folder / "settings.json").write_text(json.dumps(settings))
    out, err = generate(monkeypatch, capsys, *PROMPT, *TINY)
    assert "runs/tuned/settings.json was tuned for another pair and is left out" in err
    assert "[12 tokens, " in out and "compiling constant:levels=2,size=3" in err


def test_a_seed_names_a_sampled_text(monkeypatch, capsys):
    warm = ("--temperature", 1.2, "--top-p", 0.95, "--repetition-penalty", 1.1)
    tokens = []
    for seed in (3, 4, 3):
        arguments = (*PROMPT, *TINY, "--json", *PLAIN, *warm, "--seed", seed)
        out, err = generate(monkeypatch, capsys, *arguments)
        tokens.append(tuple(json.loads(out)["tokens"]))
        assert "temperature 1.2" in err and f"seed {seed}" in err
    assert tokens[0] == tokens[2] and tokens[0] != tokens[1]


def test_chat_answers_until_an_empty_line(monkeypatch, capsys):
    lines = iter(["import os", "import sys", ""])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    out, _ = generate(monkeypatch, capsys, "--chat", *PLAIN, *TINY)
    assert out.count("[12 tokens, ") == 2


def type_lines(monkeypatch, *lines):
    """What the keyboard gives, line by line; exceptions are raised, and then nothing more comes."""
    left = iter([*lines, EOFError()])

    def keyboard(prompt):
        line = next(left)
        if isinstance(line, BaseException):
            raise line
        return line

    monkeypatch.setattr("builtins.input", keyboard)


def test_a_stopped_answer_is_forgotten_and_the_chat_goes_on(monkeypatch, capsys):
    whole, seen = cli.Decoder.decode, []
    tokenizer = texts.load_tokenizer(ASSETS / "target")

    def decode(decoder, prompt_T, *rest):
        seen.append(tokenizer.decode(prompt_T.tolist()))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return whole(decoder, prompt_T, *rest)

    monkeypatch.setattr(cli.Decoder, "decode", decode)
    type_lines(monkeypatch, "import os", "import sys", "import os", KeyboardInterrupt())
    out, _ = generate(monkeypatch, capsys, "--chat", *PLAIN, *TINY)
    assert out.count("[12 tokens, ") == 2
    assert out.count("[stopped; the question is forgotten]") == 1
    assert seen[0] == "import os" and seen[1].endswith("\n\nimport sys")
    assert seen[2] == seen[1].removesuffix("import sys") + "import os"


def test_a_chat_forgets_its_oldest_turns_before_its_context_is_full(monkeypatch, capsys):
    type_lines(monkeypatch, "x = 1", "y = 2\n" * 12, "z = 3\n" * 40, "w = 4")
    out, _ = generate(monkeypatch, capsys, "--chat", *PLAIN, *TINY)
    too_long, forgets = "the context holds 96; shorten the prompt", "[the oldest turn is forgotten"
    assert out.count(too_long) == 1 and out.count(forgets) == 1 and "`" not in out
    assert out.index(too_long) < out.index(forgets)  # the third alone is too long, and costs none
    assert out.count("[12 tokens, ") == 3


def test_termination_ends_a_chat(monkeypatch, capsys):
    type_lines(monkeypatch, flags.Terminated())
    with pytest.raises(SystemExit) as end:
        generate(monkeypatch, capsys, "--chat", *PLAIN, *TINY)
    assert end.value.code == 130 and "Interrupted." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Give one of --prompt, --prompt-ids and --chat"),
        (("--prompt", "a", "--chat"), "Give one of"),
        (("--prompt", "a", "--new-tokens", "0"), "must be at least 1"),
        (("--prompt-ids", "1,two"), "is not a list like 1,2,3"),
        (("--prompt-ids", "1,2048"), "0..2047"),
        (("--prompt", "a", "--policy", "ltd"), "--policy"),
        (("--prompt", "a", "--context", "20", "--new-tokens", "30"), "the context holds 20"),
    ],
)
def test_what_generate_refuses(monkeypatch, capsys, arguments, words):
    assert words in refusing.refusal("generate", monkeypatch, capsys, *arguments)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return tiny_pair.write(tmp_path_factory.mktemp("tiny"))


def test_a_target_alone_is_decoded_plainly(monkeypatch, capsys, tiny):
    where = ("--target", tiny / "target", "--context", 64, "--new-tokens", 8, "--prompt", "ab")
    out, err = generate(monkeypatch, capsys, *where, "--json")
    assert (
        "policy: plain decoding, since no --draft is given" in err and "target with no draft" in err
    )
    named, _ = generate(monkeypatch, capsys, *where, *PLAIN, "--json")
    assert json.loads(named)["tokens"] == json.loads(out)["tokens"]
    refused = refusing.refusal("generate", monkeypatch, capsys, *where, "--policy", "eagle3")
    assert "--draft" in refused and "target needs a draft" in refused
    for command in ("record", "inspect", "export"):
        where = ("--target", tiny / "target")
        out = () if command == "inspect" else ("--out", tiny / "out")
        assert "--draft" in refusing.refusal(command, monkeypatch, capsys, *where, *out)


def test_the_context_grows_with_the_prompt_unless_it_is_asked_for(monkeypatch, capsys, tiny):
    small = dataclasses.replace(tiny_pair.CYCLE, context=32)
    preset = presets.Preset(small, EMBEDDED_POLICY, most_context=100)
    monkeypatch.setattr(presets, "of", lambda *device: preset)
    grown = []
    warm_up = lambda decoder: grown.append(decoder.pair.config.cycle.context)
    monkeypatch.setattr(cli.Decoder, "warm_up", warm_up)
    where = ("--target", tiny / "target", "--new-tokens", 8)
    for prompt in ("a", "a" * 30, "a" * 60):
        generate(monkeypatch, capsys, *where, "--prompt", prompt)
    assert grown == [32, 64, 100]
    too_long = ("--prompt", "a" * 90)
    assert "holds 100" in refusing.refusal("generate", monkeypatch, capsys, *where, *too_long)
    asked = (*where, "--context", 40, "--prompt", "a" * 40)
    assert "holds 40" in refusing.refusal("generate", monkeypatch, capsys, *asked)
    grown.clear()
    type_lines(monkeypatch, "a", "b" * 10, "")
    generate(monkeypatch, capsys, *where, "--chat")
    assert grown == [32, 64]


@pytest.fixture
def folders(tmp_path):
    for name in ("target", "draft"):
        shutil.copytree(ASSETS / name, tmp_path / name)
    return tmp_path


def inspect(monkeypatch, capsys, folders, *arguments):
    where = ("--target", folders / "target", "--draft", folders / "draft", "--context", 96)
    return refusing.run("inspect", monkeypatch, capsys, *where, *arguments).out


def test_a_good_pair_is_inspected(folders, monkeypatch, capsys):
    found = json.loads(inspect(monkeypatch, capsys, folders, "--json"))
    assert found["doubts"] == [] and found["accepted_per_cycle"] > 0.5
    files = {"target": 0, "draft": 0}
    for name in files:
        folder = hf_tensors.TensorFolder(folders / name)
        shapes = [folder.shape(tensor) for tensor in folder.stored if "2" not in tensor[:3]]
        files[name] = sum(4 * int(np.prod(shape)) for shape in shapes)
    assert found["bytes"]["target"] == files["target"]
    ids = 4 * found["draft"]["draft_vocab_size"]
    assert (
        abs(found["bytes"]["draft"] - files["draft"]) <= 2 * ids
    )  # d2t and t2d are kept otherwise
    slots, layers = 96 + 64, found["target"]["layer_count"] + 1
    assert found["bytes"]["caches"] == pytest.approx(2 * layers * 2 * slots * 32 * 4, abs=100)


def test_a_config_alone_is_inspected(folders, monkeypatch, capsys):
    for path in (folders / "target").glob("*.safetensors"):
        path.unlink()
    out = inspect(monkeypatch, capsys, folders, "--no-weights")
    assert "Features enter layers (2, 6, 9) of 12" in out and "no doubts" in out
    assert "memory: target 34 MiB" in out
    out = inspect(monkeypatch, capsys, folders, "--no-weights", "--devices", "2")
    assert "memory on each of 2 devices: target 18 MiB" in out


def test_what_was_overruled_is_said_without_weights(folders, monkeypatch, capsys):
    edit(folders / "draft", num_hidden_layers=28, eagle_config={"layer_ids": [1, 4, 7]})
    out = inspect(monkeypatch, capsys, folders, "--no-weights")
    assert "doubt: num_hidden_layers is 1 in the weights" in out and "no doubts" not in out
    assert "Features enter layers (2, 5, 8) of 12" in out and "as --feature-layers" in out
    chosen = ("--no-weights", "--feature-layers", 1, 4, 7)
    assert "reads layers 1, 4, 7 of" in inspect(monkeypatch, capsys, folders, *chosen)


def test_what_is_doubtful_is_said(folders, monkeypatch, capsys):
    path = folders / "target" / "tokenizer.json"
    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    tokenizer.add_tokens(["self.x", "of the"])
    tokenizer.save(str(folders / "draft" / "tokenizer.json"))
    random = np.random.default_rng(0)
    draw = lambda tensors: tensors.update(
        {"lm_head.weight": random.normal(size=(1280, 256)).astype(np.float32)}
    )
    rewrite(folders / "draft", draw)
    out = " ".join(inspect(monkeypatch, capsys, folders).split())
    assert "another tokenizer" in out
    assert "were accepted on a probe text; check --feature-layers" in out
