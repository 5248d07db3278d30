"""From what is there to a scored model: makes the cohort, the stores and the pre-trained model that are missing."""

import contextlib
import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.checkpoints.run_folder import hold_run, holds, read_json
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.evaluate.results import format_summary, keep_results
from tlseg_jax.evaluate.run_curves import read_curves
from tlseg_jax.figures.loss_curves import draw_own_curves
from tlseg_jax.models.networks import count_parameters
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime import elsewhere, processes
from tlseg_jax.runtime.files import write_json
from tlseg_jax.runtime.messages import log
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.studies.assess import assess, is_scored, mark_of, scored_names, title_of
from tlseg_jax.studies.before import assess_start, compared
from tlseg_jax.studies.jobs import check_precision
from tlseg_jax.studies.workplace import Workplace, lacks_unseen, open_store
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.history import forget_test_losses, format_epochs
from tlseg_jax.train.job import check_tests, train_job
from tlseg_jax.train.job_record import store_digest
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.shared_model import load_shared_model
from tlseg_jax.transfer.freeze import get_rules, label_parameters, split_parameters
from tlseg_jax.transfer.restore import fresh_parameters

UNSEEN = "oas_c"
"""The paper's generalisation set (section 2.3)."""


def own_tests(store: AnyStore) -> list[AnyStore]:
    """The data set itself, where it has a test split."""
    if store.subjects("test"):
        return [store]
    log.info(f"{store.spec.name}: no test subjects, so nothing is scored on it.")
    return []


def unseen_tests(place: Workplace, store: AnyStore) -> list[AnyStore]:
    """OAS-C (section 2.3), where it is another data set than the task's and shows the same structure."""
    spec = PAPERS[UNSEEN]
    ours = store.spec
    if ours.name == UNSEEN or (ours.kind, ours.structures) != (spec.kind, spec.structures):
        return []
    if lacks_unseen(place, UNSEEN):
        return []
    other = open_store(place, spec)
    if not other.subjects("test"):
        log.info(f"{UNSEEN}: it has no test subjects, so generalisation is not measured.")
        return []
    return [other]


def train_and_assess(
    place: Workplace,
    store: AnyStore,
    job: JobSettings,
    folder: Path,
    start: Pretrained | None,
    tests: Sequence[AnyStore],
    execution: Execution,
    *,
    programs: Programs | None = None,
    figures: bool = True,
    trained_seconds: float | None = None,
    start_too: bool = False,
) -> Path:
    """Train one model into `folder`, or go on from what is there, and score it on each of `tests`.

    Args:
      folder: the run folder, which is held meanwhile; of several processes the chief alone reads and writes it.
      start: the pre-trained model; None trains end to end.
      tests: prepared data sets whose test subjects are scored.
      execution: what changes the run's speed and memory, or has it told only.
      programs: compiled steps, shared with other runs.
      figures: whether to draw the run's own figures.
      trained_seconds: what the training took, where it was done before this call.
      start_too: whether to score the start, too, where it segments what the tests show (`before`).

    Returns:
      The run folder.

    Raises:
      InputError: see `train_job`; or a test set cannot be scored, or holds scans that the model will have seen.
    """
    check_tests(store, job, start, tests)
    if not execution.dry_run and not is_finished(folder, 1):
        check_precision(job)
    # A dry run leaves no folder behind.
    with contextlib.nullcontext() if execution.dry_run else hold_run(folder):
        if job.epochs and not execution.dry_run:
            processes.chief(lambda: _watched_first(store, folder))
        began = time.perf_counter()
        result = train_job(store, job, folder, start, execution=execution, programs=programs, progress=place.progress)
        seconds = time.perf_counter() - began if trained_seconds is None else trained_seconds
        if execution.dry_run:
            log.info(f"dry run: nothing was written; the run would be in {folder}.")
            return folder
        if job.epochs and not processes.chief(lambda: _watched_still(store, folder)):
            result = dataclasses.replace(result, epochs=[r | {"test_loss": ""} for r in result.epochs])
        saved = load_shared_model(folder)
        d = saved.description
        there = processes.chief(lambda: _kept_summary(folder, saved.weights))
        summary: dict[str, Any] = {
            "task": d["task"],
            "pretask": d["pretask"],
            "n": d["n"],
            "seed": job.seed,
            "network": job.network.name,
            "freeze": job.freeze,
            "recipe": job.recipe.name,
            "steps": int(result.state.step),
            "model_step": saved.step,
            "weights": saved.weights,
            "stopped_by": result.stopped,
            "synthetic": d["synthetic"],
            # What `evaluate` added stays, where it is of this very model.
            "test_sets": there.get("test_sets", {}),
            # With compiling and saving; a call that only found the run finished adds nothing.
            "train_seconds": round(there.get("train_seconds", seconds), 3),
        }
        fresh = fresh_parameters(start.saved, job.network, job.head) if start else frozenset()
        labels = label_parameters(saved.params, get_rules(job.freeze), fresh)
        summary |= {
            "untested": not tests,
            "parameters": count_parameters(saved.params),
            "trained_parameters": count_parameters(split_parameters(saved.params, labels)[0]),
        }
        processes.chief(lambda: write_json(folder / "summary.json", summary))
        for test in tests:
            assess(folder, saved, test, **place.scoring, progress=place.progress, figures=figures)
        before = assess_start(folder, start, tests, place) if start and start_too else {}
        if figures and processes.is_chief():
            path, mark = folder / "figures" / "learning_curve.png", mark_of(d["synthetic"])
            draw_own_curves([read_curves(folder)], path, heading=title_of(d), mark=mark)
    if result.epochs:
        log.info(format_epochs(result.epochs))
    scores = processes.chief(lambda: read_json(folder / "summary.json")["test_sets"])
    if scores:
        log.info(format_summary(scores))
    if said := compared(before, scores, tests):
        log.info(said)
    if d["synthetic"]:
        log.info("These are drawn, not scanned: the scores mean nothing for patients.")
    log.info(f"run: {folder}")
    return folder


