"""Memory that a training step frees and the next one takes again, kept in the process where there is plenty of it.

The C library gives a large block back to the system as it is freed, and gets it anew, a page fault for each 4 KiB: on
two cores a fifth of the time of a step on a CPU (docs/performance.md). XLA:CPU takes its memory from there.
"""

import ctypes
import functools
from collections.abc import Callable

from tlseg_jax.runtime.device_memory import free_ram

SHARE = 8
"""A step that takes more than one part in so many of the free RAM gives it back, so that holes do not fill the RAM."""

_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
"""Parameters of glibc's mallopt (malloc.h)."""

_LARGEST = 2**31 - 1


@functools.cache
def _mallopt() -> Callable[[int, int], int] | None:
    try:
        return ctypes.CDLL(None).mallopt  # type: ignore[no-any-return]
    except (AttributeError, OSError, TypeError):  # not glibc's
        return None


def share_one_arena() -> None:
    """Have threads started from now on take memory from one pool: from pools of their own it is always given back."""
    if mallopt := _mallopt():
        mallopt(_ARENA_MAX, 1)


def keep_freed(needed: int) -> bool:
    """Keep memory that is freed from now on, where a step takes a small part of what there is.

    Args:
      needed: bytes that a step takes.

    Returns:
      Whether it is kept from now on.
    """
    mallopt = _mallopt()
    if mallopt is None or needed * SHARE > free_ram():
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _LARGEST))
