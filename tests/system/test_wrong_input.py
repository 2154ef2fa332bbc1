"""Everything that a person gets wrong at first: one clear sentence, or the right thing is done.

A case is a command on the tiny pair in a folder that something may be wrong with. "refused" ends
with exit code 2 and one sentence that has all the words; "flags" is the same in the form that the
parser of the command line gives it; "served" does what was meant and says the words. Nothing is
decoded or recorded here: a recording is drawn at random.
"""

import dataclasses
import resource
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import pytest

from ltd_jax import checkpoint, cli, workflow
from ltd_jax.replay import record
from tests.replay import synthetic
from tests.system import refusing
from tests.system.damages import nothing, policies, question, without_content, written
from tests.system.test_bad_pair import change, cut
from tests.system.tiny_pair import FLAGS, QUESTION

ROOT = Path(__file__).parents[2]
WHERE = ("--target", "target", "--draft", "draft")
SAY = ("--prompt", "hi", "--new-tokens", "4", "--context", "64")
ASK = ("--questions", "asked", "--out", "out", "--new-tokens", "8", *FLAGS)
RECORD = (*ASK, "--split", "all")
LTD = (*SAY, "--policy", "out/policy.safetensors")
MANY = [QUESTION.replace("1", str(number)) for number in range(14)]
LONG = QUESTION.replace("one", "x" * 70).replace("1", "2")


@dataclasses.dataclass(frozen=True)
class Case:
    """One wrong input and what comes of it."""

    command: str
    arguments: tuple[Any, ...]
    words: list[str]
    damage: Callable[[Path], Any] = nothing  # of the folder that the command runs in
    outcome: Literal["refused", "flags", "served"] = "refused"
    patch: Callable[[pytest.MonkeyPatch], None] = lambda monkeypatch: None


def generate(*arguments, words, damage=nothing, **rest):
    return Case("generate", (*SAY, *arguments), words, damage, **rest)


def asked(*lines, words, outcome="refused", arguments=RECORD):
    """A recording of such a question file."""
    return Case("record", arguments, words, question(*lines), outcome)


def wrong_flag(command, *arguments, words):
    return Case(command, arguments, words, outcome="flags")


def own_pair(damage):
    """A damage of target/ and draft/, which are copies then."""

    def damaged(root):
        for name in ("target", "draft"):
            whole = (root / name).resolve()
            (root / name).unlink()
            shutil.copytree(whole, root / name)
        damage(root)

    return damaged


def of_git_lfs(pattern):
    """A damage: some of the target's files as a clone without git-lfs leaves them."""
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"

    def damage(root):
        for path in (root / "target").glob(pattern):
            path.write_text(pointer)

    return damage


def only_gguf(root):
    shutil.rmtree(root / "target")
    (root / "target").mkdir()
    (root / "target" / "model.Q4_K_M.gguf").write_bytes(b"GGUF")


def only_sentencepiece(root):
    (root / "target" / "tokenizer.json").rename(root / "target" / "tokenizer.model")


def several_policies(root):
    policies(root, folder="out/a")
    policies(root, folder="out/b")


def offline(monkeypatch):
    """A hub that nothing comes from."""

    def snapshot_download(name, allow_patterns):
        raise OSError("Name or service not known")

    hub: Any = types.ModuleType("huggingface_hub")
    hub.snapshot_download, hub.__spec__ = snapshot_download, ModuleSpec("huggingface_hub", None)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def no_backend(monkeypatch):
    """As jax answers to JAX_PLATFORMS=cuda without a GPU."""

    def devices():
        raise AssertionError

    monkeypatch.setattr(jax, "devices", devices)


