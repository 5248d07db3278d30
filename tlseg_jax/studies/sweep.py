"""Running a study: pre-trainings first, each once, then every cell that is not done, and results.csv after each."""

import concurrent.futures
import contextlib
import dataclasses
import shutil
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
from tqdm import tqdm

from tlseg_jax.checkpoints.run_folder import holds, read_json
from tlseg_jax.evaluate.results import IN_PERSON
from tlseg_jax.evaluate.tta import averaged_words
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder, write_json
from tlseg_jax.runtime.messages import log, quiet
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.studies.assess import scored_names, sets_of
from tlseg_jax.studies.cells import (
    Cell,
    DoneCell,
    PretrainCell,
    cell_job,
    cells_of,
    folder_of,
    pretraining_of,
    rows_of,
    write_results,
)
from tlseg_jax.studies.data import StudyData, open_data
from tlseg_jax.studies.group import Group, Member, group_cells, train_group
from tlseg_jax.studies.results_table import ALL, PRETRAINING_DATA, Role
from tlseg_jax.studies.runs import is_done, is_finished, train_and_assess
from tlseg_jax.studies.settings import Precision
from tlseg_jax.studies.study import REMEDIES, Study
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import run_settings
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained


@dataclasses.dataclass(frozen=True, eq=False)
class Swept:
    """What a call came to.

    Attributes:
      folder: of the sweep.
      done: finished cells, of earlier calls too.
      failed: cell -> why.
      seconds: of this call's training and scoring.
    """

    folder: Path
    done: tuple[DoneCell, ...]
    failed: dict[str, str]
    seconds: float


