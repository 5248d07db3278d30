"""Small runs of a small 2D network on a small data set of slices."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from tests.conftest import he_variables
from tests.evaluate.slices import ball, write_slice_store
from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import Recipe
from tlseg_jax.train.trainer import Fit

SIDES = (16, 20)
NETWORK = UNetConfig.residual("tiny2d", (2, 3))
"""Two levels compile in half the time of three."""
TUMOUR_ONLY: dict[str, Any] = {"structures": ["tumour"], "label_values": [[2]]}


def small(planes: int, outputs: Sequence[str] = ("liver", "tumour")) -> Any:
    """A drawer of volumes of so many planes of 16x20 pixels; the lowest and the highest show no tumour."""

    def draw(seed: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        rng = np.random.default_rng(seed)
        shape = (planes, *SIDES)
        liver = np.zeros(shape, np.bool_)
        liver[:, 2:14, 3:17] = True
        tumour = ball(((planes - 1) / 2, 6 + rng.integers(4), 9), min((planes - 2) / 2, 4), shape)
        bits = {"liver": liver, "tumour": tumour}
        label = sum((bits[o].astype(np.uint8) << i for i, o in enumerate(outputs)), np.zeros(shape, np.uint8))
        return rng.normal(0, 0.1, shape) + 0.5 * liver - 1.0 * tumour, label

    return draw


def small_store(folder: Path, planes: int = 7, spec: dict[str, Any] | None = None, **given: Any) -> SliceStore:
    """Volumes of `small`, whose structures are those of `spec`."""
    outputs = (spec or {}).get("structures", ("liver", "tumour"))
    return write_slice_store(
        folder, drawer=small(planes, outputs), spec={"pixels": list(SIDES)} | (spec or {}), **given
    )


def small_job(network: UNetConfig = NETWORK, loss: str = "bce", batch: int = 4, **given: Any) -> JobSettings:
    """A job of one epoch, checkpoints only at its end."""
    recipe = Recipe("small", loss, 1e-2, 1e-8, False, "constant", batch_size=batch)
    return JobSettings(network, recipe, **{"steps": None, "epochs": 1} | given)


@functools.cache
def _first(config: UNetConfig, seed: int) -> Any:
    return he_variables(config, seed)


def first_variables(config: UNetConfig, seed: int = 0) -> dict[str, Any]:
    """As `he_variables`, traced once a network."""
    return jax.tree.map(np.copy, _first(config, seed))  # type: ignore[no-any-return]


def pretrained(network: UNetConfig = NETWORK, seed: int = 5) -> Pretrained:
    """A model that was never trained."""
    v = first_variables(network, seed)
    description = {"seen_images": [], "seen_persons": [], "task": "before"}
    return Pretrained(Path("before"), SavedModel(network, v["params"], v["batch_stats"], description, 3))


PROGRAMS = Programs()


def train(store: SliceStore, job: JobSettings, folder: Path, before: Pretrained | None = None) -> Fit:
    """Train without a word."""
    with lock_folder(folder):
        return train_job(store, job, folder, before, programs=PROGRAMS, progress=False)
