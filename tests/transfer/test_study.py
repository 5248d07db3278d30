"""Reuse of a pre-trained model, and of stores, only where they are what was asked for."""

import dataclasses
from pathlib import Path

import pytest

from tests.conftest import MakeStore
from tlseg_jax.errors import InputError
from tlseg_jax.files import write_json
from tlseg_jax.models.networks import get_network
from tlseg_jax.models.unet2d import SliceUNetConfig
from tlseg_jax.train.checkpoint import SavedModel
from tlseg_jax.train.job import Pretrained, store_digest
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.transfer.study import check_same_data, finetune, is_finished
from tlseg_jax.transfer.workplace import Workplace, open_store


def finished(run: Path, digest: str, *, synthetic: bool) -> Path:
    run.mkdir()
    write_json(run / "settings.json", {"data": {"store": digest}})
    write_json(
        run / "summary.json",
        {"synthetic": synthetic, "steps": 10, "stopped_by": "steps", "test_sets": {"tiny": {"n": 2}}},
    )
    return run


def test_a_model_of_other_data_is_not_reused(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("mine/tiny")
    other = make_store("theirs/tiny", first=50)
    place = Workplace(tmp_path, store=tmp_path / "mine", say=lambda _: None)
    check_same_data(place, store.spec, finished(tmp_path / "same", store_digest(store), synthetic=False))
    with pytest.raises(InputError, match="other data"):
        check_same_data(place, store.spec, finished(tmp_path / "other", store_digest(other), synthetic=False))


def test_drawn_heads_never_pass_for_scans(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("elsewhere/tiny")
    place = Workplace(tmp_path, store=tmp_path / "without", say=lambda _: None)
    check_same_data(place, store.spec, finished(tmp_path / "real", "x", synthetic=False))
    with pytest.raises(InputError, match="synthetic"):
        check_same_data(place, store.spec, finished(tmp_path / "drawn", "x", synthetic=True))


def test_a_store_of_another_description_is_refused(make_store: MakeStore, tmp_path: Path) -> None:
    store = make_store("mine/tiny")
    place = Workplace(tmp_path, store=tmp_path / "mine", say=lambda _: None)
    assert open_store(place, store.spec).subjects() == store.subjects()
    with pytest.raises(InputError, match="structure is 'blob' there and 'caudate' here"):
        open_store(place, dataclasses.replace(store.spec, structure="caudate"))


def test_finished_means_trained_and_scored(tmp_path: Path) -> None:
    run = finished(tmp_path / "run", "x", synthetic=False)
    assert is_finished(run, 10)
    assert not is_finished(run, 11)
    assert not is_finished(tmp_path / "none", 1)


def test_a_start_of_other_dimensions_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing and preparing the cohort would take minutes."""
    slices = SavedModel(SliceUNetConfig(), {}, {}, {}, 1)
    monkeypatch.setattr(Pretrained, "load", lambda run: Pretrained(run, slices))
    job = JobSettings(get_network("switch8x2"), get_recipe("default"), 2)
    with pytest.raises(InputError, match=r"is 2D .* this network is 3D"):
        finetune(Workplace(tmp_path / "runs", say=lambda _: None), tmp_path / "ct", "hdt_c", job, tmp_path / "run")
    assert not list(tmp_path.iterdir())