def full_disk(monkeypatch):
    """No file takes more than 4 kB: recordings and checkpoints are larger."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, most))


def full_disk_while_training(monkeypatch):
    full_disk(monkeypatch)

    def train_policies(pair, stages, latency, progress):
        state = {"weights": np.random.default_rng(0).normal(size=20_000)}
        with checkpoint.manager(stages.folder / "learning" / "exact") as checkpoints:
            for step in range(9):
                checkpoint.save(checkpoints, step, state, {})

    monkeypatch.setattr(workflow, "train_policies", train_policies)


BROUGHT = {
    # flags and names
    "misspelt flag": generate("--promt", "hi", words=["no flag --promt", "did you mean --prompt"]),
    "flag of others": Case(
        "inspect", ("--policy", "X"), ["no flag --policy", "ltd generate and ltd bench have it"]
    ),
    "value without a flag": generate("there", words=["'there' belongs to no flag", "quotes"]),
    "misspelt subcommand": Case("benhc", (), ["no subcommand 'benhc'", "did you mean bench"]),
    "an experiment": Case("quickstart", (), ["python -m experiments.NAME", "checkout"]),
    "misspelt policy": generate("--policy", "ldt", words=["no method 'ldt'", "mean ltd", "svip"]),
    "misspelt setting": generate(
        "--policy", "constant:level=2,size=4", words=["called levels", "constant:levels=6,size=24"]
    ),
    "ltd without policies": generate(
        "--policy", "ltd", words=["needs trained policies", "--policy"]
    ),
    "a file that no method reads": generate(
        "--policy", "eagle3", "--classifiers", "X", words=["eagle3 does not read --classifiers"]
    ),
    # policies
    "folder above the policies": generate(
        *("--policy", "out", "--context", "60"),
        damage=lambda root: policies(root, folder="out/run/policies"),
        words=["out/run/policies/policy.safetensors", "share of 64"],
    ),
    "folder above several policies": generate(
        "--policy", "out", damage=several_policies, words=["out/a, out/b"]
    ),
    "folder without policies": generate(
        "--policy", "asked", words=["no trained policies in asked", "ltd train", "--out"]
    ),
    "folder without policies, to compare": Case(
        "bench", (*ASK, "--policy", "asked"), ["no trained policies in asked"]
    ),
    "folder of checkpoints": generate(
        "--policy",
        "out",
        damage=written("out/policies/1/state/_METADATA", "{}"),
        words=["out holds checkpoints", "no policy.safetensors", "train them again"],
    ),
    "missing folder of policies": generate(
        "--policy", "runs/none", words=["no policy file runs/none"]
    ),
    "damaged policies": Case(
        "generate", LTD, ["out/policy.safetensors", "damaged"], without_content
    ),
    "policies of another pair": Case(
        "generate",
        LTD,
        ["out/policy.safetensors", "0ther"],
        lambda root: policies(root, fingerprint="0ther"),
    ),
    "policies of another context": Case(
        "generate", (*LTD, "--context", "60"), ["64", "--context"], policies
    ),
    "policies of more devices": Case(
        "generate",
        LTD,
        ["split over 4", "--allow-other-hardware"],
        lambda root: policies(root, device="another device, split over 4"),
    ),
    "a report as settings": generate(
        "--policy",
        "report.json",
        damage=written("report.json", "{}"),
        words=["report.json", "schema"],
    ),
    "settings that lack a policy": generate(
        "--policy",
        "settings.json",
        damage=written("settings.json", '{"schema": 1}'),
        words=["settings.json lacks", "tune again"],
    ),
    "unknown latency table": generate(
        "--policy", "cost-aware", "--latency", "h100", words=["h100", "a100-vicuna-13b-paper"]
    ),
    # models
    "no such folder or id": Case(
        "generate",
        (*SAY, "--target", "my/modle"),
        ["no folder my/modle", "`hf download my/modle --local-dir FOLDER`", "as --target"],
        patch=offline,
    ),
    "no such folder": generate("--draft", "./none", words=["no model folder none", "--draft"]),
    "target and draft swapped": generate(
        "--target", "draft", "--draft", "target", words=["Eagle3", "known"]
    ),
    "no tokenizer": generate(
        damage=own_pair(lambda root: (root / "target" / "tokenizer.json").unlink()),
        words=["no file target/tokenizer.json"],
    ),
    "another tokenizer": generate(damage=own_pair(only_sentencepiece), words=["AutoTokenizer"]),
    "git-lfs pointers": generate(
        damage=own_pair(of_git_lfs("*.safetensors")), words=["git-lfs pointer", "git lfs pull"]
    ),
    "git-lfs pointer of a tokenizer": Case(
        "inspect",
        ("--no-weights", "--context", "64"),
        ["tokenizer.json is a git-lfs pointer"],
        own_pair(of_git_lfs("tokenizer.json")),
    ),
    "git-lfs pointers, looked at without weights": Case(
        "inspect",
        ("--no-weights", "--context", "64"),
        [".safetensors is a git-lfs pointer"],
        own_pair(of_git_lfs("*.safetensors")),
    ),
    "truncated weights": generate(
        damage=own_pair(lambda root: cut(root / "draft" / "model.safetensors", 9000)),
        words=["draft/model.safetensors", "copy it again"],
    ),
    "another architecture": generate(
        damage=own_pair(
            lambda root: change(
                root / "target" / "config.json",
                architectures=["GPT2LMHeadModel"],
                model_type="gpt2",
            )
        ),
        words=["GPT2LMHeadModel", "known targets are"],
    ),
    "gguf": generate(damage=own_pair(only_gguf), words=["config.json is missing", "GGUF"]),
    "template that is not there": generate(
        "--style",
        "qwen3",
        damage=own_pair(lambda root: (root / "target" / "tokenizer_config.json").unlink()),
        words=["target has no chat template", "--style qwen3"],
    ),
    "inspecting without a config": Case(
        "inspect", ("--target", "asked", "--no-weights"), ["asked/config.json"]
    ),
    "RoPE base": generate("--draft-rope-theta", "0", words=["--draft-rope-theta"]),
    "feature layers": generate(
        "--feature-layers", "5", "2", "9", words=["feature_layers", "(5, 2, 9)"]
    ),
    "more devices than there are": generate(
        "--devices", "99", words=["--devices is 99", "host has"]
    ),
    # what to decode
    "nothing to decode": Case("generate", (), ["Give one of --prompt, --prompt-ids and --chat"]),
    "two things to decode": generate("--prompt-ids", "1", words=["Give one of"]),
    "chat as JSON": Case("generate", ("--chat", "--json"), ["--json", "--chat"]),
    "empty prompt": generate(
        "--prompt", "", "--style", "plain", words=["no tokens", "at least one character"]
    ),
    "long prompt": generate("--prompt", "x" * 70, words=["87 tokens", "holds 64", "the --context"]),
    "more tokens than there is room for": generate(
        "--new-tokens", "100000", words=["100000 more", "holds 64"]
    ),
    "no new tokens": generate("--new-tokens", "0", words=["--new-tokens", "0"]),
    "fewer than no tokens": generate("--new-tokens", "-3", words=["-3"]),
    "small context": generate("--context", "20", words=["context holds 20"]),
    "context of one": generate("--context", "1", words=["context is 1"]),
    "ids that are words": Case("generate", ("--prompt-ids", "1,two"), ["1,two"]),
    "no ids": Case("generate", ("--prompt-ids", ""), ["--prompt-ids"]),
    "id too large": Case("generate", ("--prompt-ids", "1,260"), ["0..259"]),
    "id beyond all numbers": Case("generate", ("--prompt-ids", "9" * 40), ["0..259"]),
    "negative id": Case("generate", ("--prompt-ids=-1",), ["0..259"]),
    "negative temperature": generate("--temperature", "-1", words=["temperature", "0 (greedy)"]),
    "too large a nucleus": generate(
        "--temperature", "1", "--top-p", "1.5", words=["top_p is 1.5 but must lie above 0"]
    ),
    "fewer than no tokens to draw from": generate(
        "--temperature", "1", "--top-k", "-2", words=["top_k is -2"]
    ),
    "a nucleus without temperature": generate(
        "--top-p", "0.9", words=["temperature 0", "leave them out"]
    ),
    "no penalty at all": generate("--repetition-penalty", "0", words=["repetition_penalty is 0.0"]),
    "size beyond the tree": generate("--policy", "constant:levels=1,size=101", words=["size 101"]),
    "levels beyond the context": generate(
        "--policy", "constant:levels=64,size=2", words=["max_levels 64", "64"]
    ),
    # questions
    "no questions": asked("", words=["asked/mine.jsonl holds no questions"]),
    "a table of questions": Case(
        "record",
        (*RECORD, "--questions", "asked/mine.csv"),
        ["asked/mine.csv is no question file", ".jsonl", '"turns"'],
        written("asked/mine.csv", "id,text\n"),
    ),
    "folder of tables": Case(
        "record",
        (*RECORD, "--questions", "tables"),
        ["tables holds no question files (*.jsonl)"],
        written("tables/mine.csv", "id,text\n"),
    ),
    "a file in place of a folder": asked(
        *MANY,
        arguments=(*RECORD, "--questions", "asked/mine.jsonl", "--json"),
        words=['"tasks": ["mine"]'],
        outcome="served",
    ),
    "missing folder of questions": Case(
        "record", (*RECORD, "--questions", "no"), ["no file or folder no", "--questions"]
    ),
    "questions of another form": asked(
        '{"input": "one", "answers": []}',
        words=[
            'mine.jsonl, line 1: "turns" is missing; call the one of "input", "answers"',
            'that is asked "prompt"',
            '["..."]',
        ],
    ),
    "line without turns": asked(
        '{"question_id": 1, "category": ""}', words=["line 1", '"turns" is missing', '["..."]']
    ),
    "rows of others, written on Windows": asked(
        '\ufeff{"task_id": "a/1", "prompt": "one"}\r',
        '{"id": "x", "conversations": [{"from": "human", "value": "two"}]}\r',
        '{"question": "three", "answer": "3"}\r',
        arguments=(*RECORD, "--json"),
        words=['"tasks": ["mine"]', '"skipped": []'],
        outcome="served",
    ),
    "a folder of benchmarks": Case(
        "record",
        (*RECORD, "--questions", "data", "--json"),
        ['"tasks": ["gsm8k", "mt_bench"]', '"questions": "data"'],
        lambda root: [
            written(f"data/{name}/question.jsonl", QUESTION)(root) for name in ("mt_bench", "gsm8k")
        ],
        "served",
    ),
    "questions that git-lfs holds": asked(
        "version https://git-lfs.github.com/spec/v1",
        words=["asked/mine.jsonl is a git-lfs pointer", "git lfs pull"],
    ),
    "broken line": asked(QUESTION, "{", words=["mine.jsonl, line 2: not valid JSON", "column 2"]),
    "one question too long": asked(
        QUESTION,
        LONG,
        arguments=(*RECORD, "--json"),
        words=[
            "warning: 1 of 2 questions are skipped",
            "mine.jsonl, line 2: 87 tokens",
            "raise the --context to 95 or ask for fewer --new-tokens",
            '"skipped": ["mine.jsonl, line 2: 87 tokens"]',
        ],
        outcome="served",
    ),
    "all questions too long": asked(
        LONG,
        words=["None of the 1 questions", "the context of 64", "mine.jsonl, line 1: 87 tokens"],
    ),
    "few questions": asked(
        *MANY,
        arguments=(*ASK, "--split", "validation", "--json"),
        words=['"tasks": ["mine"]'],
        outcome="served",
    ),
    "too few questions": asked(
        QUESTION,
        arguments=(*ASK, "--split", "train"),
        words=["mine.jsonl has too few questions (1)", "up to 3"],
    ),
    "unknown task": Case(
        "record", (*RECORD, "--tasks", "min"), ["no task 'min'", "choose from mine"]
    ),
    # folders and devices
    "output is a file": Case("record", RECORD, ["out (File exists)", "--out"], written("out", "")),
    "output below a file": Case(
        "record",
        (*RECORD, "--out", "out/a"),
        ["Cannot write to out/a", "--out"],
        written("out", ""),
    ),
    "disk full while recording": Case(
        "record", RECORD, ["Cannot write out/traces/all.npz: File too large"], patch=full_disk
    ),
    "disk full while training": Case(
        "train",
        ASK,
        ["Cannot write a checkpoint to", "learning/exact (File too large)", "--out"],
        patch=full_disk_while_training,
    ),
    "devices that are not there": Case(
        "inspect", ("--no-weights",), ["JAX_PLATFORMS is cpu", "ltd-jax[cuda13]"], patch=no_backend
    ),
    # values, as the parser of the command line says it
    "no prompt": wrong_flag("generate", "--prompt", "--chat", words=["Missing value", "--prompt"]),
    "no number": wrong_flag("generate", "--new-tokens", "abc", words=["--new-tokens", "abc"]),
    "unknown dtype": wrong_flag("generate", "--dtype", "fp16", words=["fp16", "bfloat16"]),
    "unknown style": wrong_flag("generate", "--style", "poem", words=["poem", "llama3"]),
    "unknown split": wrong_flag("record", "--split", "exam", words=["exam", "validation"]),
    "no prompts": wrong_flag("record", "--prompts", "0", words=["prompts is 0"]),
    "no turns": wrong_flag("record", "--turns", "0", words=["turns is 0"]),
    "one new token": wrong_flag("record", "--new-tokens", "1", words=["new_tokens is 1"]),
    "falling sizes": wrong_flag("record", "--sizes", "4", "2", words=["ascending"]),
    "no levels": wrong_flag("record", "--max-levels", "0", words=["max_levels is 0"]),
    "no visits": wrong_flag("profile", "--profiling.visits", "0", words=["visits is 0"]),
    "falling contexts": wrong_flag(
        "profile", "--profiling.contexts", "9", "4", words=["ascending"]
    ),
    "no updates": wrong_flag("train", "--learning.exact.updates", "0", words=["updates is 0"]),
    "no environments": wrong_flag(
        "train", "--learning.size.environments", "0", words=["environments is 0"]
    ),
    "never validated": wrong_flag(
        "train", "--learning.validate-every", "0", words=["validate_every is 0"]
    ),
    "odd minibatch": wrong_flag("train", "--learning.size.minibatch", "1000", words=["multiple"]),
}


@pytest.fixture(autouse=True)
def room():
    """What a case takes of the disk is given back behind it."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.fixture
