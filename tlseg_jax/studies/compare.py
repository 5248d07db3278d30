"""Models A, B and C of the liver report, trained alike, scored on the target and on what they came from."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tlseg_jax.checkpoints.checkpoint import SavedModel, load_model
from tlseg_jax.checkpoints.run_folder import hold_run, own_folder, read_json
from tlseg_jax.evaluate.run_tables import MODELS
from tlseg_jax.figures.slice_examples import ExampleCase
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies import runs as study
from tlseg_jax.studies.assess import is_scored
from tlseg_jax.studies.assess_slices import assess_slices, example_slice
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import Pretrained, run_settings
from tlseg_jax.train.job_record import labelled_scans, refuse_seen, seen_of
from tlseg_jax.train.job_settings import JobSettings

EXAMPLES = 3
"""Slices to draw (Figs. 11 to 13)."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of the comparison.

    Attributes:
      model: "A", "B" or "C".
      job: its settings.
      folder: its run folder.
      start: the pre-trained model; None for A.
    """

    model: str
    job: JobSettings
    folder: Path
    start: Path | None


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """What the trained models leave for the tables and figures.

    Attributes:
      target: test set of the target task.
      source: test set of the pre-training task on which forgetting is measured; None where it cannot be.
      examples: test slices with the probabilities of the models of the first seed and the largest n.
      synthetic: whether the target's scans are drawn.
    """

    target: str
    source: str | None
    examples: list[ExampleCase]
    synthetic: bool


def own_folders(runs: Sequence[Planned], store: SliceStore, say: Callable[[str], None]) -> list[Planned]:
    """The runs, each in its folder or, where that holds another run, beside it (see `own_folder`)."""
    start = next((r.start for r in runs if r.start), None)
    record = Pretrained.load(start).record if start else None

    def own(run: Planned) -> Planned:
        if run.model != "A" and not run.start:  # which is still to be trained, so there is nothing to compare
            return run
        settings = run_settings(store, run.job, record if run.start else None)
        return dataclasses.replace(run, folder=own_folder(run.folder, settings, say))

    return [own(run) for run in runs]


def train_all(
    place: Workplace, store: SliceStore, source: SliceStore, pretrained: Path, runs: Sequence[Planned],
    execution: Execution = Execution(),  # noqa: B008 - frozen
) -> Compared:  # fmt: skip
    """Train the runs that are not done, and score those that were pre-trained on the pre-task's test set too.

    Args:
      place: where.
      store: the target's data.
      source: the pre-task's data.
      pretrained: what B and C start from.
      runs: what to train.
      execution: what changes the runs' speed and memory.

    Raises:
      InputError: the target has no test volumes, a run is shorter than an epoch, or training fails.
    """
    _check(store, runs)
    target = store.spec.target
    start = Pretrained.load(pretrained)
    forgetting = _forgetting_set(place, store, source, start.saved)
    if forgetting and (pretrained / "summary.json").exists() and not is_scored(pretrained, source):
        place.say(f"{pretrained}: scoring it again, as the test set of {source.spec.name} is another now.")
        with hold_run(pretrained):
            assess_slices(pretrained, start.saved, source, progress=place.progress)
    for i, run in enumerate(runs):
        what = f"[{i + 1}/{len(runs)}] model {run.model}, n = {run.job.n or 'all'}, seed {run.job.seed}"
        if _is_done(place, run, store, start.record):
            place.say(f"{what}: reusing {run.folder}.")
        else:
            place.say(f"{what}:")
            # The settings differ in these three only: shown once, they are not repeated.
            quiet = dataclasses.replace(place, say=place.say if i == 0 else lambda _: None)
            study.finetune(quiet, run.start, store.spec.name, run.job, run.folder, store, execution)
        scores = read_json(run.folder / "summary.json")["test_sets"]
        if forgetting and run.start and not is_scored(run.folder, source):
            assess_slices(run.folder, load_model(run.folder), source, progress=place.progress)
        mean = scores[f"{store.spec.name}_{target}"]
        place.say(f"{what}: Dice {mean['dice_mean']:.3f}, IoU {mean['iou_mean']:.3f}")
    return Compared(
        f"{store.spec.name}_{target}", forgetting, _examples(store, runs), bool(store.manifest.get("synthetic"))
    )


def dry_run(
    place: Workplace, store: SliceStore, pretrained: Path | None, runs: Sequence[Planned], execution: Execution
) -> None:
    """Say which runs are there and which are not, and what one of each model that is not would take.

    Args:
      place: where.
      store: the target's data.
      pretrained: what B and C start from; None where it would be trained first.
      runs: all that the comparison is of.
      execution: with `dry_run`.

    Raises:
      InputError: as `train_all`.
    """
    _check(store, runs)
    record = Pretrained.load(pretrained).record if pretrained else None
    missing = [run for run in runs if not _is_done(place, run, store, record)]
    place.say(f"{len(runs)} runs, of which {len(runs) - len(missing)} are done and would be reused.")
    quiet = dataclasses.replace(place, progress=False)
    for model in MODELS:
        of_model = [run for run in missing if run.model == model]
        if not of_model:
            continue
        run = of_model[0]
        place.say(f"model {model}, {len(of_model)} to train; one of n = {run.job.n or 'all'}:")
        start = run.start if pretrained else None
        study.finetune(quiet, start, store.spec.name, run.job, run.folder, store, execution)


def _check(store: SliceStore, runs: Sequence[Planned]) -> None:
    if not store.subjects("test"):
        raise InputError(
            f"{store.where} has no test volumes to compare models on: prepare it with --test_volumes=K, 1 or more."
        )
    for run in runs:
        _check_whole_epoch(store, run.job)


def _check_whole_epoch(store: SliceStore, job: JobSettings) -> None:
    """Before hours of training: the comparison is by epoch, and a run of a few steps may have none."""
    slices = len(store.samples(labelled_scans(store, job)[0]))
    least = math.ceil(slices / job.recipe.batch_size)
    if job.steps is not None and job.steps < least:
        raise InputError(
            f"--steps={job.steps} of {job.recipe.batch_size} slices is less than one epoch of the {slices} slices of "
            f"{store.spec.name} and models are compared by epoch: give {least} or more, or --epochs."
        )


def _forgetting_set(place: Workplace, store: SliceStore, source: SliceStore, saved: SavedModel) -> str | None:
    target = store.spec.target
    name = f"{source.spec.name}_{target}"
    if not source.subjects("test"):
        place.say(f"{source.spec.name} has no test volumes, so forgetting is not measured.")
        return None
    if target not in source.spec.structures or target not in saved.config.outputs:
        place.say(f"{source.spec.name} or its model does not show {target}, so forgetting is not measured.")
        return None
    description = seen_of([(store, store.subjects("train"))], saved.description)
    refuse_seen(source, description, f"{store.where} or before")
    return name


def _is_done(place: Workplace, run: Planned, store: SliceStore, record: dict[str, Any] | None) -> bool:
    """Whether the folder holds this very run, finished and scored."""
    return study.is_done(place, run.folder, run_settings(store, run.job, record if run.start else None), [store])


def _examples(store: SliceStore, runs: Sequence[Planned]) -> list[ExampleCase]:
    most = max(run.job.n or len(store.subjects("train")) for run in runs)
    chosen = {
        r.model: load_model(r.folder)
        for r in reversed(runs)  # of several seeds the first stays
        if (r.job.n or len(store.subjects("train"))) == most
    }
    models = {m: chosen[m] for m in MODELS if m in chosen}
    subjects = store.subjects("test")[:EXAMPLES]
    return [example_slice(store, s, store.spec.target, s, models) for s in subjects]
