"""3x3 and 3x3x3 convolution and its kernel's gradient by our own loops (`direct.c`), compiled for this processor.

XLA:CPU's own convolution takes many times as long, oneDNN's, which jaxlib holds, is made for many channels, and neither
has the kernel's gradient (benchmarks/conv_lowering.py has the figures). The C file is compiled once for a processor,
compiler and jaxlib, kept beside the compiled programs, and registered by XLA's interface for foreign functions, so that
programs with it can be kept, too. Where there is no GCC, other forms are taken: Clang knows not all of the flags, and
without them lets the sums leave the registers, so that a convolution of 8 to 64 channels takes 1.4 to 1.8 times as long
as oneDNN's (Clang 14, AVX-512).
"""

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from tlseg_jax.runtime.compilation_cache import default_folder
from tlseg_jax.runtime.files import flush
from tlseg_jax.runtime.messages import log

DTYPES = frozenset(("float32", "bfloat16"))
"""Of what is taken; sums are float32."""

FLAGS = (
    # What is not of -O3 here: both rearrange sums that are to stay in registers.
    *("-std=gnu11", "-O2", "-fno-tree-pre", "-fno-predictive-commoning", "-ffp-contract=fast", "-march=native"),
    *("-shared", "-fPIC", "-pthread"),
)

PATIENCE = 300
"""Seconds that a compiler has; it needs 5."""

_FUNCTIONS = ("tlseg_convolve", "tlseg_kernel_gradient")


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolution of stride 1 with zero padding by half the kernel, no bias, no gradient of its own.

    Args:
      x: (batch, *sides, channels), two or three sides, float32 or bfloat16.
      kernel: (*3, channels, features), as many threes as sides, of the type of `x`.

    Returns:
      (batch, *sides, features).

    Raises:
      ValueError: the arrays are others.
    """
    _check(x, kernel, (*(3,) * (x.ndim - 2), x.shape[-1], kernel.shape[-1]))
    return _called("tlseg_convolve", jax.ShapeDtypeStruct((*x.shape[:-1], kernel.shape[-1]), x.dtype), x, kernel)


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Gradient of the sum of `g` times `convolve(x, kernel)` with respect to `kernel`.

    Args:
      x: (batch, *sides, channels), the convolution's input, float32 or bfloat16.
      g: (batch, *sides, features), the gradient of its output, of the type of `x`.

    Returns:
      (*3, channels, features), float32.

    Raises:
      ValueError: the arrays are others.
    """
    _check(x, g, (*x.shape[:-1], g.shape[-1]))
    shape = (*(3,) * (x.ndim - 2), x.shape[-1], g.shape[-1])
    return _called("tlseg_kernel_gradient", jax.ShapeDtypeStruct(shape, jnp.float32), x, g)


def _check(x: jax.Array, other: jax.Array, shape: tuple[int, ...]) -> None:
    """Refuse what the C functions, which go by the first array's sizes and type alone, would read or write beyond."""
    if x.ndim not in (4, 5) or other.shape != shape or x.dtype.name not in DTYPES or other.dtype != x.dtype:
        raise ValueError(f"`direct` does not take {x.dtype.name}{x.shape} with {other.dtype.name}{other.shape}")


def _called(name: str, out: jax.ShapeDtypeStruct, *operands: jax.Array) -> jax.Array:
    if lacks := lacking():  # a form that was asked for by its name
        raise RuntimeError(f"The lowering `direct` cannot be used here: {lacks}.")
    call = jax.ffi.ffi_call(name, out, vmap_method="broadcast_all")
    return call(*operands, sides=np.int64(out.ndim - 2))  # type: ignore[no-any-return]


@functools.cache
def lacking() -> str:
    """What this machine lacks for it, in words; "" where it is ready: compiled, now or before, and registered."""
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "AMD64"):
        return "it is for x86-64 Linux"
    try:
        named = shlex.split(os.environ.get("CC", ""))  # as for `make`: it may be "ccache gcc"
        compiler = named or [n for n in ("gcc", "cc") if shutil.which(n)][:1]
        if not compiler:
            return "there is no C compiler (gcc or cc)"
        if shutil.which(compiler[0]) is None:
            return f"there is no {compiler[0]}, the C compiler that CC names"
        library = _library(compiler)
        functions = {name: jax.ffi.pycapsule(getattr(library, name)) for name in _FUNCTIONS}
    except subprocess.CalledProcessError as e:
        told = e.stderr.strip().splitlines() or ["no word"]
        return f"{shlex.join(compiler)} does not compile it ({next((s for s in told if 'error' in s), told[0])[:200]})"
    except (OSError, RuntimeError, ValueError, AttributeError, subprocess.TimeoutExpired) as e:
        other = "; XDG_CACHE_HOME can name another cache folder" if getattr(e, "errno", None) else ""
        return f"it cannot be compiled here ({e}{other})"
    for name, function in functions.items():
        jax.ffi.register_ffi_target(name, function, platform="cpu")
    return ""


def _library(compiler: Sequence[str]) -> ctypes.CDLL:
    """The library, from the cache folder or made now."""
    source = resources.files(__package__).joinpath("direct.c").read_bytes()
    # Which compiler it is and what it takes this processor for; machines may share the folder.
    macros = _output([*compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull])
    if "__clang__" in macros:
        raise ValueError(f"{shlex.join(compiler)} is Clang, whose code is slower than oneDNN's; CC can name GCC")
    parts = (macros, jaxlib.__version__, shlex.join((*compiler, *FLAGS)))
    key = hashlib.sha256(source + "\0".join(parts).encode()).hexdigest()[:16]
    folder = default_folder()  # which nobody else can write to
    kept = folder / f"direct-{key}.so"
    if kept.exists():
        with contextlib.suppress(OSError):  # a damaged one is made anew
            return ctypes.CDLL(str(kept))
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.info("note: convolutions are compiled for this processor, once.")
    # In the folder itself, so that it is renamed in one go: other processes may be doing the same.
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        code, made = Path(beside) / "direct.c", Path(beside) / kept.name
        code.write_bytes(source)
        _output([*compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", "-o", str(made), str(code)])
        library = ctypes.CDLL(str(made))  # before it is kept: a file that cannot be loaded is not
        flush(made)
        made.replace(kept)
    return library


def _output(command: Sequence[str]) -> str:
    how: dict[str, Any] = {"encoding": "utf-8", "errors": "replace", "timeout": PATIENCE}
    return subprocess.run(command, capture_output=True, check=True, **how).stdout  # type: ignore[no-any-return]