_WATCHED = "watched.json"
"""In a run's folder: which test slices the losses beside training are of."""


def _watched_first(store: AnyStore, folder: Path) -> None:
    if not (folder / "settings.json").exists():  # a new run
        write_json(folder / _WATCHED, {"data": store_digest(store, store.subjects("test"))})


def _watched_still(store: AnyStore, folder: Path) -> bool:
    """Whether the losses beside training are of the test slices that are there now; those of others go.

    The states that they were measured in are gone, so they cannot be measured again.
    """
    path, now = folder / _WATCHED, store_digest(store, store.subjects("test"))
    before = read_json(path).get("data") if path.exists() else None
    if before is None and (folder / "summary.json").exists():  # of before that was kept
        before = read_json(folder / "summary.json").get("test_sets", {}).get(scored_names(store)[0], {}).get("data")
    if before == now:
        return True
    gone = before is not None and forget_test_losses(folder)
    if gone:
        log.info(
            f"{folder}: the test losses beside training were of other scans of {store.spec.name} than are there now, "
            "and are left out: train anew, in another `workdir`, to have them."
        )
    write_json(path, {"data": now})
    return not gone


def _kept_summary(folder: Path, weights: str) -> dict[str, Any]:
    """What a run's summary holds already of its model; scores of an earlier state of it go."""
    path = folder / "summary.json"
    there = read_json(path) if path.exists() else {}
    sets = there.get("test_sets", {})
    kept = {name: entry for name, entry in sets.items() if entry.get("weights") == weights}
    keep_results(folder, kept)
    if len(kept) < len(sets):
        gone = ", ".join(name for name in sets if name not in kept)
        log.info(f"{folder}: the scores on {gone} were of another state of the model and are left out.")
    return (there if there.get("weights") == weights else {}) | {"test_sets": kept}


def is_finished(run: Path, steps: int) -> bool:
    """Whether a run folder holds a model that has trained for `steps`, or stopped early, and was scored."""
    elsewhere.current().fetch(run)
    if not (run / "summary.json").exists():
        return False
    summary = read_json(run / "summary.json")
    scored = bool(summary["test_sets"]) or summary.get("untested", False)
    return scored and (summary.get("steps", 0) >= steps or summary.get("stopped_by") == "patience")


def is_done(place: Workplace, folder: Path, settings: Mapping[str, Any], tests: Sequence[AnyStore]) -> bool:
    """Whether a folder holds this very run (`run_settings`), finished, with scores on all of `tests` as they are now.

    Raises:
      InputError: a file there is damaged.
    """
    if not is_finished(folder, 1) or not holds(folder, settings):
        return False
    return all(is_scored(folder, t, **place.scoring) for t in tests)
