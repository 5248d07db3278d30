"""3x3 and 3x3x3 convolution and its kernel's gradient by our own loops (`direct.c`), compiled for this processor.

XLA:CPU's own convolution takes many times as long, oneDNN's, which jaxlib holds, is made for many channels, and neither
has the kernel's gradient (benchmarks/conv_lowering.py has the figures). The C file is compiled once for a processor,
compiler and jaxlib, kept beside the compiled programs, and registered by XLA's interface for foreign functions, so that
programs with it can be kept, too. Where there is no C compiler, other forms are taken.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np

from tlseg_jax.runtime.compilation_cache import default_folder
from tlseg_jax.runtime.messages import log

DTYPES = frozenset(("float32", "bfloat16"))
"""Of what is taken; sums are float32."""

FLAGS = (
    # What is not of -O3 here: both rearrange sums that are to stay in registers.
    *("-std=gnu11", "-O2", "-fno-tree-pre", "-fno-predictive-commoning", "-ffp-contract=fast", "-march=native"),
    *("-shared", "-fPIC"),
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
    """
    return _called("tlseg_convolve", jax.ShapeDtypeStruct((*x.shape[:-1], kernel.shape[-1]), x.dtype), x, kernel)


def kernel_gradient(x: jax.Array, g: jax.Array) -> jax.Array:
    """Gradient of the sum of `g` times `convolve(x, kernel)` with respect to `kernel`.

    Args:
      x: (batch, *sides, channels), the convolution's input, float32 or bfloat16.
      g: (batch, *sides, features), the gradient of its output, of the type of `x`.

    Returns:
      (*3, channels, features), float32.
    """
    shape = (*(3,) * (x.ndim - 2), x.shape[-1], g.shape[-1])
    return _called("tlseg_kernel_gradient", jax.ShapeDtypeStruct(shape, jnp.float32), x, g)


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
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return "there is no C compiler (cc, gcc or clang)"
    try:
        library = ctypes.CDLL(str(_compiled(compiler)))
        functions = {name: jax.ffi.pycapsule(getattr(library, name)) for name in _FUNCTIONS}
    except subprocess.CalledProcessError as e:
        return f"{compiler} does not compile it ({(e.stderr.strip().splitlines() or ['no word'])[0][:200]})"
    except (OSError, RuntimeError, AttributeError, subprocess.TimeoutExpired) as e:
        return f"it cannot be compiled here ({e})"
    for name, function in functions.items():
        jax.ffi.register_ffi_target(name, function, platform="cpu")
    return ""


def _compiled(compiler: str) -> Path:
    """The library, from the cache folder or made now."""
    source = resources.files(__package__).joinpath("direct.c").read_bytes()
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=PATIENCE).stdout
    processor = next(s for s in Path("/proc/cpuinfo").read_text("utf-8").splitlines() if s.startswith("flags"))
    parts = (source, version, processor.encode(), jaxlib.__version__.encode(), " ".join(FLAGS).encode())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    folder = default_folder()  # which nobody else can write to
    kept = folder / f"direct-{key}.so"
    if kept.exists():
        return kept
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    log.info("note: convolutions are compiled for this processor, once.")
    # In the folder itself, so that it is renamed in one go: other processes may be doing the same.
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        code, made = Path(beside) / "direct.c", Path(beside) / kept.name
        code.write_bytes(source)
        command = [compiler, *FLAGS, f"-I{jax.ffi.include_dir()}", "-o", str(made), str(code)]
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
        ctypes.CDLL(str(made))  # before it is kept: a file that cannot be loaded is not
        made.replace(kept)
    return kept
