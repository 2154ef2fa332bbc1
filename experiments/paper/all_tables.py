"""All tables and figures of the paper on learning, one after the other, from one folder.

    python -m experiments.paper.all_tables --out runs/embedded

Takes the flags that all of them take (see any of them, --help) and hands them on. About an
hour on 2 cores, most of it for table 10's widest networks; stopped, the same command goes on.
"""

import sys

from experiments.paper import (
    figure3_curves,
    figure6_interaction,
    table2_rewards,
    table4_components,
    table6_observations,
    table7_8_iterations,
    table9_overhead,
    table10_widths,
)
from experiments.studies import retarget
from ltd_jax import flags

EXPERIMENTS = (
    table2_rewards,
    table4_components,
    table6_observations,
    table7_8_iterations,
    table9_overhead,
    table10_widths,
    figure3_curves,
    figure6_interaction,
    retarget,
)


def main() -> None:
    for number, experiment in enumerate(EXPERIMENTS, 1):
        title = (experiment.__doc__ or "").splitlines()[0]
        flags.say(f"[{number}/{len(EXPERIMENTS)}] {title}")
        experiment.main()


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv):
        print(__doc__)
        sys.exit(0)
    flags.run(main)
