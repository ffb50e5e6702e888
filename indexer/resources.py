"""How many processes and how large batches suit this machine."""

import os
from pathlib import Path

_LEAST_BATCH, _MOST_BATCH = 64, 512
"""Records read and encoded together: past the larger nothing gets faster, and a shard holds a whole number of each."""

_BATCHES_EACH = 4  # for every worker, at least
_ENCODER_BYTES = 700_000_000  # of a process with PyTorch and a model; measured 300 to 600 MB
_READER_BYTES = 150_000_000  # of a process that only reads
_MEMORY_SHARE = 0.7  # of what is free; the page cache is to keep some


def usable_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def free_memory() -> int | None:
    """Return the bytes that new processes can use, page cache included; None where the system does not tell."""
    found = [free for free in (_system_free(), _group_free()) if free is not None]
    return min(found, default=None)


def choose_workers(device: str) -> int:
    """Return how many worker processes suit the machine: one a core, fewer where memory is short, at least one.

    Args:
        device: where the model runs. On a CPU the workers encode; otherwise they read for this process, which keeps
            a core.
    """
    on_cpu = device == "cpu"
    wanted = usable_cores() if on_cpu else usable_cores() - 1
    free = free_memory()
    if free is not None:
        wanted = min(wanted, int(_MEMORY_SHARE * free / (_ENCODER_BYTES if on_cpu else _READER_BYTES)))
    return max(1, wanted)


def choose_batch_size(device: str, records: int, workers: int) -> int:
    """Return how many records to read and encode together.

    Many, as each kind of work throws the other's code and data out of the caches; on a CPU fewer where there would be
    too few batches to share among the workers.

    Args:
        device: where the model runs.
        records: how many there are.
        workers: processes.
    """
    size = _MOST_BATCH
    while device == "cpu" and size > _LEAST_BATCH and size * _BATCHES_EACH * workers > records:
        size //= 2
    return size


def _system_free() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    kilobytes = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
    return None if kilobytes is None else int(kilobytes) * 1024


def _group_free() -> int | None:
    """Return what a container's limit leaves; the kernel takes page cache back before it refuses."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        used = int((group / "memory.current").read_text(encoding="ascii"))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return limit - used + int(statistics["inactive_file"])
    except (OSError, ValueError, KeyError):  # no limit reads "max"
        return None