class Sweep:
    """A study with its data, and which of its cells are done."""

    def __init__(self, place: Workplace, study: Study, precision: Precision = "float32") -> None:
        """Open the data of `study`; the built-in cohort is made where it is missing.

        Raises:
          InputError: see `open_data`; no n is within the data; a setting is not usable.
        """
        place = dataclasses.replace(
            place,
            cohort_spacing=study.cohort_spacing or place.cohort_spacing,
            cohort_train=place.cohort_train or study.cohort_train,
            cohort_test=place.cohort_test or study.cohort_test,
            label_maps=Path(study.label_maps) if study.label_maps else place.label_maps,
        )
        self.place, self.precision = place, precision
        self.folder = place.workdir / "sweep" / study.name
        self.data: StudyData = open_data(place, study)
        self.study = _within(study, self.data)
        self.cells = cells_of(self.study)
        self._records: dict[Path, dict[str, Any]] = {}
        self.pretrainings = tuple(dict.fromkeys(p for c in self.cells if (p := pretraining_of(c))))

    @property
    def runs(self) -> tuple[Cell | PretrainCell, ...]:
        """Every pre-training, then every cell."""
        return (*self.pretrainings, *self.cells)

    def job(self, cell: Cell | PretrainCell) -> JobSettings:
        """The settings of a cell or a pre-training."""
        store = self.data.target if isinstance(cell, Cell) else self.data.pretasks[cell.pretask]
        return cell_job(self.study, cell, self.place, store.spec, self.precision)

    def place_of(self, cell: Cell | PretrainCell) -> Workplace:
        """Where a cell works, and how it is scored."""
        if isinstance(cell, PretrainCell):
            return dataclasses.replace(self.place, adabn=0.0)
        own = REMEDIES[cell.method.remedy].adabn if cell.method.remedy else 0.0
        return dataclasses.replace(self.place, adabn=own or self.place.adabn)

    def store(self, cell: Cell | PretrainCell) -> AnyStore:
        """The data that a cell or a pre-training trains on."""
        return self.data.of_cell(cell) if isinstance(cell, Cell) else self.data.of_pretraining(cell)

    def tests(self, cell: Cell | PretrainCell) -> tuple[AnyStore, ...]:
        """What it is scored on."""
        if isinstance(cell, Cell):
            return self.data.tests_of_cell(cell)
        store = self.store(cell)
        return (store,) if store.subjects("test") else ()

    def start(self, cell: Cell | PretrainCell) -> Path | None:
        """The run, or the model made from one, that a cell starts from."""
        if not isinstance(cell, Cell):
            return None
        if cell.method.pretrained:
            return Path(cell.method.pretrained)
        first = pretraining_of(cell)
        return folder_of(self.folder, first) if first else None

    def is_done(self, cell: Cell | PretrainCell) -> bool:
        """Whether the folder holds this very run, finished, and scored on the test sets as they are, its masks too."""
        folder, tests, start = folder_of(self.folder, cell), self.tests(cell), self.start(cell)
        if isinstance(cell, Cell) and (first := pretraining_of(cell)) and not self._trained(first):
            return False
        settings = run_settings(self.store(cell), self.job(cell), self._record(start) if start else None)
        if not is_done(self.place_of(cell), folder, settings, tests):
            return False
        return all((folder / "predictions" / f"{n}.npz").exists() for t in tests for n in sets_of(folder, t))

    def _trained(self, first: PretrainCell) -> bool:
        """Whether a pre-training's folder holds it, trained; it may have to be scored again."""
        folder = folder_of(self.folder, first)
        return is_finished(folder, 1) and holds(folder, run_settings(self.store(first), self.job(first), None))

    def _record(self, start: Path) -> dict[str, Any]:
        """What cells keep of the finished model that they start from; read once."""
        if start not in self._records:
            self._records[start] = Pretrained.load(start).record
        return self._records[start]

    def member(self, cell: Cell | PretrainCell) -> Member:
        """A cell with all that its training needs."""
        start = self.start(cell)
        model = Pretrained.load(start) if start else None
        return Member(cell, self.store(cell), self.job(cell), folder_of(self.folder, cell), model)

    def trained_alike(self, cell: Cell | PretrainCell) -> Cell | None:
        """The cell whose training is this one's, too: a remedy that only scores otherwise takes its baseline's."""
        if not isinstance(cell, Cell) or not cell.method.baseline:
            return None
        method = next((m for m in self.study.methods if m.name == cell.method.baseline), None)
        other = dataclasses.replace(cell, method=method) if method else None
        return other if other and self.job(other) == self.job(cell) else None

    def done_cell(self, cell: Cell | PretrainCell) -> DoneCell:
        """A finished cell as results.csv needs it."""
        folder = folder_of(self.folder, cell)
        roles: dict[str, Role]
        if isinstance(cell, Cell):
            roles = self.data.roles_of_cell(cell)
        else:
            roles = dict.fromkeys(scored_names(self.store(cell)), "pretask")
        return DoneCell(cell, folder, int(read_json(folder / "summary.json")["n"]), self.job(cell).freeze, roles)

    def left_out(self) -> list[str]:
        """Cells of the folder that other calls asked for, by name."""
        ours = {c.name for c in self.cells}
        folder = self.folder / "cells"
        return sorted(p.name for p in folder.iterdir() if p.name not in ours) if folder.exists() else []

    def run(self, execution: Execution, *, devices: Sequence[Any] = (), together: int | None = 1) -> Swept:
        """Run all that is not done. A cell that fails is told and kept in mind, and the rest go on.

        Args:
          execution: how each run is executed.
          devices: on which to run cells at the same time; none given: the first.
          together: cells of one program that train in one; None measures what is fastest.
        """
        with lock_folder(self.folder):
            return _Runner(self, execution, devices or jax.local_devices()[:1], together).run()


