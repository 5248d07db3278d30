"""Memory that a training step frees and the next one takes again, kept in the process where there is plenty of it.

The C library gives a large block back to the system as it is freed, and gets it anew, a page fault for each 4 KiB: on
two cores a fifth of the time of a step on a CPU (docs/performance.md). XLA:CPU takes its memory from there.
"""

import ctypes
import functools
from collections.abc import Callable

import jax

from tlseg_jax.runtime.device_memory import free_ram

SHARE = 8
"""A step that takes more than one part in so many of the free RAM gives it back, so that holes do not fill the RAM."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
"""Parameters of glibc's mallopt (malloc.h)."""

_KEPT = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1))
"""No block is mapped by itself, and nothing is given back (-1; a number ends at 2 GiB)."""

_GIVEN_BACK = ((_MMAP_MAX, 65536), (_MMAP_THRESHOLD, 2**25), (_TRIM_THRESHOLD, 2**26))
"""What glibc begins with, its thresholds where they stand once large blocks were freed (M_MMAP_THRESHOLD)."""


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    try:
        return ctypes.CDLL(None).mallopt  # type: ignore[no-any-return]
    except (AttributeError, OSError, TypeError):  # not glibc's
        return None


def compute_in_caller() -> None:
    """Have a program on a CPU run in the thread that calls it, where JAX has started no CPU before.

    In a thread of JAX's own its memory would come from a pool of that thread, from which it is always given back. One
    pool for all threads would keep it too, but compiling takes twice as long when they wait for each other there.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def keep_freed(needed: int) -> bool:
    """Keep memory that is freed from now on where a step takes a small part of what there is, else give it back.

    Args:
      needed: bytes that a step takes.

    Returns:
      Whether it is kept from now on.
    """
    mallopt = _mallopt()
    if mallopt is None:
        return False
    kept = needed * SHARE <= free_ram()
    # Also where nothing is kept: an earlier run of this process may have been smaller.
    return all([mallopt(parameter, value) for parameter, value in (_KEPT if kept else _GIVEN_BACK)]) and kept


def give_back() -> None:
    """Give what is free now back to the system: what comes next has other sizes, and would grow the process."""
    if _mallopt():
        ctypes.CDLL(None).malloc_trim(0)
