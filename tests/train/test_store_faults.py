"""A store that is damaged or disappears while a run reads it: one sentence, and the checkpoints stay."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from absl import flags

from tests.checkpoints.test_checkpoint import assert_same_bits
from tests.conftest import MakeStore
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.checkpoints.checkpoint_files import steps_in
from tlseg_jax.input.stream import _permutation
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.train.trainer import Fit

pytestmark = pytest.mark.usefixtures("quick_compile", "quick_start")


@pytest.fixture(scope="module")
def settings(tiny_network: UNetConfig) -> JobSettings:
    """Batches of one scan, so that it is known which is read when."""
    recipe = dataclasses.replace(get_recipe("paper"), epsilon=1e-3, batch_size=1)
    return JobSettings(tiny_network, recipe, 6, checkpoint_every=1)


PROGRAMS = Programs()


def train(store: Store, job: JobSettings, folder: Path) -> Fit:
    with lock_folder(folder):
        # A store of its own: what another has read it need not read again.
        return train_job(Store(store.folder), job, folder, None, programs=PROGRAMS, progress=False)


@pytest.fixture(scope="module")
def whole(quick_start: None, tiny_store: Store, settings: JobSettings, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The state after the run that nothing happens to."""
    return train(tiny_store, settings, tmp_path_factory.mktemp("whole") / "run").state


def flip(chunk: Path) -> None:
    """One bit of the compressed voxels."""
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 8
    chunk.write_bytes(bytes(content))


def truncate(chunk: Path) -> None:
    """The second half is lost, as on a disk that was full once."""
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])


@pytest.mark.parametrize(
    ("damage", "workers"),
    [
        (flip, 0),
        pytest.param(truncate, 0, marks=pytest.mark.slow),
        pytest.param(Path.unlink, 0, marks=pytest.mark.slow),
        pytest.param(flip, 1, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_chunk_ends_the_run_where_it_is_read(
    damage: Callable[[Path], None],
    workers: int,
    whole: Any,
    make_store: MakeStore,
    settings: JobSettings,
    tmp_path: Path,
) -> None:
    store = make_store()
    flags.FLAGS.mark_as_parsed()  # grain asks them before it starts a process
    job = dataclasses.replace(settings, workers=workers)
    last = f"sub-{_permutation(4, job.seed, 0)[-1]}"  # of the first epoch
    chunk = store.folder / "subjects" / f"{last}.zarr" / "image" / "c" / "0" / "0" / "0"
    before = chunk.read_bytes()
    damage(chunk)
    with pytest.raises(InputError, match=rf"{last}\.zarr is missing or damaged.*run prepare again") as e:
        train(store, job, tmp_path / "run")
    assert "\n" not in str(e.value)
    assert steps_in(tmp_path / "run" / "checkpoints")[-1] == 3 and load_model(tmp_path / "run").step == 3
    chunk.write_bytes(before)
    rest = train(store, job, tmp_path / "run")
    assert rest.resumed_at == 3
    assert_same_bits(rest.state, whole)


def test_a_store_that_disappears_while_it_is_read(
    make_store: MakeStore, settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(train=41, test=0)  # more than what is read ahead
    job = dataclasses.replace(settings, steps=38, checkpoint_every=4, validation=1, validate_every=4)

    def at_step_four(state: Any) -> float:
        if int(state.step) == 4:
            store.folder.rename(tmp_path / "away")
        return 0.5

    monkeypatch.setattr(TaskData, "validator", lambda *_: at_step_four)
    with pytest.raises(InputError, match=r"sub-\d+\.zarr is missing or damaged") as e:
        train(store, job, tmp_path / "run")
    assert "\n" not in str(e.value)
    steps = steps_in(tmp_path / "run" / "checkpoints")
    assert 4 <= steps[-1] < 38 and load_model(tmp_path / "run").step in steps
    with pytest.raises(InputError, match=r"no manifest\.json"):
        train(store, job, tmp_path / "run")
    assert steps_in(tmp_path / "run" / "checkpoints") == steps
