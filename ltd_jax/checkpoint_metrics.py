"""Metrics beside checkpoints, which are read when their folder is opened.

Damaged ones must not keep a training from going on: their step is whole without them.
"""

import json
import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

WORST = -sys.float_info.max


def best_of(folder: Path, name: str) -> Callable[[dict[str, float]], float]:
    """What tells the best step; one whose metric cannot be read becomes the worst, with a warning.

    Args:
      name: of the metric.
    """
    for path in folder.glob("*/metrics/metrics"):
        try:
            readable = math.isfinite(json.loads(path.read_text())[name])
        except (OSError, ValueError, TypeError, LookupError):
            readable = False
        if not readable:
            path.write_text(json.dumps({name: WORST}))
            warnings.warn(
                f"Checkpoint {path.parents[1].name} in {folder} has damaged metrics; it is not "
                "taken for the best one.",
                stacklevel=3,
            )
    return lambda metrics: metrics[name]
