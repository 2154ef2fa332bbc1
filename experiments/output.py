"""Results of an experiment as files: NAME.json with where its numbers come from, and NAME.png."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ltd_jax import flags
from ltd_jax.files import replacing
from ltd_jax.flags import PairFlags


def write(
    folder: Path,
    name: str,
    config: PairFlags,
    content: Mapping[str, Any],
    png: bytes | None = None,
) -> dict[str, Any]:
    """Writes both and says where; returns what is in the JSON."""
    flags.writable(folder)
    document = {"schema": 1, "experiment": name, "environment": config.environment, **content}
    path = folder / f"{name}.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n")
    if png is not None:
        with replacing(path.with_suffix(".png")) as temporary:
            temporary.write_bytes(png)
    flags.say(f"Results: {path}")
    return document
