"""Amounts of memory as users write them, what a machine has, and how its lack is told from other errors."""

from pathlib import Path

import jax
import pytest

from tlseg_jax.runtime.device_memory import device_capacity, format_bytes, free_ram, out_of_memory, parse_bytes
from tlseg_jax.runtime.errors import InputError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("11GB", 11 * 10**9),
        ("11 gb", 11 * 10**9),
        ("11G", 11 * 10**9),
        ("10.5GiB", int(10.5 * 2**30)),
        ("800MB", 8 * 10**8),
        (" 512MiB ", 2**29),
        ("2TB", 2 * 10**12),
        ("11e9", 11 * 10**9),
        ("123456", 123456),
        (".5GB", 5 * 10**8),
        ("4KiB", 4096),
        ("7B", 7),
    ],
)
def test_amounts_are_read_as_written(text: str, size: int) -> None:
    """Units of 1000 and of 1024, any case, with or without a space."""
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "lots", "11 bananas", "-3GB", "0GB", "1.2.3GB", "11GBs", "1e", "0.1B"])
def test_nonsense_is_one_sentence(text: str) -> None:
    """What is no amount is refused with an example."""
    with pytest.raises(InputError, match="11GB") as e:
        parse_bytes(text)
    assert "\n" not in str(e.value)


def test_what_is_formatted_reads_back_within_rounding() -> None:
    """Three digits are shown."""
    for size in (150_000, 2_500_000, 999_000_000, 11 * 10**9, 141 * 10**9):
        assert parse_bytes(format_bytes(size)) == pytest.approx(size, rel=0.005)


def test_free_ram_is_the_kernels_within_the_containers_limit(tmp_path: Path) -> None:
    """MemAvailable counts; a container's limit less what it uses counts where it is lower."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9000 kB\nMemFree: 1 kB\nMemAvailable: 5000 kB\n", encoding="ascii")
    assert free_ram(meminfo, tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")
    (tmp_path / "memory.current").write_text("1000\n", encoding="ascii")
    assert free_ram(meminfo, tmp_path) == 5000 * 1024
    (tmp_path / "memory.max").write_text("3000\n", encoding="ascii")
    assert free_ram(meminfo, tmp_path) == 2000
    (tmp_path / "memory.max").write_text("500\n", encoding="ascii")
    assert free_ram(meminfo, tmp_path) == 0
    assert free_ram(tmp_path / "absent", tmp_path) > 10**8  # the whole machine's


def test_the_capacity_of_this_machine_is_sane() -> None:
    """Between 100 MB and 100 TB, and it says of what."""
    capacity = device_capacity()
    assert 10**8 < capacity.bytes < 10**14
    assert format_bytes(capacity.bytes) in str(capacity) and capacity.what in str(capacity)


def test_a_lack_of_memory_is_told_from_other_errors() -> None:
    """XLA's own error where it cannot allocate, Python's, C++'s, and one that another was raised from."""
    with pytest.raises(jax.errors.JaxRuntimeError) as real:
        jax.block_until_ready(jax.jit(lambda: jax.numpy.zeros(2**45, "int8") + 1)())
    assert out_of_memory(real.value)
    assert out_of_memory(MemoryError())
    assert out_of_memory(RuntimeError("std::bad_alloc"))
    outer = ValueError("while training")
    outer.__cause__ = MemoryError()
    assert out_of_memory(outer)
    assert not out_of_memory(RuntimeError("INVALID_ARGUMENT: shapes"))
    assert not out_of_memory(ValueError("out of memory is only mentioned"))
    assert not out_of_memory(None)
