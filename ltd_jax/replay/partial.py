"""What a measurement has got so far, in a file: a killed one goes on where it was.

Every entry is written as soon as it is measured. The file says what was measured (pair, device,
settings); what was measured otherwise is left aside with a warning, as is a damaged file.
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ltd_jax.replay.trace import replacing


class Partial:
    """Entries by name.

    Args:
      path: of the JSON file; None = keep nothing.
      settings: JSON; entries measured with others are not used.
      is_numeric: whether all entries are numbers, as `entry` needs them; else they are any JSON.
    """

    def __init__(
        self, path: Path | None, settings: dict[str, Any], is_numeric: bool = True
    ) -> None:
        self.path, self.is_numeric = path, is_numeric
        self.settings = json.loads(json.dumps(settings))
        self.entries = {} if path is None or not path.exists() else self._found(path)

    def entry(self, name: str, measure: Callable[[], Any]) -> np.ndarray:
        """The entry of a name, f64; measured and written where it is not there yet."""
        found = self.value(name, lambda: np.asarray(measure(), np.float64).tolist())
        return np.asarray(found, np.float64)

    def value(self, name: str, make: Callable[[], Any]) -> Any:
        """The JSON value of a name; made and written where it is not there yet."""
        if name not in self.entries:
            self.entries[name] = json.loads(json.dumps(make()))
            self._write()
        return self.entries[name]

    def forget(self) -> None:
        """Drops all entries, of the file, too: they are of no use."""
        self.entries = {}
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _found(self, path: Path) -> dict[str, Any]:
        try:
            record = json.loads(path.read_text())
            settings, entries = record["settings"], dict(record["entries"])
            for value in entries.values() if self.is_numeric else ():
                np.asarray(value, np.float64)
        except (OSError, ValueError, LookupError, TypeError) as error:
            self._say(f"is damaged ({error})")
            return {}
        if settings != self.settings:
            self._say("is of another pair, device or setting")
            return {}
        return entries

    def _say(self, what: str) -> None:
        warnings.warn(f"{self.path} {what}; it is measured from the beginning.", stacklevel=4)

    def _write(self) -> None:
        if self.path is None:
            return
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps({"settings": self.settings, "entries": self.entries}))
