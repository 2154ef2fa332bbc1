"""Compiled programs are kept by JAX for as long as a process lives, and hold memory maps.

Linux allows a process 65,530 of them (vm.max_map_count). A comparison of all methods compiles some
twenty cycles; beyond the limit the next compilation ends the process.
"""

from pathlib import Path

import jax

MOST_MAPS = 25_000  # before the next stage, which may need as many again
MAPS = Path("/proc/self/maps")


def forget_if_many() -> bool:
    """Between two stages: forgets all programs where they hold many maps; says whether it did.

    What is still needed is compiled again. Nothing happens where the system tells of no maps.
    """
    try:
        many = MAPS.read_bytes().count(b"\n") > MOST_MAPS
    except OSError:
        return False
    if many:
        jax.clear_caches()
    return many
