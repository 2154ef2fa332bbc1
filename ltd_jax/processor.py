"""The processor of this machine: what it is called, how many cores, how wide its vectors are."""

import functools
import os
import platform


def name() -> str:
    """Kind, vector instructions and usable cores, as in "AMD EPYC (AVX2), 2 cores"."""
    kind = _lines().get("model name") or platform.processor() or platform.machine()
    vectors = f" ({vector_instructions()})" if vector_instructions() else ""
    return f"{kind}{vectors}, {core_count()} cores"


def core_count() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def vector_instructions() -> str:
    """Either "AVX-512" or "AVX2"; empty where neither is known of."""
    flags = _lines().get("flags", "").split()
    return "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else ""


@functools.cache
def _lines() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            first = file.read().split("\n\n", 1)[0]
    except OSError:
        return {}
    pairs = [line.split(":", 1) for line in first.splitlines() if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}