def drawn(monkeypatch):
    """Recordings that cost nothing: random traces with the provenance that was asked for."""

    def draw(pair, prompts, new_tokens, provenance, **rest):
        found = synthetic.trace(pair.config.cycle)
        return dataclasses.replace(found, provenance=provenance)

    monkeypatch.setattr(record, "record", draw)


@pytest.mark.parametrize("name", BROUGHT)
def test_wrong_input(root, drawn, capsys, name):
    case = BROUGHT[name]
    case.damage(root)
    where = WHERE if case.command in cli.COMMANDS else ()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        case.patch(patch)
        if case.outcome == "refused":
            said = refusing.refusal(case.command, patch, capsys, *where, *case.arguments)
        elif case.outcome == "served":
            printed = refusing.run(case.command, patch, capsys, *where, *case.arguments)
            said = printed.err + printed.out
        else:
            with pytest.raises(SystemExit) as end:
                refusing.run(case.command, patch, capsys, *case.arguments)
            printed = capsys.readouterr()
            assert end.value.code == 2 and printed.out == "" and "Traceback" not in printed.err
            said = " ".join(printed.err.split())
    assert all(word in said for word in case.words), said


def test_interrupted_twice(root, monkeypatch, capsys):
    def interrupted(*arguments, **rest):
        raise KeyboardInterrupt

    monkeypatch.setattr(workflow, "load_prompts", interrupted)
    monkeypatch.chdir(root)
    for _ in range(2):
        with pytest.raises(SystemExit) as end:
            refusing.run("record", monkeypatch, capsys, *WHERE, *RECORD)
        printed = capsys.readouterr()
        assert end.value.code == 130 and "what is done is kept" in printed.err


PYTHON = {
    "without the environment": (
        ["-S", "-m", "ltd_jax", "inspect"],
        ["lacks jax", "pip install"],
    ),
    "an experiment without it": (["-S", "-m", "experiments.quickstart"], ["lacks jax"]),
}


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_that_lacks_what_is_needed(name):
    arguments, words = PYTHON[name]
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    last = done.stderr.splitlines()[-1]
    assert done.returncode != 0 and "Traceback" not in done.stderr and done.stdout == ""
    assert last.startswith("error: ") and all(word in last for word in words), last
