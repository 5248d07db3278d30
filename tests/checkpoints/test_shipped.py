"""The models that come with the package: whole, found by name, small enough for a wheel, and used by the commands."""

from pathlib import Path

import pytest

from tlseg_jax.actions.places import find_run
from tlseg_jax.checkpoints.exported import CARD, CHECKPOINT, changed_file, load_exported, read_card
from tlseg_jax.checkpoints.shipped import FOLDER, shipped_model, shipped_names
from tlseg_jax.models.networks import count_parameters
from tlseg_jax.runtime.errors import InputError


def test_every_model_is_whole_and_all_fit_into_8_mb() -> None:
    assert "brain" in shipped_names()
    for name in shipped_names():
        folder = shipped_model(name)
        assert not changed_file(folder, read_card(folder), CHECKPOINT)
        saved = load_exported(folder)
        assert count_parameters(saved.params) > 200_000
        assert len(saved.description["spec"]["structures"]) + 1 == len(saved.config.outputs)
    assert sum(p.stat().st_size for p in FOLDER.rglob("*") if p.is_file()) < 8e6


def test_a_name_is_the_model_unless_a_folder_here_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_run("brain") == FOLDER / "brain"
    (tmp_path / "brain").mkdir()
    assert find_run("brain").resolve() == tmp_path / "brain"


def test_what_does_not_come_with_the_package_is_refused() -> None:
    with pytest.raises(InputError, match=r"^No model named 'liver' comes with tlseg_jax: choose from .*brain"):
        shipped_model("liver")
    assert (shipped_model("brain") / CARD).exists()
