"""How much memory there is, how users write it, and how its lack shows."""

import dataclasses
import os
import re
from pathlib import Path

import jax

from tlseg_jax.runtime.errors import InputError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}

SIGNS = ("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "bad_alloc", "Ran out of memory")
"""How XLA's backends and the C++ library say that memory is short."""

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")


def parse_bytes(text: str) -> int:
    """Bytes of "11GB" (1e9 each), "10.5GiB" (2**30 each), "800 MB" or "11000000000".

    Raises:
      InputError: it is none of these, or nothing at all.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(?:e(\d+))?\s*(?:([KMGT]I?)?B?)", text.strip(), re.IGNORECASE)
    if found is None:
        raise InputError(f"'{text}' is no amount of memory: write a number and a unit, as in 11GB or 10.5GiB.")
    number, exponent, unit = found.groups()
    size = int(float(number) * 10 ** int(exponent or 0) * UNITS[(unit or "").upper()])
    if size < 1:
        raise InputError(f"'{text}' is no memory at all: give what a training step may take, as in 11GB.")
    return size


def format_bytes(size: float) -> str:
    """As "9.31 GB" or "265 MB", of 1e9 and 1e6 bytes each."""
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.3g} MB"


@dataclasses.dataclass(frozen=True)
class Capacity:
    """What a training step may take here.

    Attributes:
      bytes: so much.
      what: it is, for messages: "the memory of the NVIDIA H200", "the free RAM".
    """

    bytes: int
    what: str

    def __str__(self) -> str:
        return f"{self.what} is {format_bytes(self.bytes)}"


def device_capacity() -> Capacity:
    """The first device's memory; on a CPU the RAM that is free now.

    XLA takes a share of a GPU's memory when it starts (XLA_PYTHON_CLIENT_MEM_FRACTION): that share is what counts.
    """
    device = jax.local_devices()[0]
    # A backend that keeps no such count has no method for it either.
    stats = getattr(device, "memory_stats", lambda: None)() or {}
    if device.platform != "cpu" and "bytes_limit" in stats:
        return Capacity(int(stats["bytes_limit"]), f"the memory of the {device.device_kind}")
    return Capacity(free_ram(), "the free RAM")


def free_ram(meminfo: Path = MEMINFO, cgroup: Path = CGROUP) -> int:
    """Bytes of RAM that can be had without swapping, within the limit of a container; all of it where unknown."""
    try:
        line = next(s for s in meminfo.read_text(encoding="ascii").splitlines() if s.startswith("MemAvailable:"))
        free = int(line.split()[1]) * 1024
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit, used = ((cgroup / n).read_text(encoding="ascii").strip() for n in ("memory.max", "memory.current"))
    except OSError:
        return free
    return free if limit == "max" else min(free, max(int(limit) - int(used), 0))


def out_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is a lack of memory on the device or the host."""
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        if isinstance(error, RuntimeError) and any(s in str(error) for s in SIGNS):
            return True
        error = error.__cause__
    return False
