"""Our own loops: right at every size, the same each time, compiled once, and not missed where they cannot be had."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.processes import python
from tlseg_jax.models.lowering import choice, direct
from tlseg_jax.models.lowering.choice import ConvWork, choose_lowering
from tlseg_jax.models.lowering.forms import FORMS, directly, native
from tlseg_jax.runtime.errors import InputError

needs_compiler = pytest.mark.skipif(bool(direct.lacking()), reason=direct.lacking())

SIZES = [
    (2, 5, 6, 7, 1, 8),  # one channel is a block of its own
    (1, 3, 9, 56, 16, 8),  # rows of several turns
    (1, 2, 20, 29, 12, 11),  # neither channels nor features fill their vectors, and the last turn overlaps
    (1, 1, 1, 1, 8, 8),
    (1, 4, 3, 2, 128, 64),  # the kernel's gradient goes by blocks of channels
    (3, 300, 40, 24, 32),  # several pieces a plane
    (2, 33, 17, 64, 20),
    (1, 9, 130, 3, 5),
]


@pytest.fixture
def asked_anew() -> object:
    """What a test finds lacking is forgotten before and after it."""
    direct.lacking.cache_clear()
    choice._usual.cache_clear()
    yield
    direct.lacking.cache_clear()
    choice._usual.cache_clear()


@needs_compiler
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_value_and_both_gradients_are_xlas(size: tuple[int, ...], dtype: str) -> None:
    *outer, channels, features = size
    rng = np.random.default_rng(0)
    shapes = ((*outer, channels), (*(3,) * (len(outer) - 1), channels, features), (*outer, features))
    x, kernel, g = (jnp.asarray(rng.standard_normal(s), dtype) for s in shapes)
    value, back = jax.jit(lambda x, k, g: (lambda v, b: (v, b(g)))(*jax.vjp(directly, x, k)))(x, kernel, g)
    with jax.default_matmul_precision("highest"):
        expected, expected_back = jax.vjp(native, *(a.astype(jnp.float32) for a in (x, kernel)))
        wanted = (expected, *expected_back(g.astype(jnp.float32)))
    # Sums are float32 in both types; of bfloat16 the results are rounded to 8 bits.
    near = 1e-5 if dtype == "float32" else 2.0**-8
    for a, b in zip((value, *back), wanted, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(np.asarray(a, np.float32), b, rtol=near, atol=near * float(jnp.abs(b).max()))


@needs_compiler
def test_the_same_sums_each_time() -> None:
    rng = np.random.default_rng(1)
    x, g = (jnp.asarray(rng.standard_normal((2, 12, 30, 20, n)), jnp.float32) for n in (8, 16))
    gradient = jax.jit(direct.kernel_gradient)
    first = gradient(x, g)
    for _ in range(10):
        np.testing.assert_array_equal(gradient(x, g), first)


@needs_compiler
def test_several_at_once_do_not_wait_for_one_another() -> None:
    """More calls than threads, none of which needs another's result."""
    rng = np.random.default_rng(2)
    xs = [jnp.asarray(rng.standard_normal((1, 6, 20, 20, 8)), jnp.float32) for _ in range(12)]
    kernel = jnp.asarray(rng.standard_normal((3, 3, 3, 8, 8)), jnp.float32)
    found = jax.jit(lambda xs: [direct.convolve(x, kernel) for x in xs])(xs)
    for x, y in zip(xs, found, strict=True):
        np.testing.assert_allclose(y, native(x, kernel), atol=1e-4)


@needs_compiler
def test_what_is_not_a_number_stays_where_it_is() -> None:
    x = jnp.ones((1, 8, 8, 8, 8)).at[0, 4, 4, 4, 0].set(jnp.nan)
    found = direct.convolve(x, jnp.ones((3, 3, 3, 8, 8)))
    expected = native(x, jnp.ones((3, 3, 3, 8, 8)))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    assert np.isnan(found).sum() == 27 * 8


