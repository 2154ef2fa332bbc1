"""The card of a policy file: what the policies are, for what, what they gave, and how to use them.

All of it is read from the policy file, so a card can be made again wherever the file is:

    facts       as JSON values; None where the file does not say
    markdown    the same facts to read
    write       markdown beside the file, policy.md beside policy.safetensors
"""

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ltd_jax.files import replacing
from ltd_jax.policies import observe, saved
from ltd_jax.policies.observe import Part
from ltd_jax.policies.saved import SavedPolicy

SUFFIX = ".md"
PROMPT = "def add(a, b):"
NOT_SAID = "not said in the file"
METHODS = {  # keys of `facts`' validation, best last
    "plain": "plain decoding",
    "best_constant": "best constant setting",
    "learned": "these policies",
    "optimum": "clairvoyant optimum",
}


def facts(policies: SavedPolicy) -> dict[str, Any]:
    """What a policy file says of itself, as JSON values.

    Raises:
      UserError: the file is of another version.
    """
    origin, widths, cycle = policies.provenance, policies.policy.widths, policies.cycle
    with saved.another_version(policies.path):
        names = list(origin["pair"]) if "pair" in origin else [None, None]
        environment = dict(origin.get("environment", {}))
        return {
            "file": str(policies.path),
            "pair": {
                "target": names[0],
                "draft": names[1],
                "fingerprint": origin.get("fingerprint"),
            },
            "latency_table": origin.get("latency"),
            "device": origin.get("device"),
            "dtype": origin.get("dtype"),
            "texts": _texts(origin),
            "cycle": {name: _listed(value) for name, value in vars(cycle).items()},
            "networks": {
                "depth": {
                    "observation": _numbered(observe.depth_parts(cycle, widths.observation)),
                    "hidden_layers": list(widths.depth_actor),
                    "choices": ["stop and verify", "draft another level"],
                },
                "size": {
                    "observation": _numbered(observe.size_parts(cycle, widths.observation)),
                    "hidden_layers": list(widths.size_actor),
                    "choices": list(cycle.sizes),
                },
            },
            "validation": _validation(origin),
            "learning": _learning(origin.get("learning") or {}),
            "written": {name: environment.get(name) for name in ("date", "ltd_jax", "command")},
            "use": _use(policies.path, dict(origin.get("loaded_with", {}))),
        }


def _listed(value: Any) -> Any:
    """A value as JSON has it: no tuples."""
    return list(value) if isinstance(value, tuple) else value


def _texts(origin: dict[str, Any]) -> str | None:
    """How the texts were decoded that the policies learned from."""
    if "sampling" not in origin:
        return None
    settings = origin["sampling"]
    if settings is None:
        return "greedy decoding"
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _numbered(parts: tuple[Part, ...]) -> list[dict[str, Any]]:
    """The parts of an observation with the place of their first number."""
    first, rows = 0, []
    for part in parts:
        rows.append({"first": first, **vars(part)})
        first += part.count
    return rows


def _validation(origin: dict[str, Any]) -> dict[str, Any] | None:
    """Tokens per second by replay of the validation texts; None where the file has none."""
    if "validation" not in origin:
        return None
    gained, best = origin["validation"], origin["best"]
    rates = {name: float(gained[name]) for name in ("plain", "learned", "optimum")}
    rates["best_constant"] = float(best["tokens_per_second"])
    if min(rates.values()) <= 0:
        raise ValueError("tokens per second that are not positive")
    gap = rates["optimum"] - rates["best_constant"]
    return {
        "texts": int(gained["texts"]),
        "tokens_per_second": {name: rates[name] for name in METHODS},
        "best_constant": {"levels": best["levels"], "size": best["size"]},
        "over_best_constant": rates["learned"] / rates["best_constant"],
        "share_of_optimum": (rates["learned"] - rates["best_constant"]) / gap if gap > 0 else None,
    }


def _learning(cost: dict[str, Any]) -> dict[str, Any] | None:
    """What the training cost; None where the file does not say."""
    if not cost:
        return None
    return {"decisions": int(cost["decisions"]), "seconds": float(cost["seconds"])}


def _use(path: Path, loaded_with: dict[str, Any]) -> dict[str, Any]:
    """The command and the lines of Python that decode with a policy file."""
    flags = ["--policy", shlex.quote(str(path))]
    for name, value in loaded_with.items():
        values = value if isinstance(value, list | tuple) else [value]
        flags += [f"--{name.replace('_', '-')}", *(shlex.quote(str(one)) for one in values)]
    python = lambda value: repr(tuple(value) if isinstance(value, list) else value)
    keywords = "".join(f"{name}={python(value)}, " for name, value in loaded_with.items())
    return {
        "command": f"ltd generate {' '.join(flags)} --prompt {shlex.quote(PROMPT)}",
        "python": [
            f"policy = ltd.load_policy({str(path)!r})",
            f"pair = ltd.load({keywords}cycle=policy.cycle)",
            f"steps = ltd.generate(pair, policy, {PROMPT!r}, new_tokens=64)",
        ],
    }


