"""Two processes with the same seed on one machine end with the same parameters, bit for bit (on a CPU)."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.conftest import write_store
from tests.processes import python
from tlseg_jax.checkpoints.checkpoint import load_model

TRAIN = """
import dataclasses, json, sys
from pathlib import Path
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.compilation_cache import use_compilation_cache
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe

store, folder, kept, settings = sys.argv[1:]
use_compilation_cache(kept)
settings = json.loads(settings)
dtype = settings.pop("dtype", "float32")
network = UNetConfig("tiny", ((4,), (4,)), (4,), ((4,), (4,)), (), "concatenate", dtype=dtype)
job = JobSettings(network, get_recipe("default"), 4, seed=3, threads=2)
with lock_folder(Path(folder)):
    train_job(Store(Path(store)), job, Path(folder), execution=Execution(**settings), progress=False)
"""


def train(store: Path, folder: Path, kept: Path, **settings: Any) -> dict[str, Any]:
    """The parameters, batch statistics and losses of a run in a process of its own."""
    done = python("-c", TRAIN, str(store), str(folder), str(kept), json.dumps(settings))
    assert done.returncode == 0, done.stderr
    saved = load_model(folder)
    losses = [line.split(",")[1] for line in (folder / "history.csv").read_text().splitlines()]
    return {"params": saved.params, "batch_stats": saved.batch_stats, "losses": losses}


def assert_equal_bits(a: Any, b: Any) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a["params"], b["params"])
    jax.tree.map(
        lambda x, y: np.testing.assert_array_equal(np.asarray(x), np.asarray(y)), a["batch_stats"], b["batch_stats"]
    )
    assert a["losses"] == b["losses"]


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="promised on a CPU")
@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="streamed", marks=pytest.mark.slow),
        pytest.param({"cache": "device", "steps_per_call": 2}, id="cached", marks=pytest.mark.slow),
        pytest.param({"dtype": "bfloat16", "remat": "block"}, id="bfloat16", marks=pytest.mark.slow),
    ],
)
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, settings: dict[str, Any]) -> None:
    store = write_store(tmp_path / "store").folder
    # The second process takes the programs that the first compiled, where they can be kept.
    first, second = (train(store, tmp_path / name, tmp_path / "kept", **settings) for name in ("first", "second"))
    assert len(first["losses"]) == 5
    assert_equal_bits(first, second)
    moved = jax.tree.map(lambda a: float(np.abs(np.asarray(a, np.float32)).max()), first["params"])
    assert all(np.isfinite(v) for v in jax.tree.leaves(moved))
