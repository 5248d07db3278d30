"""What a run would take, told without running it: its network, memory and time."""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlseg_jax.models.networks import count_parameters
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.device_memory import format_bytes
from tlseg_jax.train.memory import FitsIn
from tlseg_jax.transfer.freeze import split_parameters

STEPS = 3
"""That are timed, after one that waits for the compiler."""

ENOUGH = 30.0
"""Seconds after which no further step is timed."""


def dry_run_report(
    network: UNetConfig, state: Any, labels: Any, batch: Any, fits: FitsIn, flops: str, steps: int
) -> str:
    """Lines that say what a run would take, from a few steps on random data.

    Args:
      state: the first state; a copy is trained.
      labels: tree of "trained" and "frozen".
      batch: shapes of a batch.
      fits: from `fit_memory`.
      flops: of a step, in words.
    """
    trained, frozen = (count_parameters(p) for p in split_parameters(state.params, labels))
    prediction = fits.prediction
    seconds = step_seconds(fits.program, state, batch)
    one = statistics.median(seconds)
    rows = {
        "network": f"{network.name}, {network.dtype}, remat {prediction.plan.remat}",
        "batch": "x".join(map(str, batch["label"].shape)),
        "parameters": f"{trained + frozen:,}: {trained:,} trained, {frozen:,} frozen",
        "FLOPs a step": flops,
        "memory": f"{format_bytes(prediction.total)} predicted {prediction.source}; {fits.capacity}",
        "kept for backward": f"{format_bytes(prediction.residuals)} by the trace",
        "seconds a step": f"{one:.3g} (median of {len(seconds)} on random data)",
        "the run": f"{steps} steps, {format_duration(one * steps)}, besides reading, validation and scoring",
    }
    width = max(map(len, rows))
    return "\n".join(["dry run:", *(f"  {k:<{width}}  {v}" for k, v in rows.items())])


def step_seconds(step: Any, state: Any, batch: Any) -> list[float]:
    """Seconds of each of a few steps on random data."""
    state = jax.tree.map(jnp.array, state)  # the step gives its state away
    own = jax.tree.map(lambda s: jax.ShapeDtypeStruct((s.shape[0] // processes.count(), *s.shape[1:]), s.dtype), batch)
    data = random_batch(own)
    state, _ = jax.block_until_ready(step(state, data))
    seconds: list[float] = []
    while len(seconds) < STEPS and sum(seconds) < ENOUGH:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, data))
        seconds.append(time.perf_counter() - start)
    return seconds


def random_batch(shapes: Any, seed: int = 0) -> Any:
    """Noise in the shapes and types of a batch: images of mean 0 and deviation 1, labels and regions of 0 and 1."""
    rng = np.random.default_rng(seed)

    def draw(shape: jax.ShapeDtypeStruct) -> Any:
        if np.issubdtype(shape.dtype, np.floating):
            return rng.standard_normal(shape.shape, np.float32).astype(shape.dtype)
        return rng.integers(0, 2, shape.shape).astype(shape.dtype)

    return jax.tree.map(draw, shapes)


def format_duration(seconds: float) -> str:
    """As "about 40 s", "about 12 min" or "about 3.4 h"."""
    if seconds < 100:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 100 * 60 else f"about {seconds / 3600:.1f} h"
