"""Results of an experiment as files: NAME.json with where its numbers come from, and NAME.png."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments import command
from experiments.command import PairFlags
from ltd_jax.files import replacing


def write(
    folder: Path, name: str, flags: PairFlags, content: Mapping[str, Any], png: bytes | None = None
) -> dict[str, Any]:
    """Writes both and says where; returns what is in the JSON."""
    command.writable(folder)
    whole = {"schema": 1, "experiment": name, **content}
    whole["environment"] = flags.environment
    path = folder / f"{name}.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(whole, indent=1, allow_nan=False) + "\n")
    if png is not None:
        with replacing(path.with_suffix(".png")) as temporary:
            temporary.write_bytes(png)
    command.say(f"Results: {path}")
    return whole
