"""What every benchmark shares: timing in turns, ratios with their spread, the machine's own speed, and result files.

Machines here differ and are shared, so a time alone says little. Programs that are compared take turns within
each round, and a ratio is taken round by round: what disturbs the machine then disturbs both sides.
"""

import functools
import importlib.metadata
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

RESULTS = Path("benchmarks/results")
"""Where results go, from the folder that the benchmarks are started in."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "monai")


def alternate(programs: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2) -> dict[str, list[float]]:
    """Time programs in turn.

    Args:
      programs: name -> a callable that returns when its work is done (`jax.block_until_ready`, not just dispatch).
      warmup: rounds before those, untimed; the first compiles.

    Returns:
      name -> seconds of each timed call; equal positions were taken next to each other.
    """
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for number in range(warmup + rounds):
        for name, program in programs.items():
            start = time.perf_counter()
            program()
            taken = time.perf_counter() - start
            if number >= warmup:
                seconds[name].append(taken)
    return seconds


def summary(seconds: Sequence[float]) -> dict[str, float]:
    """Median, 90th percentile and least of some times, in seconds."""
    return {
        "median": float(np.median(seconds)),
        "p90": float(np.percentile(seconds, 90)),
        "least": float(np.min(seconds)),
    }


def ratio(a: Sequence[float], b: Sequence[float]) -> dict[str, float]:
    """a / b of times taken in turn, pair by pair: the median, and as low and high the 10th and 90th percentile."""
    pairs = np.asarray(a, np.float64) / np.asarray(b, np.float64)
    return {
        "median": float(np.median(pairs)),
        "low": float(np.percentile(pairs, 10)),
        "high": float(np.percentile(pairs, 90)),
    }


def _least(program: Callable[[], object], calls: int) -> float:
    """The least seconds of some calls after one to warm up: what the machine can do when left alone."""
    return min(alternate({"": program}, calls, warmup=1)[""])


def matrix_rate(dtype: str = "float32") -> float:
    """FLOP/s of square matrix products through XLA, at its default precision (on newer GPUs TF32 for float32).

    The side doubles from 1024 until eight products, each of the one before, take a quarter of a second, or is 8192.

    Args:
      dtype: of both factors and of the product.
    """
    products, side = 8, 1024

    # A program a product: in one program XLA would leave out the conversions between products.
    product = jax.jit(lambda x, w: jnp.dot(x, w))

    def chain(x: jax.Array, w: jax.Array) -> None:
        for _ in range(products):
            x = product(x, w)
        jax.block_until_ready(x)

    while True:
        # Scaled so that a product is as large as its factor and nothing overflows.
        x = jax.random.normal(jax.random.key(0), (side, side)).astype(dtype)
        w = (jax.random.normal(jax.random.key(1), (side, side)) / side**0.5).astype(dtype)
        seconds = _least(functools.partial(chain, x, w), 4)
        if seconds > 0.25 or side == 8192:
            return products * 2 * side**3 / seconds
        side *= 2


def copy_rate() -> float:
    """Bytes a second that the device's memory moves, read and written together, in one pass over a large array.

    The array is 256 MiB on a CPU and 2 GiB elsewhere, beyond any cache.
    """
    size = 2**26 if jax.default_backend() == "cpu" else 2**29
    # Donated, so that no new pages are asked of the operating system.
    negate = jax.jit(lambda x: -x, donate_argnums=0)
    held = [jnp.zeros(size, jnp.float32)]

    def move() -> None:
        held[0] = jax.block_until_ready(negate(held[0]))

    return 2 * 4 * size / _least(move, 8)


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_name() -> str:
    """The machine in a folder's name: "cpu-2core", "gpu-NVIDIA_H200"."""
    backend = jax.default_backend()
    if backend == "cpu":
        return f"cpu-{cores()}core"
    return f"{backend}-" + re.sub(r"[^A-Za-z0-9.]+", "_", jax.devices()[0].device_kind).strip("_")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _imported() -> list[str]:
    """The distributions that this process has imported something of, this one left out."""
    of = importlib.metadata.packages_distributions()
    # A package without a file, such as nvidia, is shared by many distributions and says nothing of one of them.
    whole = {name for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)}
    names = {name for module in whole if "." not in module for name in of.get(module, ())}
    return sorted(names - {"tlseg-jax", "tlseg_jax"})


def environment() -> dict[str, Any]:
    """Device, cores, load, versions and imported packages, for a result's "environment"."""
    device = jax.devices()[0]
    return {
        "backend": jax.default_backend(),
        "device": device.device_kind,
        "devices": jax.device_count(),
        "cpu": _cpu_model(),
        "cores": cores(),
        "load_average": os.getloadavg()[0],
        "platform": f"{platform.system()} {platform.machine()}",
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "versions": _versions(),
        "imported": _imported(),
    }


def command(part: str) -> str:
    """The command that this process was started with, where it is that of a part; else the part's plain command."""
    plain = f"python -m benchmarks.{part}"
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is None or spec.name != f"benchmarks.{part}":
        return plain
    # Where the file went says nothing of what was measured.
    return shlex.join([*plain.split(), *(a for a in sys.argv[1:] if not a.lstrip("-").startswith("out="))])


def write_result(part: str, result: dict[str, Any], out: str | None = None, quiet: bool = False) -> Path:
    """Write a part's JSON, with "part", "command" and, unless the result brings its own, "environment" before the rest.

    Args:
      part: the benchmark, such as "step_time".
      result: plain values.
      out: the file; None takes benchmarks/results/<machine>/<part>.json.
      quiet: say nothing of it, where more is to come.

    Returns:
      The file, which is whole: it was written beside and renamed.

    Raises:
      InputError: it cannot be written.
    """
    path = Path(out) if out else RESULTS / machine_name() / f"{part}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"part": part, "command": command(part), "environment": environment()} | result)
    except OSError as e:
        raise InputError(f"{path} cannot be written ({e.strerror}): choose another --out.") from None
    if not quiet:
        print(f"written: {path}")
    return path
