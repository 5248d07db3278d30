"""From what is there to a scored model: makes the cohort, the stores and the pre-trained model that are missing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.cohort import write_cohort
from tlseg_jax.datasets.spec import PAPER_SPECS, DatasetSpec, get_spec
from tlseg_jax.errors import InputError
from tlseg_jax.evaluate.inference import Tiles
from tlseg_jax.evaluate.results import format_summary
from tlseg_jax.files import lock_folder, write_json
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.store import Store
from tlseg_jax.report.assess import assess, mark_of, title_of
from tlseg_jax.report.curves import draw_learning_curve
from tlseg_jax.train.checkpoint import load_model
from tlseg_jax.train.job import JobSettings, Pretrained, store_digest, train_job
from tlseg_jax.train.loop import Fit
from tlseg_jax.train.run_folder import read_json

UNSEEN = "oas_c"
"""The paper's generalisation set (section 2.3)."""

COHORT_SPACING = 2.0
"""mm; of the built-in cohort."""


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where things are, and how to make what is not.

    Attributes:
      workdir: runs, and the built-in cohort with its stores.
      store: the user's prepared data sets; None uses the built-in cohort.
      cohort_train: training subjects a data set of the built-in cohort.
      cohort_test: its test subjects.
      workers: processes for drawing and preparing.
      distances: also measure HD95 and surface distance.
      tiles: how HDT-WB volumes are predicted.
      say: prints a line.
      progress: whether to draw bars.
    """

    workdir: Path
    store: Path | None = None
    cohort_train: int = 24
    cohort_test: int = 6
    workers: int = 2
    distances: bool = False
    tiles: Tiles = "gaussian"
    say: Callable[[str], None] = print
    progress: bool = True


def open_store(place: Workplace, spec: DatasetSpec) -> Store:
    """The prepared data set of a spec: the user's, or the built-in cohort's, made if it is missing.

    Raises:
      InputError: the user's store lacks it, or holds another data set under its name.
    """
    if place.store is not None:
        folder = place.store / spec.name
        if not (folder / "manifest.json").exists():
            raise InputError(
                f"{place.store} holds no prepared data set '{spec.name}': run 'python -m experiments.prepare "
                f"--dataset={spec.name} --source=... --store={place.store}' first."
            )
        store = Store(folder)
        for field in ("structure", "space", "skull_strip", "random_patch", "split_group"):
            there, asked = getattr(store.spec, field), getattr(spec, field)
            if there != asked:
                raise InputError(
                    f"The prepared data set {folder} was made from another description of '{spec.name}' "
                    f"({field} is {there!r} there and {asked!r} here): prepare it again under another name."
                )
        place.say(f"{spec.name}: using the prepared data set {folder}.")
        return store
    folder = place.workdir / "cohort" / spec.name
    made = folder.exists()
    source = write_cohort(
        spec.at_spacing(COHORT_SPACING), folder, train=place.cohort_train, test=place.cohort_test,
        spacing=COHORT_SPACING, workers=place.workers, progress=place.progress,
    )  # fmt: skip
    place.say(
        f"{spec.name}: {'reusing the' if made else 'drew a'} built-in cohort in {folder}: synthetic heads, already in "
        f"{spec.space} space at {COHORT_SPACING:g} mm, so nothing is registered; "
        "scores on them mean nothing for patients."
    )
    return prepare_dataset(
        spec.at_spacing(COHORT_SPACING), source, place.workdir / "store",
        PrepareSettings(registration="skip"), workers=place.workers, progress=place.progress, say=place.say,
    )  # fmt: skip


def pretrain(place: Workplace, pretask: str, job: JobSettings, folder: Path) -> Path:
    """Train a pre-task end to end (Fig. 2) and score it on its own test set (Table 2).

    Returns:
      The run folder.
    """
    store = open_store(place, get_spec(pretask))
    return _train_and_assess(place, store, job, folder, None, [store])


def finetune(place: Workplace, pretrained: Path | None, task: str, job: JobSettings, folder: Path) -> Path:
    """Train the target task from a pre-trained model, or end to end, and score it.

    The test sets are the task's own and, for generalisation, OAS-C (section 2.3).

    Args:
      place: where.
      pretrained: a run folder; None trains end to end.
      task: name or TOML file of the target.
      job: the settings.
      folder: the run folder to make.

    Returns:
      The run folder.
    """
    store = open_store(place, get_spec(task))
    tests = [store] if store.subjects("test") else []
    if not tests:
        place.say(f"{store.spec.name}: no test subjects, so nothing is scored on it.")
    unseen = _unseen(place, store)
    start = Pretrained.load(pretrained) if pretrained else None
    return _train_and_assess(place, store, job, folder, start, [*tests, *unseen])


def _unseen(place: Workplace, store: Store) -> list[Store]:
    """OAS-C, where it is another data set than the task's and shows the same structure."""
    spec = PAPER_SPECS[UNSEEN]
    if store.spec.name == UNSEEN or store.spec.structure != spec.structure:
        return []
    if place.store is not None and not (place.store / UNSEEN / "manifest.json").exists():
        place.say(
            f"{UNSEEN}: not in {place.store}, so generalisation to unseen data is not measured "
            "(prepare scans of another source under that name to have it)."
        )
        return []
    other = open_store(place, spec)
    if not other.subjects("test"):
        place.say(f"{UNSEEN}: it has no test subjects, so generalisation is not measured.")
        return []
    return [other]


