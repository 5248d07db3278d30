"""Reuse of a pre-trained model, and of stores, only where they are what was asked for."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeStore
from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.run_folder import differing, own_folder
from tlseg_jax.evaluate.metrics import SubjectScore
from tlseg_jax.evaluate.results import COLUMNS, SubjectRow, save_results
from tlseg_jax.evaluate.table import read_table
from tlseg_jax.models.networks import get_network
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies import runs as study
from tlseg_jax.studies.runs import is_finished
from tlseg_jax.studies.settings import Finetuning, Missing, Start, Training
from tlseg_jax.studies.single import finetune_task, kept_pretraining
from tlseg_jax.studies.workplace import Workplace, open_store
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_record import run_settings
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import get_recipe

JOB = JobSettings(get_network("switch8x2"), get_recipe("default"), 10)


def finished(run: Path, settings: dict[str, Any], *, synthetic: bool) -> Path:
    run.mkdir()
    write_json(run / "settings.json", settings)
    write_json(
        run / "summary.json",
        {"synthetic": synthetic, "steps": 10, "stopped_by": "steps", "test_sets": {"tiny": {"n": 2}}},
    )
    return run


def test_a_run_goes_beside_one_of_other_settings_data_or_start_and_is_found_there_again(
    make_store: MakeStore, tmp_path: Path, said: list[str]
) -> None:
    store, other = make_store("mine/tiny"), make_store("theirs/tiny", first=50)
    start = {"run": "pretrain/a", "step": 10, "task": "x", "weights": "0" * 64}
    plain = tmp_path / "run"
    finished(plain, run_settings(store, JOB, start), synthetic=False)
    moved, faster = start | {"run": "elsewhere/a"}, dataclasses.replace(JOB, threads=7, patience=3, watch_every=1)
    for same in (run_settings(store, JOB, moved), run_settings(store, faster, start)):
        assert own_folder(plain, same) == plain
    wider = dataclasses.replace(JOB.network, bottleneck=(9,))
    slower = dataclasses.replace(JOB.recipe, learning_rate=0.3)
    others = [
        run_settings(store, dataclasses.replace(JOB, recipe=slower), start),
        run_settings(store, dataclasses.replace(JOB, network=wider), start),
        run_settings(other, JOB, start),
        run_settings(store, JOB, start | {"weights": "1" * 64}),
        run_settings(store, JOB, None),
    ]
    places = [own_folder(plain, settings) for settings in others]
    assert len({plain, *places}) == 6 and all(p.parent == tmp_path for p in places)
    assert "job.recipe.learning_rate was 0.03 and is now 0.3" in said[0] and str(places[0]) in said[0]
    assert "pretrained.weights was" in said[3]
    finished(places[0], others[0], synthetic=False)
    plain.rename(tmp_path / "away")  # whatever else comes and goes, it stays what and where it is
    assert own_folder(plain, others[0]) == places[0]


def test_a_test_subject_is_no_part_of_a_run_and_each_labelled_scan_is(make_store: MakeStore) -> None:
    before = run_settings(make_store("a"), JOB, None)
    store = make_store("b")
    store.record("sub-5")["fingerprint"] = "another test scan"
    assert not differing(run_settings(store, JOB, None), before)
    store.record("sub-2")["fingerprint"] = "another label"
    assert differing(run_settings(store, JOB, None), before).startswith("data.store; data.store was")


def test_without_the_pre_task_in_the_store_its_one_model_of_scans_is_reused(
    make_store: MakeStore, tmp_path: Path
) -> None:
    """Drawn heads, other settings and a choice of several never pass for it."""
    store = make_store("elsewhere/tiny")
    place = Workplace(tmp_path, store=tmp_path / "without")
    settings, plain = run_settings(store, JOB, None), tmp_path / "tiny-seed0"
    finished(plain, settings, synthetic=True)
    assert kept_pretraining(place, store.spec, JOB, plain) is None
    real = finished(tmp_path / "tiny-seed0-0123abcd", settings, synthetic=False)
    assert kept_pretraining(place, store.spec, JOB, plain) == real
    assert kept_pretraining(place, store.spec, dataclasses.replace(JOB, steps=3), plain) is None
    there = dataclasses.replace(place, store=tmp_path / "elsewhere")
    assert kept_pretraining(there, store.spec, JOB, plain) is None
    finished(tmp_path / "tiny-seed0-0123abce", settings, synthetic=False)
    with pytest.raises(InputError, match=r"several models .* name one with `pretrained`"):
        kept_pretraining(place, store.spec, JOB, plain)


def test_a_store_of_another_description_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("mine/tiny")
    place = Workplace(tmp_path, store=tmp_path / "mine")
    assert open_store(place, store.spec).subjects() == store.subjects()
    with pytest.raises(InputError, match=r"structures is .'blob'. there and .'caudate'. here"):
        open_store(place, store.spec.changed(structures=("caudate",)))


def test_scores_of_an_earlier_state_of_a_model_go_with_their_rows_and_are_named(
    tmp_path: Path, said: list[str]
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    rows = [
        SubjectRow(name, "blob", "sub-1", "person-1", SubjectScore(0.5, 2 / 3, 1.0, 1.0)) for name in ("old", "new")
    ]
    for row in rows:
        save_results(run, [row], {"weights": f"of the {row.test_set} model"})
    kept = study._kept_summary(run, "of the new model")
    assert list(kept["test_sets"]) == ["new"] and "train_seconds" not in kept
    assert [r["test_set"] for r in read_table(run / "subjects.csv", COLUMNS)] == ["new"]
    assert said == [f"{run}: the scores on old were of another state of the model and are left out."]


def test_finished_means_trained_and_scored(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", {}, synthetic=False)
    assert is_finished(run, 10)
    assert not is_finished(run, 11)
    assert not is_finished(tmp_path / "none", 1)


def test_a_start_of_other_dimensions_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing and preparing the cohort would take minutes."""
    slices = SavedModel(get_network("unet2d"), {}, {}, {}, 1)
    monkeypatch.setattr(Pretrained, "load", lambda run: Pretrained(run, slices))
    with pytest.raises(InputError, match=r"is 2D .* this network is 3D"):
        what = Finetuning(pretrained=str(tmp_path / "ct"))
        finetune_task(Workplace(tmp_path / "runs"), what, Training(), Start(), Missing(), Execution())
    assert not list(tmp_path.iterdir())
