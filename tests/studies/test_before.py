"""The start of a run, scored as it is on the run's test scans, beside the fine-tuned model."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tlseg_jax.actions.run import Run
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.studies.before import assess_start, compared
from tlseg_jax.studies.runs import train_and_assess
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import get_recipe


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return found


pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(scope="module")
def job(tiny_network: UNetConfig) -> JobSettings:
    recipe = get_recipe("default").override(
        batch_size=2, intensity_augmentation=False, affine_augmentation=False, elastic_augmentation=0.0
    )
    return JobSettings(tiny_network, recipe, 2)


@pytest.fixture(scope="module")
def start(tiny_store: Store, job: JobSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has trained on the data set and was scored."""
    folder = tmp_path_factory.mktemp("runs")
    place = Workplace(folder, progress=False)
    return train_and_assess(place, tiny_store, job, folder / "a", None, [tiny_store], Execution(), figures=False)


def test_the_start_stands_beside_the_model_and_is_scored_once(
    start: Path, tiny_store: Store, job: JobSettings, tmp_path: Path, said: list[str]
) -> None:
    here = Workplace(tmp_path, progress=False)
    job = dataclasses.replace(job, seed=1)
    how = (here, tiny_store, job, tmp_path / "run", Pretrained.load(start), [tiny_store], Execution())
    run = train_and_assess(*how, start_too=True)
    before, after = summary(run / "start"), summary(run)
    (was,), (now,) = before["test_sets"].values(), after["test_sets"].values()
    # What the start reached where it was made is what it reaches here; the model's own scores are its alone.
    assert was["dice_mean"] == summary(start)["test_sets"]["tiny"]["dice_mean"]
    assert (run / "start" / "subjects.csv").read_text() == (start / "subjects.csv").read_text()
    assert was["weights"] == summary(start)["weights"] != now["weights"] and set(after["test_sets"]) == {"tiny"}
    line = f"tiny: Dice {was['dice_mean']:.3f} before fine-tuning (the start as it is), {now['dice_mean']:.3f} after"
    assert said.count(line) == 1
    assert [r["subject"] for r in Run(run).scores_before] == [r["subject"] for r in Run(run).scores]
    assert Run(start).scores_before == []

    kept = (run / "start" / "subjects.csv").stat()
    assert train_and_assess(*how, start_too=True) == run  # goes on from what is done
    assert said.count(line) == 2 and (run / "start" / "subjects.csv").stat().st_mtime_ns == kept.st_mtime_ns

    # What is there of another start goes.
    path = run / "start" / "summary.json"
    path.write_text(json.dumps(before | {"weights": "0" * 64}))
    assert assess_start(run, Pretrained.load(start), [tiny_store], here) == before["test_sets"]
    assert summary(run / "start")["weights"] == before["weights"]


def test_a_sweeps_cell_and_a_start_of_another_structure_are_not_scored_before(
    start: Path, tiny_store: Store, job: JobSettings, tmp_path: Path, said: list[str]
) -> None:
    here, loaded = Workplace(tmp_path, progress=False), Pretrained.load(start)
    cell = train_and_assess(here, tiny_store, job, tmp_path / "cell", loaded, [tiny_store], Execution(), figures=False)
    assert not (cell / "start").exists() and not any("before fine-tuning" in s for s in said)
    said_of = loaded.saved.description
    of_another = said_of | {"spec": said_of["spec"] | {"structures": ["other"]}}
    other = dataclasses.replace(loaded, saved=dataclasses.replace(loaded.saved, description=of_another))
    assert assess_start(cell, other, [tiny_store], here) == {} and not (cell / "start").exists()
    assert compared({}, summary(cell)["test_sets"], [tiny_store]) == ""
