"""The stage that ends in a latency table: this device's, measured once, or a named one."""

import dataclasses
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
from rich.console import Console

from ltd_jax.config import PolicyConfig
from ltd_jax.cycle.pair import Pair
from ltd_jax.errors import UserError
from ltd_jax.pipeline.stages import Measuring, as_json, bar, must_equal
from ltd_jax.replay import latency, measure, shipped
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.sampling import described


def table_of(pair: Pair, settings: Measuring, console: Console) -> LatencyTable:
    """Measures this device, or reads what was measured before, or goes on measuring."""
    return tables_of([pair], [settings], console)[0]


def tables_of(
    pairs: Sequence[Pair], settings: Sequence[Measuring], console: Console
) -> list[LatencyTable]:
    """`table_of` several pairs that are to be compared: those still to measure are, in turns.

    Args:
      settings: of every pair, all with the same `policy` and `measure`.
    """
    paths = [each.out / "latency.json" for each in settings]
    missing = []
    for pair, path in zip(pairs, paths, strict=True):
        if path.exists():
            must_fit(latency.load(path), path, pair)
        else:
            missing.append((_subject(pair, path), path))
    if missing:
        here, subjects = settings[0], [subject for subject, _ in missing]
        with bar(console, "measure latencies") as advance:
            tables = measure.measure_in_turns(subjects, here.policy, here.measure, advance)
        for (_, path), table in zip(missing, tables, strict=True):
            latency.save(table, path)
            _partial_file(path).unlink(missing_ok=True)
    return [latency.load(path) for path in paths]


def _subject(pair: Pair, path: Path) -> measure.Subject:
    """A pair to measure on this device."""
    origin = pair.environment
    origin |= {"fingerprint": pair.fingerprint, "sampling": described(pair.config.sampling)}
    origin["cycle"] = dataclasses.asdict(pair.config.cycle)
    return measure.Subject(pair, origin, _partial_file(path))


def _partial_file(path: Path) -> Path:
    """Where halves of a table are kept until it is measured."""
    return path.with_name(f"{path.stem}-partial.json")


def must_fit(table: LatencyTable, path: Path, pair: Pair) -> None:
    """Raises UserError unless a table is of this pair and its cycle; warns of another device."""
    cycle, origin = pair.config.cycle, table.provenance
    if "fingerprint" not in origin:
        raise UserError(
            f"{path} is the table of {origin.get('device')}, not measured with this pair; give "
            "another --out or delete it."
        )
    must_equal(path, "fingerprint", origin.get("fingerprint"), pair.fingerprint)
    must_equal(path, "dtype", origin.get("dtype"), jnp.dtype(pair.dtype).name)
    must_equal(path, "sampling", origin.get("sampling"), described(pair.config.sampling))
    must_equal(path, "sizes", table.sizes, cycle.sizes)
    must_equal(path, "levels", table.max_levels, cycle.max_levels)
    here = as_json(dataclasses.asdict(cycle))
    for name, there in origin.get("cycle", {}).items():
        must_equal(path, name, there, here.get(name))
    if origin.get("device") != pair.device:
        warnings.warn(
            f"{path} was measured on {origin.get('device')}, so the policies are trained for that "
            f"device and not for {pair.device}.",
            stacklevel=2,
        )


def must_decide_alike(table: LatencyTable, path: Path, policy: PolicyConfig) -> None:
    """Raises UserError where a table's decisions were timed with policies of another kind."""
    here = as_json(dataclasses.asdict(policy))
    must_equal(path, "policies", table.provenance.get("policy", here), here)


def must_sample_alike(table: LatencyTable, policies: Path, pair: Pair) -> None:
    """Raises UserError where a table, of some policies, was measured with other sampling."""
    there, here = table.provenance.get("sampling"), described(pair.config.sampling)
    if "sampling" in table.provenance and there != here:
        words = lambda found: "greedy decoding" if found is None else f"sampling {found}"
        raise UserError(
            f"The times behind the policies in {policies} were measured with {words(there)}, not "
            f"with {words(here)}; decode with the same sampling flags, or train again with these."
        )


def named_table(
    pair: Pair, settings: Measuring, name: str | None, console: Console
) -> LatencyTable:
    """The table of a shipped name or a file, fitted to the pair's cycle; None = `table_of`."""
    if name is None:
        table = table_of(pair, settings, console)
        must_decide_alike(table, settings.out / "latency.json", settings.policy)
        return table
    return shipped.fit(shipped.find(name), pair.config.cycle)


def kept_table(pair: Pair, settings: Measuring, name: str, console: Console) -> LatencyTable:
    """`named_table`, kept as the folder's own, so that what is trained for it lies beside it."""
    path = settings.out / "latency.json"
    table = named_table(pair, settings, name, console)
    if path.exists():
        there, here = latency.load(path), latency.fingerprint(table)
        must_equal(path, "latency table", latency.fingerprint(there), here)
    else:
        latency.save(table, path)
    return table