def _train_and_assess(
    place: Workplace, store: Store, job: JobSettings, folder: Path, start: Pretrained | None, tests: list[Store]
) -> Path:
    with lock_folder(folder):
        result = train_job(store, job, folder, start, say=place.say, progress=place.progress)
        saved = load_model(folder)
        d = saved.description
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
            "stopped_by": result.stopped,
            "synthetic": d["synthetic"],
            # What `evaluate` added to a finished run stays: the same settings make the same model.
            "test_sets": read_json(folder / "summary.json")["test_sets"] if is_finished(folder, 1) else {},
        }
        write_json(folder / "summary.json", summary)
        for test in tests:
            assess(folder, saved, test, distances=place.distances, tiles=place.tiles, progress=place.progress)
        _draw_curve(folder, result, d)
    scores = read_json(folder / "summary.json")["test_sets"]
    if scores:
        place.say(format_summary(scores))
    if d["synthetic"]:
        place.say("These are synthetic heads: the scores mean nothing for patients.")
    place.say(f"run: {folder}")
    return folder


def _draw_curve(folder: Path, result: Fit, description: dict[str, Any]) -> None:
    draw_learning_curve(
        result.losses, folder / "figures" / "learning_curve.png", validation=result.validation or None,
        heading=title_of(description),
        mark=mark_of(description["synthetic"]),
    )  # fmt: skip


def is_finished(run: Path, steps: int) -> bool:
    """Whether a run folder holds a model that has trained for `steps`, or stopped early, and was scored."""
    if not (run / "summary.json").exists():
        return False
    summary = read_json(run / "summary.json")
    return bool(summary["test_sets"]) and (summary["steps"] >= steps or summary["stopped_by"] == "patience")


def check_same_data(place: Workplace, spec: DatasetSpec, run: Path) -> None:
    """Make sure that a finished pre-training may be reused: that its data are those of this call.

    Where the user's store no longer holds the pre-task, only drawn heads are told from scans.

    Raises:
      InputError: the model was trained on other data.
    """
    settings, summary = read_json(run / "settings.json"), read_json(run / "summary.json")
    if place.store is not None and not (place.store / spec.name / "manifest.json").exists():
        same = not summary["synthetic"]
    else:
        same = settings["data"]["store"] == store_digest(open_store(place, spec))
    if not same:
        raise InputError(
            f"The pre-trained model {run} was trained on other data than this call's"
            f"{' (synthetic heads)' if summary['synthetic'] else ''}: choose another --workdir, "
            "or name a model with --pretrained."
        )
