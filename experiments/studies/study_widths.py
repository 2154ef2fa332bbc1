"""The beam width as a third choice per cycle, by replay: what it adds to the optimum and to LTD.

    python -m experiments.studies.study_widths --out runs/widths   about half an hour on 2 CPU cores

Records every width, measures all of them in turns, trains each one's policies (exact learning), and
learns which width to draft; then the same under the shipped latency tables of other devices. All
numbers are on the test texts, over the best constant of the first width: the paper's action space
has one. Decoding has one width per program; nothing here is measured live. Stopped, the same
command goes on with the next table.

One tree per width is recorded at every position of the same texts, so a cycle may draft any of
them. The optimum over several widths is the clairvoyant programme over all their (levels, size).
What can be learned: every width has its own two policies, and a rule picks the width where a cycle
starts from the one thing known there, the entropy of the target's distribution that the root came
from. The rule is a table over bins of that entropy, found exactly on the training texts; the look
into it is charged nothing.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from experiments import output
from experiments.studies import ground as studied
from experiments.studies import scores, seeds, study
from experiments.studies.ground import Ground
from experiments.studies.retarget import HERE
from experiments.studies.study import Row, Study, StudyFlags
from ltd_jax import flags, workflow
from ltd_jax.config import LearningConfig
from ltd_jax.files import UserError
from ltd_jax.policies.networks import Learned
from ltd_jax.presets import LEARNING
from ltd_jax.replay import latency as latencies
from ltd_jax.replay import optimum, simulate
from ltd_jax.replay.latency import LatencyTable
from ltd_jax.replay.simulate import CycleOutcome, Simulator
from ltd_jax.workflow import Progress

NAME = "study_widths"
BINS = 16  # of the root's entropy, equally full
ROUNDS = 50  # at most, of finding a rule


@dataclasses.dataclass(frozen=True)
class Config(StudyFlags):
    """Which widths; each is recorded in a folder of its own under --out."""

    out: Path = Path("runs/widths")
    beam_widths: tuple[int, ...] = (4, 2, 8)
    tables: tuple[str, ...] = latencies.shipped_names()  # or files, beside --latency
    learning: LearningConfig = LEARNING


def stand(config: Config, progress: Progress) -> list[Ground]:
    """The ground of every width, measured in turns; they are comparable."""
    pairs, stages = [], []
    for width in config.beam_widths:
        cycle = dataclasses.replace(config.shapes, beam_width=width).of(config.preset.cycle)
        pairs.append(flags.load_pair(config, cycle))
        stages.append(dataclasses.replace(config.stages, folder=config.out / f"width-{width}"))
    if config.latency is None:
        workflow.load_or_profile_all(pairs, stages, progress=progress)
    measured = [
        studied.ground(pair, settings, config.latency, progress)
        for pair, settings in zip(pairs, stages, strict=True)
    ]
    require_comparable(measured)
    return at_same_speed(measured)


def at_same_speed(grounds: Sequence[Ground]) -> list[Ground]:
    """The same grounds, all as fast as the first in plain decoding.

    Tables that were measured in turns differ little in that; tables of other days differ by what
    the device was slower as a whole.
    """
    first = grounds[0].table.plain_seconds
    parts = ("cycle", "draft", "verify", "plain", "depth", "size")
    scaled = []
    for ground in grounds:
        factor = float((first / ground.table.plain_seconds).mean())
        times = {
            f"{part}_seconds": factor * getattr(ground.table, f"{part}_seconds") for part in parts
        }
        scaled.append(studied.with_latency(ground, dataclasses.replace(ground.table, **times)))
    return scaled


def require_comparable(grounds: Sequence[Ground]) -> None:
    """Raises UserError unless positions mean the same for all widths, and say what is chosen.

    The texts must be the same, and the policies must not see recent cycles.
    """
    if any(ground.widths.observation.acceptance_ema for ground in grounds):
        raise UserError("The study of widths needs policies that do not see recent cycles.")
    for split in ("train", "test"):
        first = getattr(grounds[0], split).tokens_left
        for ground in grounds[1:]:
            if not np.array_equal(first, getattr(ground, split).tokens_left):
                raise UserError(f"The {split} texts of two beam widths differ; record them again.")


def compare(study: Study[Config]) -> list[Row]:
    """Rows under every table; those of a stopped command are kept."""
    config, store, cells = study.config, study.open_store(NAME), list[Row]()
    by_table = {config.latency or HERE: study.grounds}
    for name in studied.under_tables(study.ground, config.tables):
        table = LatencyTable.find(name)
        by_table[name] = [studied.with_latency(ground, table) for ground in study.grounds]
    for name, grounds in by_table.items():
        tables_of_widths = [ground.origin["latency"] for ground in grounds]
        make = partial(learn, study, name, grounds)
        cells += store.value(f"{name} {config.beam_widths} {tables_of_widths}", make)
    return cells


def learn(study: Study[Config], name: str, grounds: Sequence[Ground]) -> list[Row]:
    """Trains every width's policies under the table of that name; a row for every choice."""
    config = study.config
    trained = [
        seeds.train(ground, config.learning, config.seeds, study.progress) for ground in grounds
    ]
    return list(rows(name, config.beam_widths, grounds, [one.policies for one in trained]))


