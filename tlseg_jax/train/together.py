"""Several runs of one program trained at once, each a lane of `jax.vmap`: for networks too small to fill the device."""

import dataclasses
import statistics
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from tlseg_jax.checkpoints.checkpoint import Checkpoints
from tlseg_jax.runtime import signals
from tlseg_jax.runtime.errors import InputError, Preempted
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.messages import quiet
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.dry_run import random_batch
from tlseg_jax.train.history import History
from tlseg_jax.train.run import Run, claim_run

MEASURED = 5
"""Steps that are timed, after one that waits for the compiler."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Stacked:
    """The caches of several runs, with a leading axis for them."""

    arrays: Any
    gather: Any


def why_not_together(run: Run) -> str | None:
    """Why a run cannot be trained with others, as words; None where it can."""
    if run.validating:
        return "it validates while training"
    if run.length.epoch_ends:
        return "it counts in epochs"
    if (run.folder / "checkpoints").is_dir() and any((run.folder / "checkpoints").iterdir()):
        return "it has begun"
    return None


def fit_together(runs: Sequence[Run], programs: Programs, most: int = 1) -> list[InputError | None]:
    """Train runs that share a program, from their first steps to their last.

    The results are those of single runs up to rounding. Nothing is saved before the end, so that a group that is
    interrupted begins again.

    Args:
      runs: of one `Run.key`, on as many scans each; `why_not_together` is None for all.
      programs: where the compiled program is kept.
      most: steps in a call.

    Returns:
      For each run None, or what its training failed of; the others are finished all the same.

    Raises:
      ValueError: the runs do not share a program.
      InputError: a run folder holds a run of other settings.
      Preempted: a signal asked for it; nothing of these runs is saved.
    """
    _check_same(runs)
    for run in runs:
        with lock_folder(run.folder), quiet():
            claim_run(run)
    steps = runs[0].length.steps
    dispatch = Dispatch(runs[0].steps, most, _stack_caches(runs), programs, runs=len(runs))
    state = _stack([run.state for run in runs])
    losses: list[jax.Array] = []
    norms: list[jax.Array] = []
    done = 0
    while done < steps:
        count = dispatch.length(steps - done, done)
        batches = [_join([next(run.batches) for run in runs]) for _ in range(count)]
        state, metrics = dispatch(state, batches, done)
        done += count
        losses.append(jnp.reshape(metrics["loss"], (count, len(runs))))
        norms.append(jnp.reshape(metrics["update_norm"], (count, len(runs))))
        if signals.asked():  # a signal reaches the main thread only, and this may be another
            raise Preempted(
                f"Stopped by {signals.asked_by()} after step {done} of {steps} of {len(runs)} runs at once, which are "
                "not saved before their end: run the same command again, and they begin again."
            )
    by_step, updates = (np.concatenate([np.asarray(v) for v in values]) for values in (losses, norms))
    return [
        _finish(run, jax.tree.map(lambda a, i=i: a[i], state), by_step[:, i], updates[:, i])  # type: ignore[misc]
        for i, run in enumerate(runs)
    ]


def seconds_a_step(runs: Sequence[Run], programs: Programs) -> float:
    """Median seconds of a step of these runs together, on random data; the runs stay as they were."""
    _check_same(runs)
    batches = [random_batch(run.maker.batch, i) for i, run in enumerate(runs)]
    if len(runs) == 1:  # as it is trained alone, which is not a lane of one
        dispatch = Dispatch(runs[0].steps, 1, None, programs)
        state, batch = jax.tree.map(jnp.array, runs[0].state), batches[0]
    else:
        dispatch = Dispatch(runs[0].steps, 1, None, programs, runs=len(runs))
        state, batch = _stack([run.state for run in runs]), _stack(batches)
    state, _ = jax.block_until_ready(dispatch(state, [batch]))
    times = []
    for _ in range(MEASURED):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(dispatch(state, [batch]))
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def _check_same(runs: Sequence[Run]) -> None:
    if len({run.key for run in runs}) != 1:
        raise ValueError("runs of several programs cannot be trained together")


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(v) for v in leaves]), *trees)


def _join(batches: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {k: np.stack([b[k] for b in batches]) for k in batches[0]}


def _stack_caches(runs: Sequence[Run]) -> _Stacked | None:
    caches = [run.cache() for run in runs]
    if caches[0] is None:
        return None
    return _Stacked(_stack([c.arrays for c in caches if c]), caches[0].gather)


def _finish(run: Run, state: Any, losses: Any, updates: Any) -> InputError | None:
    """Write a run's losses and its model."""
    finite = np.isfinite(losses) & np.isfinite(updates)
    with lock_folder(run.folder):
        history = History(run.folder / "history.csv", 0)
        for i, loss in enumerate(losses[: len(losses) if finite.all() else int(finite.argmin())]):
            history.add(i + 1, "loss", float(loss))
        history.close()
        if not finite.all():
            step = int(finite.argmin()) + 1
            return InputError(
                f"The loss or the update became not finite at step {step}: lower the learning_rate; nothing was saved "
                f"in {run.folder}."
            )
        with Checkpoints(run.folder / "checkpoints") as checkpoints:
            checkpoints.save(state, run.batches, run.description)
    return None
