"""Two small runs, of volumes and of slices, that were trained for two steps and "scored"; read only."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import pytest

from tests.conftest import he_variables, write_store
from tests.train.slice_runs import first_variables, small_job, small_store
from tlseg_jax.files import lock_folder, write_json
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.any_store import AnyStore
from tlseg_jax.train import job as job_module
from tlseg_jax.train.checkpoint import load_model
from tlseg_jax.train.job import JobSettings, train_job
from tlseg_jax.train.recipes import get_recipe

SCORE = {
    "synthetic": False, "store": "/home/someone/store/tiny", "seen_in_training": ["sub-7"], "n": 2, "iou_mean": 0.5,
    "iou_std": 0.1, "iou_median": 0.5, "iou_min": 0.4, "iou_max": 0.6, "dice_mean": 0.6, "dice_std": 0.1,
    "reference_ml_mean": 3.0, "predicted_ml_mean": 2.0, "volume_error_ml_mean": -1.0, "volume_error_ml_std": 0.5,
    "empty_predictions": 0,
    "detection": {"overlap": 0.5, "found": 1, "missed": 2, "false": 3, "precision": 0.25, "recall": 0.3,
                  "volumes": {"vol-3": {"found": 1}}},
}  # fmt: skip


def _train(store: AnyStore, job: JobSettings, folder: Path, start: Callable[[Any, int], Any]) -> Path:
    with pytest.MonkeyPatch.context() as patch, lock_folder(folder):
        # The network's own start, and tracing for the FLOPs, take seconds.
        patch.setattr(job_module, "init_variables", lambda c, key: start(c, int(jax.random.key_data(key)[-1])))
        patch.setattr(job_module, "step_flops", lambda *_: 1e9)
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            train_job(store, job, folder, say=lambda _: None, progress=False)
        finally:
            jax.config.update("jax_disable_most_optimizations", False)
    step = load_model(folder).step
    write_json(folder / "summary.json", {"model_step": step, "test_sets": {"tiny": SCORE}})
    return folder


@pytest.fixture(scope="session")
def volume_run(tmp_path_factory: pytest.TempPathFactory, tiny_network: UNetConfig) -> Path:
    """A 3D run."""
    folder = tmp_path_factory.mktemp("volumes")
    recipe = dataclasses.replace(get_recipe("default"), learning_rate=1e-2)
    store = write_store(folder / "store")
    return _train(store, JobSettings(tiny_network, recipe, 2), folder / "run", he_variables)


@pytest.fixture(scope="session")
def slice_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A 2D run."""
    folder = tmp_path_factory.mktemp("slices")
    return _train(small_store(folder / "store"), small_job(steps=2, epochs=0), folder / "run", first_variables)