@dataclasses.dataclass(frozen=True, eq=False)
class Cycles:
    """The cycles that each width's policies choose at every position, numpy [P, widths]."""

    committed: np.ndarray
    seconds: np.ndarray

    def of(self, held: Sequence[int]) -> "Cycles":
        """Of some of the widths, by their places."""
        return Cycles(self.committed[:, held], self.seconds[:, held])


def rows(
    name: str,
    widths: Sequence[int],
    grounds: Sequence[Ground],
    policies: Sequence[Sequence[Learned]],
) -> Iterator[Row]:
    """A row for every choice of widths, fewest first.

    latency, widths, best_constant, optimum, learned (with an interval over seeds) and chosen, the
    share of the test positions for each width; rates are over the best constant of the first width.

    Args:
      name: of the latency table.
      grounds: of every width, comparable (`require_comparable`).
      policies: of every width, those of every seed.
    """
    unit = scores.best_rate(grounds[0])
    by_seed = list(zip(*policies, strict=True))
    train = [cycles_of([ground.train for ground in grounds], one) for one in by_seed]
    test = [cycles_of([ground.test for ground in grounds], one) for one in by_seed]
    for count in range(1, len(widths) + 1):
        for held in combinations(range(len(widths)), count):
            own = [grounds[place] for place in held]
            best = max(own, key=lambda ground: ground.best.tokens_per_second)
            most = optimum.clairvoyant(join([ground.test for ground in own]))
            learned = [
                learn_rule(own[0], learn.of(held), check.of(held))
                for learn, check in zip(train, test, strict=True)
            ]
            yield {
                "latency": name,
                "widths": [widths[place] for place in held],
                "best_constant": scores.best_rate(best) / unit,
                "optimum": most.tokens_per_second / unit,
                **scores.interval("learned", [rate / unit for rate, _ in learned]),
                "chosen": np.mean([shares for _, shares in learned], axis=0).tolist(),
            }


def join(simulators: Sequence[Simulator]) -> Simulator:
    """One simulator whose sizes are those of all widths, one width after another."""
    return simulators[0].replace(
        accepted=jnp.concatenate([one.accepted for one in simulators], axis=-1),
        seconds=jnp.concatenate([one.seconds for one in simulators], axis=-1),
    )


def cycles_of(simulators: Sequence[Simulator], policies: Sequence[Learned]) -> Cycles:
    """The cycle that each width's policies choose from every position of a split."""
    outcomes = [
        jax.device_get(_cycle_everywhere(simulator, policy.traced()))
        for simulator, policy in zip(simulators, policies, strict=True)
    ]
    return Cycles(
        committed=np.stack([outcome.committed for outcome in outcomes], axis=1),
        seconds=np.stack([outcome.seconds.astype(np.float64) for outcome in outcomes], axis=1),
    )


