"""What a sweep would do: which cells are done, and the time and memory of the rest, from a few measured steps."""

import dataclasses
import statistics
from typing import Any

import jax

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.runtime.device_memory import format_bytes
from tlseg_jax.runtime.messages import log, quiet
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.studies.cells import Cell, PretrainCell, folder_of, pretraining_of
from tlseg_jax.studies.sweep import Sweep
from tlseg_jax.train.dry_run import format_duration, step_seconds
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.remedies import for_any_start
from tlseg_jax.train.run import Run, prepare_run


@dataclasses.dataclass(frozen=True)
class _Measured:
    """One step of cells of one program."""

    seconds: float
    memory: int
    steps: int


def plan_sweep(sweep: Sweep, execution: Execution, devices: int) -> None:
    """Tell every cell, whether it is done, and the time and memory of the rest on so many devices; trains nothing.

    Raises:
      InputError: settings that no run could be made of.
    """
    programs, measured = Programs(), dict[Any, _Measured]()
    rows, seconds, memory = [], 0.0, 0
    todo = 0
    for cell in sweep.runs:
        if sweep.is_done(cell):
            seconds_taken = read_json(folder_of(sweep.folder, cell) / "summary.json").get("train_seconds", 0.0)
            took = format_duration(seconds_taken).removeprefix("about ")
            rows.append((cell.name, "done", f"took {took}", ""))
            continue
        todo += 1
        alike = sweep.trained_alike(cell)
        if alike and not folder_of(sweep.folder, cell).exists():
            rows.append((cell.name, "to do", "scored", f"by the training of {alike.name}"))
            continue
        found = _measure(sweep, cell, execution, programs, measured)
        seconds += found.seconds * found.steps
        memory = max(memory, found.memory)
        begun = (folder_of(sweep.folder, cell) / "checkpoints").exists()
        length = f"{found.steps} steps of {found.seconds:.3g} s, {format_bytes(found.memory)}"
        took = format_duration(found.seconds * found.steps)
        rows.append((cell.name, "begun" if begun else "to do", took, length))
    widths = [max(len(r[i]) for r in rows) for i in range(3)]
    for row in rows:
        log.info("  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip())
    total = format_duration(seconds / max(devices, 1))
    log.info(
        f"{len(rows)} runs: {len(rows) - todo} done, {todo} to do; {total} of training on {devices} device(s) and "
        f"{format_bytes(memory)} at most a run, besides compiling, reading and scoring. Nothing was trained."
    )


def _measure(
    sweep: Sweep, cell: Cell | PretrainCell, execution: Execution, programs: Programs, measured: dict[Any, _Measured]
) -> _Measured:
    """A step of this cell, timed once for all cells of its program."""
    start = sweep.start(cell)
    first = pretraining_of(cell) if isinstance(cell, Cell) else None
    there = start is not None and (first is None or sweep.is_done(first))
    job = sweep.job(cell)
    if start is not None and not there:
        # Nothing to start from yet: the parts that need it cost next to nothing of a step.
        job = dataclasses.replace(job, recipe=for_any_start(job.recipe))
    with quiet():
        run = prepare_run(
            sweep.store(cell),
            job,
            folder_of(sweep.folder, cell),
            Pretrained.load(start) if there and start else None,
            execution=execution,
            programs=programs,
        )
    if run.key not in measured:
        measured[run.key] = _Measured(statistics.median(_seconds(run)), run.fits.prediction.total, run.length.steps)
    return dataclasses.replace(measured[run.key], steps=run.length.steps)


def _seconds(run: Run) -> list[float]:
    state = jax.tree.map(jax.numpy.array, run.state)
    return step_seconds(run.fits.program, state, run.maker.batch)
