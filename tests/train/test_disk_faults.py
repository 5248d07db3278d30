"""A run's folder that fills up, cannot be written any more, or is gone: one sentence, and what was saved stays."""

import collections
import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.checkpoints.test_checkpoint import Position, assert_same_bits, contents, restore, save, state_of
from tests.conftest import READ_ONLY, Mount, he_variables
from tlseg_jax.checkpoints.checkpoint import Checkpoints
from tlseg_jax.checkpoints.checkpoint_files import steps_in
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import full_disk, lock_folder
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train import run as run_module
from tlseg_jax.train.board import Board
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.history import History
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.trainer import Fit


def fill(folder: Path) -> Path:
    """Take all that is left of a file system."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as f:
        try:
            while True:
                f.write(bytes(1024))
        except OSError:
            return path


@pytest.fixture
def description(tiny_network: UNetConfig) -> dict[str, Any]:
    return {"network": tiny_network.to_dict()}


# Orbax leaves tasks behind where its threads meet a full disk; a disk that is full before is found by ourselves.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("noticed", ["before", "by Orbax"])
def test_a_full_disk_leaves_the_checkpoints_that_are_there(
    noticed: str, tmp_path: Path, mount: Mount, description: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    mount(disk, 0, "size=6m")
    save(disk, description, [1, 2])
    before = contents(disk / "checkpoints")
    filler = fill(disk)
    if noticed == "by Orbax":  # others may fill it after we have looked
        usage = collections.namedtuple("usage", "free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1 << 40))
    with pytest.raises(OSError, match="No space left on device") as e:
        save(disk, description, [3])
    assert full_disk(e.value)
    assert {p: b for p, b in contents(disk / "checkpoints").items() if p in before} == before
    assert steps_in(disk / "checkpoints") == [1, 2]
    filler.unlink()
    save(disk, description, [3])
    state, _, said = restore(disk)
    assert_same_bits(state, state_of(3))
    assert said == []


def test_a_folder_that_cannot_be_written_any_more(tmp_path: Path, mount: Mount, description: dict[str, Any]) -> None:
    """The disk went read-only, as Linux does after an error of the hardware."""
    with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
        mount(tmp_path / "run", READ_ONLY, "size=100m")
        with pytest.raises(InputError, match=r"run/checkpoints cannot be written any more \(.*\): what was saved") as e:
            checkpoints.save(state_of(1), Position(), description)  # type: ignore[arg-type]
    assert "\n" not in str(e.value)
    for write in (
        lambda: History(tmp_path / "run" / "history.csv", 0),
        lambda: Board(tmp_path / "run" / "tensorboard", 0),
        lambda: Checkpoints(tmp_path / "run" / "checkpoints"),
    ):
        with pytest.raises(InputError, match=r"cannot be written any more \(Read-only file system\)"):
            write()


def test_a_folder_that_is_gone(tmp_path: Path, description: dict[str, Any]) -> None:
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(state_of(1), Position(), description)  # type: ignore[arg-type]
    checkpoints.close()
    shutil.rmtree(tmp_path / "run")
    with pytest.raises(InputError, match=r"cannot be written any more \(No such file or directory\)"):
        checkpoints.save(state_of(2), Position(), description)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("quick_compile")
def test_training_on_a_disk_that_fills_up_goes_on_exactly(
    tiny_store: Store, tiny_network: UNetConfig, tmp_path: Path, mount: Mount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "init_variables", lambda config, key: he_variables(config))
    job = JobSettings(tiny_network, get_recipe("paper"), 6, checkpoint_every=2)
    programs = Programs()

    def train(folder: Path) -> Fit:
        with lock_folder(folder):
            return train_job(tiny_store, job, folder, programs=programs, progress=False)

    whole = train(tmp_path / "whole")
    disk = tmp_path / "disk"
    mount(disk, 0, "size=8m")
    call, filler = Dispatch.__call__, list[Path]()

    def filling(self: Dispatch, state: Any, batches: Any, done: int = 0) -> Any:
        if done == 4:
            filler.append(fill(disk))
        return call(self, state, batches, done)

    with monkeypatch.context() as m:
        m.setattr(Dispatch, "__call__", filling)
        with pytest.raises(OSError, match="No space left on device") as e:
            train(disk)
    assert full_disk(e.value)
    assert steps_in(disk / "checkpoints")[:1] == [2]
    filler[0].unlink()
    rest = train(disk)
    assert rest.resumed_at in (2, 4)
    for a, b in zip(jax.tree.leaves(rest.state), jax.tree.leaves(whole.state), strict=True):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert rest.losses == whole.losses