@jax.jit
def _cycle_everywhere(simulator: Simulator, policy: Learned) -> CycleOutcome:
    """The outcome at every position, fields [P]."""
    history = policy.init_history(simulator.config)

    def one(position: jax.Array) -> CycleOutcome:
        cycle = simulate.take_cycle(simulator, policy, position, history, charge_decisions=True)
        return cycle.outcome

    positions = jnp.arange(simulator.tokens_left.shape[0])
    return jax.lax.map(one, positions, batch_size=256)


def learn_rule(ground: Ground, train: Cycles, test: Cycles) -> tuple[float, np.ndarray]:
    """Tokens per second on the test texts of the rule that was found on the training texts.

    Also the share of the test positions for each width.
    """
    edges, choice = find_rule(ground.train, train)
    choice_P = choice[np.searchsorted(edges, np.asarray(ground.test.root_entropy))]
    shares = np.bincount(choice_P, minlength=test.committed.shape[1]) / len(choice_P)
    return rate_of(ground.test, test, choice_P), shares


def find_rule(simulator: Simulator, cycles: Cycles) -> tuple[np.ndarray, np.ndarray]:
    """The rule of highest throughput: inner edges of the bins, and the choice in each bin.

    With throughput g, the width of a bin has the highest sum of committed - g * seconds over the
    bin's positions; g is what the rule then gives along the texts (the average reward).
    """
    entropy_P = np.asarray(simulator.root_entropy)
    edges = np.quantile(entropy_P, np.linspace(0, 1, BINS + 1)[1:-1])
    bin_P = np.searchsorted(edges, entropy_P)
    choice = kept = np.zeros(BINS, np.int64)
    best = 0.0
    for _ in range(ROUNDS):
        rate = rate_of(simulator, cycles, choice[bin_P])
        if rate <= best:
            break
        best, kept = rate, choice
        gain = cycles.committed - rate * cycles.seconds
        choice = np.stack([gain[bin_P == place].sum(0) for place in range(BINS)]).argmax(1)
    return edges, kept


def rate_of(simulator: Simulator, cycles: Cycles, choice_P: np.ndarray) -> float:
    """Tokens per second along all texts, taking `choice_P` of the widths at each position."""
    left_P = np.asarray(simulator.tokens_left)
    tokens, seconds = 0, 0.0
    for position in np.asarray(simulator.text_start).tolist():
        left = int(left_P[position])
        tokens += left
        while left > 0:
            chosen = (position, choice_P[position])
            step = int(cycles.committed[chosen])
            seconds += float(cycles.seconds[chosen])
            position, left = position + step, left - step
    return tokens / seconds


def show(rows: Sequence[Row]) -> Table:
    """All rows."""
    lines = [
        (
            row["latency"],
            ", ".join(map(str, row["widths"])),
            f"{row['best_constant']:.3f}",
            f"{row['optimum']:.3f}",
            f"{row['learned']:.3f} ({row['learned_low']:.3f} to {row['learned_high']:.3f})",
            " ".join(f"{100 * share:.0f}%" for share in row["chosen"]),
        )
        for row in rows
    ]
    return output.table(
        "Throughput over the best constant of the first width, test texts, by replay",
        ("latency", "widths", "best constant", "optimum", "learned", "chosen"),
        lines,
        "learned: mean over seeds with its 95 % interval",
    )


def main() -> None:
    config = study.parse(Config)
    is_distinct = len(set(config.beam_widths)) == len(config.beam_widths)
    if not config.beam_widths or not is_distinct or min(config.beam_widths) < 1:
        given = " ".join(map(str, config.beam_widths))
        raise UserError(f"`beam_widths` {given} must be one or more distinct widths of at least 1.")
    if config.shapes.beam_width is not None:
        flags.say("--beam-width changes nothing here: --beam-widths names the widths.")
    study.run(NAME, config, compare, show, stand=stand)


if __name__ == "__main__":
    flags.run(main)