@needs_compiler
@pytest.mark.parametrize("outer", [(0, 4, 5), (2, 0, 5), (2, 4, 0), (0, 2, 4, 5), (2, 0, 4, 5)])
def test_sums_of_nothing_are_zero(outer: tuple[int, ...]) -> None:
    for channels in (8, 64):
        assert not np.any(direct.kernel_gradient(jnp.ones((*outer, channels)), jnp.ones((*outer, 16))))
    without_channels = (*(max(side, 1) for side in outer), 0)
    assert not np.any(direct.convolve(jnp.ones(without_channels), jnp.ones((*(3,) * (len(outer) - 1), 0, 8))))


@pytest.mark.parametrize(
    ("x", "kernel"),
    [
        (((1, 4, 4, 8), "float32"), ((3, 3, 8, 8), "bfloat16")),
        (((1, 4, 4, 8), "float16"), ((3, 3, 8, 8), "float16")),
        (((1, 4, 4, 8), "float32"), ((3, 3, 4, 8), "float32")),
        (((1, 4, 4, 8), "float32"), ((1, 1, 8, 8), "float32")),
        (((1, 4, 8), "float32"), ((3, 8, 8), "float32")),
    ],
)
def test_what_would_be_read_beyond_its_end_is_refused(x: tuple[Any, str], kernel: tuple[Any, str]) -> None:
    with pytest.raises(ValueError, match="`direct` does not take"):
        direct.convolve(jnp.ones(*x), jnp.ones(*kernel))
    with pytest.raises(ValueError, match="`direct` does not take"):
        direct.kernel_gradient(jnp.ones(*x), jnp.ones((*x[0][:-2], 5, 8), kernel[1]))


THREADS = """
import threading, jax, jax.numpy as jnp
from pathlib import Path
from tlseg_jax.models.lowering import direct
call = jax.jit(direct.convolve)
x, kernel = jnp.ones((1, 2, 2, 2, 256)), jnp.ones((3, 3, 3, 256, 256))  # whose factors take 9 MiB

def pages(threads):
    for _ in range(threads):
        thread = threading.Thread(target=lambda: call(x, kernel).block_until_ready())
        thread.start()
        thread.join()
    return int(Path("/proc/self/statm").read_text().split()[1])

print(-pages(2) + pages(20))
"""


@needs_compiler
def test_a_thread_that_ends_leaves_no_memory_behind() -> None:
    done = python("-c", THREADS, MALLOC_MMAP_THRESHOLD_="1000000")  # so that what is freed is seen to be
    assert int(done.stdout) * os.sysconf("SC_PAGE_SIZE") < 60 * 2**20, done.stderr


KEPT = """
import jax, jax.numpy as jnp, sys
from tlseg_jax.models.lowering.forms import FORMS
from tlseg_jax.runtime.compilation_cache import use_compilation_cache
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name) if "cache_hits" in name else None)
assert use_compilation_cache(sys.argv[1]) is None
gradient = jax.jit(jax.grad(lambda k: FORMS["direct"].convolve(jnp.ones((1, 4, 4, 4, 8)), k).sum()))
print(float(gradient(jnp.ones((3, 3, 3, 8, 8))).sum()), len(hits))
"""


@needs_compiler
def test_a_program_with_it_is_kept(tmp_path: Path) -> None:
    results = [python("-W", "error", "-c", KEPT, str(tmp_path)) for _ in range(2)]
    assert all(r.returncode == 0 for r in results), results[0].stderr + results[1].stderr
    (first, before), (second, after) = (r.stdout.split() for r in results)
    assert first == second and int(before) < int(after)


@pytest.mark.slow
@needs_compiler
def test_it_is_compiled_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    code = (
        "from tlseg_jax.models.lowering import direct; from tlseg_jax.runtime.messages import shown\n"
        "with shown(print): print(direct.lacking() or 'ready')"
    )
    first, second = (python("-c", code).stdout for _ in range(2))
    assert first == "note: convolutions are compiled for this processor, once.\nready\n" and second == "ready\n"
    (kept,) = (tmp_path / "tlseg_jax" / "xla").iterdir()
    assert kept.stat().st_mode & 0o077 == 0 or kept.parent.stat().st_mode & 0o077 == 0
    kept.write_bytes(kept.read_bytes()[:50])  # as a full disk or a power cut may leave it
    assert python("-c", code).stdout == first and python("-c", code).stdout == second


