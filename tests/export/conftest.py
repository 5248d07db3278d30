"""Two small runs, of volumes and of slices, with a checkpoint and scores; read only."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from tests.conftest import he_variables, write_store
from tests.train.slice_runs import first_variables, small_job, small_store
from tlseg_jax.checkpoints.checkpoint import Checkpoints
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime.files import lock_folder, write_json
from tlseg_jax.train import run as run_module
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.run import claim_run, prepare_run

SCORE = {
    "synthetic": False,
    "store": "/home/someone/store/tiny",
    "seen_in_training": ["sub-7"],
    "n": 2,
    "iou_mean": 0.5,
    "iou_std": 0.1,
    "iou_median": 0.5,
    "iou_min": 0.4,
    "iou_max": 0.6,
    "dice_mean": 0.6,
    "dice_std": 0.1,
    "reference_ml_mean": 3.0,
    "predicted_ml_mean": 2.0,
    "volume_error_ml_mean": -1.0,
    "volume_error_ml_std": 0.5,
    "empty_predictions": 0,
    "mm": "person",
    "detection": {
        "overlap": 0.5,
        "found": 1,
        "missed": 2,
        "false": 3,
        "precision": 0.25,
        "recall": 0.3,
        "volumes": {"vol-3": {"found": 1}},
    },
}


def save_run(store: AnyStore, job: JobSettings, folder: Path, start: Callable[[Any, int], Any]) -> Path:
    """A run as training leaves it, but that its steps were not computed."""
    with pytest.MonkeyPatch.context() as patch, lock_folder(folder):
        # The network's own start takes seconds of compiling.
        patch.setattr(run_module, "init_variables", lambda c, key: start(c, int(jax.random.key_data(key)[-1])))
        run = prepare_run(store, job, folder)
        claim_run(run)
        with Checkpoints(folder / "checkpoints") as checkpoints:
            checkpoints.save(dataclasses.replace(run.state, step=jnp.int32(2)), run.batches, run.description)
    write_json(folder / "summary.json", {"model_step": 2, "test_sets": {"tiny": SCORE}})
    return folder


@pytest.fixture(scope="session")
def volume_run(tmp_path_factory: pytest.TempPathFactory, tiny_network: UNetConfig) -> Path:
    """A 3D run."""
    folder = tmp_path_factory.mktemp("volumes")
    recipe = dataclasses.replace(get_recipe("default"), learning_rate=1e-2)
    store = write_store(folder / "store")
    return save_run(store, JobSettings(tiny_network, recipe, 2), folder / "run", he_variables)


@pytest.fixture(scope="session")
def slice_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2D run."""
    folder = tmp_path_factory.mktemp("slices")
    return save_run(small_store(folder / "store"), small_job(steps=2, epochs=0), folder / "run", first_variables)
