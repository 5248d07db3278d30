"""Memory that a step frees is there for the next one without a page fault, unless it is much of what there is."""

import ctypes
from pathlib import Path

import pytest

from tests.processes import python
from tlseg_jax.runtime import allocator

FAULTS = """
import resource, sys
from tlseg_jax.runtime import allocator
if sys.argv[1] == "kept":
    assert allocator.keep_freed(2**20)

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(2**26)[::4096] = bytes(2**14)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(faults())
"""


@pytest.mark.skipif(allocator._mallopt() is None, reason="not glibc")
def test_freed_memory_costs_no_second_page_fault() -> None:
    usual, kept = (int(python("-c", FAULTS, how).stdout) for how in ("usual", "kept"))
    assert usual > 10_000
    assert kept < usual / 20


LARGE = """
import ctypes, sys
from tlseg_jax.runtime import allocator
c = ctypes.CDLL(None)
for function in (c.malloc, c.sbrk):
    function.restype = ctypes.c_void_p
c.malloc.argtypes, c.free.argtypes, c.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_ssize_t]

def held(size):  # what is left of a block, which is never touched, after it was freed
    before = c.sbrk(0)
    block = c.malloc(size)
    assert block
    c.free(block)
    return c.sbrk(0) - before

assert allocator.keep_freed(2**20)
print(held(2**31 + 2**26))
assert not allocator.keep_freed(2**60)
c.malloc_trim(0)
print(held(2**31 + 2**26), held(2**25 - 2**20))
"""


@pytest.mark.skipif(allocator._mallopt() is None, reason="not glibc")
def test_more_than_two_gigabytes_are_kept_and_given_back_again_for_a_larger_step() -> None:
    kept, large, small = map(int, python("-c", LARGE).stdout.split())
    assert kept > 2**31 and large <= 0 and small > 2**24


STEP = """
import resource, statistics
import jax, jax.numpy as jnp
from tlseg_jax.runtime import allocator
allocator.compute_in_caller()
assert allocator.keep_freed(2**20)
step = jax.jit(lambda x: jnp.cumsum(x) * jnp.cumsum(x[::-1]))
x = jnp.ones((2**24,))

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(statistics.median(faults() for _ in range(11)))
"""


@pytest.mark.slow
@pytest.mark.skipif(allocator._mallopt() is None, reason="not glibc")
def test_most_steps_of_a_program_cost_no_page_fault() -> None:
    """Of 64 MB a buffer; JAX's own threads would fault for each 4 KiB of them at each step.

    Not each step, as a buffer that was freed late leaves a hole for the next but one, on a busy machine more often.
    """
    in_threads = STEP.replace("allocator.compute_in_caller()", "")
    usual, kept = (int(python("-c", text).stdout) for text in (in_threads, STEP))
    assert usual > 10_000
    assert kept < usual / 20


def test_a_step_that_takes_much_of_the_memory_gives_it_back() -> None:
    assert not allocator.keep_freed(2**60)


RESIDENT = """
from pathlib import Path
from tlseg_jax.runtime import allocator

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) // 256

assert allocator.keep_freed(2**20)
blocks = [b"x" * 2**20 for _ in range(100)]
above = b"y" * 2**20
del blocks
kept = megabytes()
allocator.give_back()
print(kept, megabytes())
"""


@pytest.mark.skipif(allocator._mallopt() is None or not Path("/proc/self/statm").exists(), reason="not glibc on Linux")
def test_what_is_free_is_given_back_below_what_is_not() -> None:
    kept, after = map(int, python("-c", RESIDENT).stdout.split())
    assert kept - after > 90


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        def __init__(self, name: object) -> None: ...

    monkeypatch.setattr(ctypes, "CDLL", Without)
    allocator._mallopt.cache_clear()
    try:
        assert not allocator.keep_freed(1)
    finally:
        allocator._mallopt.cache_clear()