def markdown(known: dict[str, Any]) -> str:
    """The card of what `facts` gave."""
    networks, use = known["networks"], known["use"]
    parts = [
        f"# Policies of {Path(known['file']).name}",
        _prose(
            "Two small networks for speculative decoding with ltd_jax: the depth policy decides "
            "after every draft pass whether to draft another level, the size policy how many "
            "drafted nodes the target verifies. They change the speed of decoding and never its "
            "output."
        ),
        _table([("", "")], _identity(known)),
        "## What they gave",
        _gained(known),
        "## How to use them",
        f"```\n{use['command']}\n```",
        "```python\n" + "\n".join(["import ltd_jax as ltd", "", *use["python"]]) + "\n```",
        _prose(
            "Both name this file: its folder may hold a settings.json in which `ltd tune` chose "
            "another method, and the folder's name then stands for that choice."
        ),
        "## What they see",
        _observation("depth policy", networks["depth"]),
        _observation("size policy", networks["size"]),
        _written(known["written"]),
    ]
    return "\n\n".join(parts) + "\n"


def _written(written: dict[str, Any]) -> str:
    """By which version, when and by which command."""
    if None in written.values():
        return f"Which version wrote it, and when, is {NOT_SAID}."
    made = f"Written by ltd_jax {written['ltd_jax']} at {written['date']} with"
    return f"{made}\n\n```\n{written['command']}\n```"


def _identity(known: dict[str, Any]) -> list[tuple[str, str]]:
    pair, cycle, learning = known["pair"], known["cycle"], known["learning"]
    names = [name for name in (pair["target"], pair["draft"]) if name is not None]
    rows = [
        (
            "pair",
            f"{' with '.join(names) or 'names ' + NOT_SAID}, fingerprint "
            f"{pair['fingerprint'] or NOT_SAID}",
        ),
        ("device", known["device"] or NOT_SAID),
        ("dtype", known["dtype"] or NOT_SAID),
        ("latency table", known["latency_table"] or NOT_SAID),
        ("learned from texts of", known["texts"] or NOT_SAID),
        ("cycle", ", ".join(f"{name} {_short(value)}" for name, value in cycle.items())),
    ]
    if learning is not None:
        spent = f"{learning['decisions']:,} decisions in {learning['seconds']:.1f} s"
        rows.append(("training", spent))
    return rows


def _gained(known: dict[str, Any]) -> str:
    gained = known["validation"]
    if gained is None:
        return f"What they gave on validation texts is {NOT_SAID}; `ltd bench` measures it."
    rates, best = gained["tokens_per_second"], gained["best_constant"]
    labels = METHODS | {
        "best_constant": f"best constant setting (levels {best['levels']}, size {best['size']})"
    }
    rows = [
        (
            labels[name],
            f"{rate:.1f}",
            f"{rate / rates['plain']:.3f}x",
            f"{rate / rates['best_constant']:.3f}x",
        )
        for name, rate in rates.items()
    ]
    share, end = gained["share_of_optimum"], ""
    if gained["over_best_constant"] <= 1:
        end = f", so decode with constant:levels={best['levels']},size={best['size']} instead"
    elif share is not None:
        end = f", {share:.0%} of the way from the best constant to the optimum"
    heads = [("by replay", ""), ("tokens/s", ":"), ("over plain", ":"), ("over constant", ":")]
    said = _prose(
        f"On the {gained['texts']} texts of the validation split, which also chose among the "
        f"checkpoints of the training, they are {gained['over_best_constant']:.3f} times as fast "
        f"as the best constant setting{end}. Times are the latency table's, all tokens over all "
        "seconds; the optimum knows each text in advance."
    )
    return f"{said}\n\n{_table(heads, rows)}"


def _observation(name: str, network: dict[str, Any]) -> str:
    rows = []
    for part in network["observation"]:
        last = part["first"] + part["count"] - 1
        place = str(last) if part["count"] == 1 else f"{part['first']} to {last}"
        rows.append((place, part["name"], part["meaning"]))
    layers = " and ".join(map(str, network["hidden_layers"])) or "no"
    choices = ", ".join(f"{index} = {choice}" for index, choice in enumerate(network["choices"]))
    heads = [("numbers", ""), ("part", ""), ("meaning", "")]
    return f"The {name} has {layers} hidden units (ReLU); its choices are {choices}.\n\n" + _table(
        heads, rows
    )


def _prose(text: str) -> str:
    """A paragraph in lines that fit a terminal."""
    return textwrap.fill(text, 88, break_long_words=False, break_on_hyphens=False)


def _short(value: Any) -> str:
    return "/".join(map(str, value)) or "none" if isinstance(value, list | tuple) else str(value)


def _table(heads: list[tuple[str, str]], rows: Sequence[tuple[str, ...]]) -> str:
    """A Markdown table; a head is its text, and ":" where its column stands at the right."""
    heads += [("", "")] * (len(rows[0]) - len(heads))
    lines = [[text for text, _ in heads], [f"---{side}" for _, side in heads], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(policies: SavedPolicy) -> Path:
    """Writes the card beside the policy file; returns its path.

    Raises:
      UserError: it cannot be written.
    """
    path = policies.path.with_suffix(SUFFIX)
    with replacing(path) as temporary:
        temporary.write_text(markdown(facts(policies)), encoding="utf-8")
    return path