class _Runner:
    def __init__(self, sweep: Sweep, execution: Execution, devices: Sequence[Any], together: int | None) -> None:
        self.sweep, self.execution, self.devices, self.together = sweep, execution, devices, together
        self.programs = {d: Programs() for d in devices}
        self.failed: dict[str, str] = {}
        self.done: dict[Cell | PretrainCell, DoneCell] = {}
        self.lock = threading.Lock()
        self.began = time.perf_counter()
        path = sweep.folder / "study.json"
        self.before = float(read_json(path).get("seconds", 0)) if path.exists() else 0.0

    def run(self) -> Swept:
        s = self.sweep
        todo: list[Cell | PretrainCell] = []
        for cell in s.runs:
            if s.is_done(cell):
                self.done[cell] = s.done_cell(cell)
            else:
                todo.append(cell)
        if self.done:
            log.info(f"{s.study.name}: {len(self.done)} of {len(s.runs)} runs are done already.")
        self._write()
        first: list[Group] = [(p,) for p in todo if isinstance(p, PretrainCell)]
        bar = tqdm(total=len(todo), desc=s.study.name, unit="cell", disable=not s.place.progress, smoothing=0.1)
        with bar:
            self._all(first, bar)
            ready: list[Cell] = []
            for cell in (c for c in todo if isinstance(c, Cell)):
                start = pretraining_of(cell)
                if start and start.name in self.failed:
                    self._fail(cell, f"its pre-training {start.name} failed")
                    bar.update()
                else:
                    ready.append(cell)
            alike = [c for c in ready if s.trained_alike(c)]
            trained = [c for c in ready if c not in alike]
            self._all(group_cells(trained, s, self.together, self.devices[0], self.execution), bar)
            self._all([(c,) for c in alike], bar)
        return Swept(s.folder, tuple(self.done.values()), self.failed, time.perf_counter() - self.began)

    def _all(self, groups: Sequence[Group], bar: "tqdm[Any]") -> None:
        """Every group, as many at once as there are devices."""
        free: list[Any] = list(self.devices)

        def work(group: Group) -> None:
            with self._device(free) as device:
                self._group(group, device)
            with self.lock:
                bar.update(len(group))

        if len(self.devices) == 1:  # here, where an interruption reaches it at once
            for group in groups:
                work(group)
            return
        stop = threading.Event()

        def unless_stopped(group: Group) -> None:
            if not stop.is_set():
                work(group)

        with concurrent.futures.ThreadPoolExecutor(len(self.devices)) as pool:
            futures = [pool.submit(unless_stopped, g) for g in groups]
            try:
                for future in concurrent.futures.as_completed(futures):
                    future.result()
            except BaseException:
                stop.set()
                log.info("stopping: the cells under way are finished first.")
                raise

    @contextlib.contextmanager
    def _device(self, free: list[Any]) -> Iterator[Any]:
        with self.lock:
            device = free.pop()
        try:
            with jax.default_device(device):
                yield device
        finally:
            with self.lock:
                free.append(device)

    def _group(self, group: Group, device: Any) -> None:
        s, programs = self.sweep, self.programs[device]
        # Bars of several cells at once would write over each other.
        progress = s.place.progress and len(self.devices) == 1
        before = time.perf_counter()
        shares: dict[Any, float] = {}
        if len(group) > 1:
            faults, shares = train_group([s.member(c) for c in group], self.execution, programs)
            for cell, fault in faults.items():
                self._fail(cell, fault)
        for cell in group:
            if cell.name in self.failed:
                continue
            try:
                self._take_training(cell)
                m = s.member(cell)
                with quiet():
                    train_and_assess(
                        dataclasses.replace(s.place_of(cell), progress=progress),
                        m.store,
                        m.job,
                        m.folder,
                        m.start,
                        s.tests(cell),
                        self.execution,
                        programs=programs,
                        figures=False,
                        trained_seconds=shares.get(cell),
                    )
                done = s.done_cell(cell)
            except InputError as e:
                self._fail(cell, str(e))
                continue
            with self.lock:
                self.done[cell] = done
                self._write()
            log.info(_line(done, time.perf_counter() - before))
            before = time.perf_counter()

    def _take_training(self, cell: Cell | PretrainCell) -> None:
        """Put the finished run of a cell that is trained alike in this one's place, where nothing is yet; to score."""
        folder, other = folder_of(self.sweep.folder, cell), self.sweep.trained_alike(cell)
        if other not in self.done or folder.exists():
            return
        part = self.sweep.folder / f".{folder.name}.part"  # a stop leaves no half run under the cell's name
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(self.done[other].folder, part, ignore=shutil.ignore_patterns("predictions", "figures"))
        part.rename(folder)

    def _fail(self, cell: Cell | PretrainCell, reason: str) -> None:
        with self.lock:
            self.failed[cell.name] = reason
            self._write()
        log.warning(f"{cell.name} FAILED: {reason}")

    def _write(self) -> None:
        s = self.sweep
        order = [c for c in s.runs if c in self.done]
        rows = [row for c in order for row in rows_of(s.study.name, self.done[c])]
        write_results(s.folder / "results.csv", rows)
        missing = [c.name for c in s.runs if c not in self.done and c.name not in self.failed]
        seconds = self.before + time.perf_counter() - self.began
        write_json(s.folder / "study.json", describe_study(s, self.failed, missing, seconds))


