"""How much memory native code on this host may take for a model, and what the user's shell allows."""

from __future__ import annotations

import resource

BASE = 4 << 30
PER_MODEL_BYTE = 32
PER_INPUT_BYTE = 256
_LEAST = 1 << 30
_LIMITS = (("ulimit -d", resource.RLIMIT_DATA), ("ulimit -v", resource.RLIMIT_AS))


def memory_for(model_bytes: int, input_bytes: int = 0) -> int:
    """Bytes a tool or a runner on this host may allocate: 4 GiB, 32 times the model's file and 256 times the inputs,
    and never more than nine tenths of what is free, so that it dies before this host starts to swap."""
    wanted = BASE + PER_MODEL_BYTE * model_bytes + PER_INPUT_BYTE * input_bytes
    return max(_LEAST, min(wanted, int(available() * 0.9)))


def available() -> int:
    """Bytes that are free on this host, or would be for whoever asks."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        import psutil  # which takes longer to load than the file to read

        return int(psutil.virtual_memory().available)


def users_limit(below: int | None = None) -> str | None:
    """The limit of the shell this was started from, such as "`ulimit -d` allows 512 MB"; None where there is none.

    below: bytes; a limit that is not lower is none.
    """
    for name, number in _LIMITS:
        soft = resource.getrlimit(number)[0]
        if soft != resource.RLIM_INFINITY and (below is None or soft < below):
            return f"`{name}` allows {soft / 1e6:.0f} MB"
    return None