def work() -> ConvWork:
    return ConvWork("net", {}, (1, 4, 6, 8, 2), "float32", list)


@pytest.mark.skipif(not FORMS["onednn"].runs("cpu"), reason="no oneDNN on this machine")
def test_without_a_compiler_the_next_best_is_taken_and_that_is_said(
    tmp_path: Path, asked_anew: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    found = choose_lowering(work())
    assert found.lowering == "onednn"
    assert "direct would be faster, and there is no C compiler (gcc or cc)" in str(found)
    with pytest.raises(InputError, match="`lowering=direct` cannot do"):
        choose_lowering(work(), "direct")
    with pytest.raises(RuntimeError, match="`direct` cannot be used here: there is no C compiler"):
        direct.convolve(jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1)))


@pytest.mark.skipif(not FORMS["onednn"].runs("cpu"), reason="no oneDNN on this machine")
@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("echo In direct.c: >&2; echo error: no header >&2; exit 1", "--flag does not compile it (error: no header)"),
        ("", "file too short"),
    ],
)
def test_a_compiler_that_fails_or_makes_nonsense_is_said(
    script: str, fault: str, tmp_path: Path, asked_anew: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = tmp_path / "cc"
    makes = 'for last; do true; done; while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"'
    begins = '#!/bin/sh\n[ "$1" = --flag ] || exit 2; case "$*" in *" -E "*) exit 0;; esac'
    compiler.write_text(f"{begins}\n{script or makes}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", f"{compiler} --flag")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lacks = direct.lacking()
    assert fault in lacks, lacks
    assert choose_lowering(work()).lowering == "onednn"
    assert not list((tmp_path / "tlseg_jax" / "xla").iterdir())


@pytest.mark.parametrize(
    ("named", "fault"),
    [
        ("no-such-compiler", "there is no no-such-compiler, the C compiler that CC names"),
        ("cc 'unclosed", "it cannot be compiled here (No closing quotation)"),
        ("false", "false does not compile it (no word)"),
    ],
)
def test_a_compiler_that_is_named_and_is_none_is_said(
    named: str, fault: str, asked_anew: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", named)
    assert direct.lacking() == fault


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no folder that nobody can write to")
def test_a_cache_folder_that_cannot_be_is_said(asked_anew: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self")
    monkeypatch.setenv("CC", "true")
    lacks = direct.lacking()
    assert "'/proc/self/tlseg_jax" in lacks and "; XDG_CACHE_HOME can name another" in lacks


def test_clang_is_passed_over(tmp_path: Path, asked_anew: object, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "some-compiler"
    compiler.write_text("#!/bin/sh\necho '#define __clang__ 1'\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    assert "some-compiler is Clang, whose code is slower than oneDNN's; CC can name GCC" in direct.lacking()


def test_the_cases_are_those_that_it_tells_apart() -> None:
    """The sizes above meet every branch of the C file by its own constants."""
    channels, features, widths = ({s[i] for s in SIZES} for i in (-2, -1, -3))
    assert 1 in channels and any(c >= 64 for c in channels) and any(c % 8 for c in channels - {1})
    assert any(f % 16 == 0 for f in features) and any(f % 8 for f in features) and 8 in features
    assert any(w > 14 and w % 14 for w in widths)


@pytest.mark.slow
@needs_compiler
def test_the_c_file_has_no_warnings(tmp_path: Path) -> None:
    source = Path(direct.__file__).with_name("direct.c")
    command = ["cc", *direct.FLAGS, "-Wall", "-Wextra", "-Werror", f"-I{jax.ffi.include_dir()}"]
    for march in ("native", "x86-64-v3"):
        more = [f"-march={march}", "-o", str(tmp_path / "made.so"), str(source)]
        done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_known_json_has_it_first() -> None:
    entries = json.loads(Path(choice.__file__).with_name("known.json").read_text())
    assert next(e["lowering"] for e in entries if e["device"] == "cpu") == "direct"
