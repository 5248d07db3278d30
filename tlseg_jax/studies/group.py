"""Cells of one program that train at once, where that is faster."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import jax

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime.device_memory import device_capacity
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.runtime.messages import log, quiet
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.studies.cells import Cell, PretrainCell, folder_of
from tlseg_jax.studies.jobs import check_precision
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.memory import out_of_memory
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.run import Run, prepare_run
from tlseg_jax.train.together import fit_together, seconds_a_step, why_not_together

CANDIDATES = (2, 4, 8)
"""Cells at once that are tried, as long as each is faster than the one before."""

ROOM = 0.5
"""Share of the device's memory that cells at once may be predicted to take; their data lie there too."""

WORTH = 3000
"""Steps of all cells together, below which the measurement, which compiles a program a number, costs what it gains."""

GAIN = 0.95
"""A larger group is taken where a cell then takes less than this of its time."""


Group = tuple[Cell | PretrainCell, ...]
"""Cells that train at once; most often one."""


@dataclasses.dataclass(frozen=True, eq=False)
class Member:
    """A cell with all that its training needs."""

    cell: Cell | PretrainCell
    store: AnyStore
    job: JobSettings
    folder: Path
    start: Pretrained | None

    def run(self, execution: Execution, programs: Programs) -> Run:
        """Its training, ready for the first step."""
        with quiet():
            return prepare_run(self.store, self.job, self.folder, self.start, execution=execution, programs=programs)


class Jobs(Protocol):
    """The cells' settings, and what it takes to train one."""

    @property
    def folder(self) -> Path:
        """Of the sweep."""

    def job(self, cell: Cell | PretrainCell) -> JobSettings:
        """The settings of a cell."""

    def member(self, cell: Cell) -> "Member":
        """A cell ready to train."""


def group_cells(
    cells: Sequence[Cell], sweep: Jobs, together: int | None, device: Any, execution: Execution
) -> list[tuple[Cell, ...]]:
    """Cells in groups of up to `together`, in their order; None measures how many are fastest."""
    if together == 1:
        return [(c,) for c in cells]
    alike: dict[Any, list[Cell]] = {}
    for cell in cells:
        alike.setdefault(_shape(sweep, cell), []).append(cell)
    steps: dict[str, int] = {}
    for own in alike.values():
        key = _program_name(sweep, own[0], device)
        steps[key] = steps.get(key, 0) + len(own) * (sweep.job(own[0]).steps or 0)
    sizes: dict[Any, int] = {}
    for shape, own in alike.items():
        if shape is None or len(own) == 1:
            sizes[shape] = 1
        elif together is not None:
            sizes[shape] = together
        elif steps[_program_name(sweep, own[0], device)] < WORTH:
            sizes[shape] = 1
        else:
            sizes[shape] = _fastest(sweep, own, device, execution)
    groups: list[tuple[Cell, ...]] = [
        tuple(own[i : i + sizes[shape]]) for shape, own in alike.items() for i in range(0, len(own), sizes[shape])
    ]
    place = {c: i for i, c in enumerate(cells)}
    return sorted(groups, key=lambda g: place[g[0]])


def train_group(
    members: Sequence[Member], execution: Execution, programs: Programs
) -> tuple[dict[Any, str], dict[Any, float]]:
    """Train the cells at once.

    Returns:
      Cell -> what it failed of, and cell -> its share of the seconds. A cell that could not be taken along is in
      neither and is left to be trained alone.
    """
    start = time.perf_counter()
    failed: dict[Any, str] = {}
    runs: list[tuple[Any, Run]] = []
    for m in members:
        try:
            check_precision(m.job)
            run = m.run(execution, programs)
        except InputError as e:
            failed[m.cell] = str(e)
            continue
        if why_not_together(run) is None:
            runs.append((m.cell, run))
    if len(runs) > 1:
        try:
            faults = fit_together([r for _, r in runs], programs, execution.steps_per_call)
        except InputError:
            # A folder is in the way: it is found again, and named, when each cell is trained alone.
            return failed, {}
        except Exception as error:
            if not out_of_memory(error):
                raise
            fault = f"{len(runs)} cells at once do not fit into the device's memory: give a smaller `together`."
            return failed | {cell: fault for cell, _ in runs}, {}
        failed |= {cell: str(f) for (cell, _), f in zip(runs, faults, strict=True) if f is not None}
    share = (time.perf_counter() - start) / max(len(runs), 1)
    return failed, {cell: share for cell, _ in runs if cell not in failed and len(runs) > 1}


def _program_name(sweep: Jobs, cell: Cell, device: Any) -> str:
    """What a measurement holds for, in words."""
    job = sweep.job(cell)
    parts = [job.network.name, job.network.dtype, f"freeze {job.freeze}", job.recipe.unfreezing]
    if job.recipe.mix_synthetic:  # of which runs at once draw every sample
        parts.append("mixed")
    return f"{device.device_kind}: {', '.join(parts)}"


def _shape(sweep: Jobs, cell: Cell) -> Any:
    """What cells must have in common to train at once; None for one that trains alone."""
    job = sweep.job(cell)
    # What counts in epochs measures test losses between steps.
    if job.epochs or job.validation or (folder_of(sweep.folder, cell) / "checkpoints").exists():
        return None
    return dataclasses.replace(job, seed=0)


def _fastest(sweep: Jobs, cells: Sequence[Cell], device: Any, execution: Execution) -> int:
    """How many of these cells to train at once, by a few steps of each number; remembered in the sweep's folder."""
    path = sweep.folder / "together.json"
    kept: dict[str, Any] = read_json(path) if path.exists() else {}
    key = _program_name(sweep, cells[0], device)
    if key not in kept:
        log.info("measuring how many cells train fastest at once, once for this study (`together=1` does without).")
        programs = Programs()
        members = [sweep.member(cell) for cell in cells[: max(CANDIDATES)]]
        with jax.default_device(device):
            runs = [m.run(execution, programs) for m in members]
            best, times = 1, {"1": seconds_a_step(runs[:1], programs)}
            for size in CANDIDATES:
                if size > len(runs) or size * runs[0].fits.prediction.total > ROOM * device_capacity().bytes:
                    break
                times[str(size)] = seconds_a_step(runs[:size], programs) / size
                if times[str(size)] > GAIN * times[str(best)]:
                    break
                best = size
        kept[key] = {"together": best, "seconds a step and cell": times}
        write_json(path, kept)
        found = ", ".join(f"{k}: {v:.3g} s" for k, v in times.items())
        log.info(f"cells at once ({key}): {best}, as a step of a cell takes ({found}).")
    return int(kept[key]["together"])