def describe_study(s: Sweep, failed: dict[str, str], missing: Sequence[str], seconds: float) -> dict[str, Any]:
    """study.json, which `report.study_info.read_study` reads."""
    data, study = s.data, s.study
    stores = [data.target, *data.unseen, *data.pretasks.values()]
    job = s.job(s.cells[0])
    changes = f" with {', '.join(f'{k} = {v}' for k, v in study.recipe_values.items())}" if study.recipe_values else ""
    settings = {
        "network": job.network.name,
        "precision": s.precision,
        "recipe": study.recipe + changes,
        "length": f"{job.steps} steps" if job.steps else f"{job.epochs} epochs",
        "test": f"{study.folds}-fold cross-validation over persons, seed s tests on fold s modulo {study.folds}"
        if study.folds
        else "the prepared test set",
        "target": data.target.where,
    }
    if s.place.tta and data.target.spec.kind == "volumes" and study.recipe != "paper":
        settings["scored"] = averaged_words(data.target.spec)
    if len(data.target.spec.structures) > 1:
        settings["structures"] = data.target.spec.shown
    every = sorted({len(s.store(c).subjects("train")) for c in s.cells if c.n is None})
    if every:
        settings["all"] = " to ".join(str(k) for k in dict.fromkeys((every[0], every[-1]))) + " labelled scans"
    if s.pretrainings:
        first = s.job(s.pretrainings[0])
        settings["pre-training"] = (
            f"{first.steps} steps" if first.steps else f"{first.epochs} epochs"
        ) + ", all training scans, one for each seed"
    if any(x.manifest.get("synthetic") for x in data.pretasks.values()):
        what = "images drawn from label maps of real heads" if study.label_maps else "synthetic scans"
        settings[PRETRAINING_DATA] = f"{what}; scores on them mean nothing for patients"
    return {
        "name": study.name,
        "kind": data.target.spec.kind,
        "task": study.task,
        "unseen": [n for u in data.unseen for n in scored_names(u)],
        "n": [ALL if n is None else n for n in study.n],
        "seeds": study.seeds,
        "folds": study.folds,
        "methods": [
            {
                "name": m.name,
                "pretask": m.pretask,
                "remedy": m.remedy,
                "baseline": m.baseline,
                "freeze": next(s.job(c).freeze for c in s.cells if c.method is m),
                "factors": dict(m.factors),
            }
            for m in study.methods
        ],
        "sections": list(study.sections),
        "titles": dict(study.titles),
        "synthetic": bool(data.target.manifest.get("synthetic", False)),
        **IN_PERSON,
        "settings": settings,
        "stores": {n: elsewhere.current().name(x.folder.absolute()) for x in stores for n in scored_names(x)},
        "exclusions": {x.spec.name: list(x.manifest.get("exclusions", [])) for x in stores},
        "failed": [{"cell": c, "reason": r} for c, r in failed.items()],
        "missing": list(missing),
        "seconds": round(seconds, 1),
    }


def _within(study: Study, data: StudyData) -> Study:
    """The study with the n that there are scans for in every fold."""
    any_method = study.methods[0]
    folds = range(min(study.seeds, study.folds)) if study.folds else (None,)
    most = min(len(data.of_cell(Cell(any_method, None, 0, fold)).subjects("train")) for fold in folds)
    kept = tuple(n for n in study.n if n is None or n <= most)
    left = [str(n) for n in study.n if n is not None and n > most]
    if not kept:
        raise InputError(
            f"The study {study.name} asks for n = {', '.join(left)} and {data.target.where} has {most} scans to train "
            "on: give `n` within that."
        )
    if left:
        log.info(f"n = {', '.join(left)} is left out: there are {most} scans to train on.")
    return dataclasses.replace(study, n=kept)


def _line(done: DoneCell, seconds: float) -> str:
    sets = read_json(done.folder / "summary.json")["test_sets"]
    stores: dict[str, list[float]] = {}  # of several structures their mean: sixteen are no line
    for name in done.roles:
        if name in sets:
            together = sets[name].get("together", [name])
            data_set = name.removesuffix(f"_{sets[name].get('structure')}") if len(together) > 1 else name
            stores.setdefault(data_set, []).append(sets[name]["iou_mean"])
    scores = ", ".join(
        f"{name} {statistics.fmean(each):.3f}" + (f" (mean of {len(each)} structures)" if each[1:] else "")
        for name, each in stores.items()
    )
    return f"{done.cell.name}: IoU {scores}; {seconds:.0f} s"
