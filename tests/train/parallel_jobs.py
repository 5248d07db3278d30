"""Whole runs on four host devices against one: `python -m tests.train.parallel_jobs FOLDER`; prints a line of JSON."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.parallel import difference
from tests.conftest import write_store
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.messages import shown
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import get_recipe

NETWORK = UNetConfig("tiny", ((4,),), (4,), ((4,),), (), "concatenate")


def main(folder: Path) -> None:
    """Train every way and print the differences, and what each said of its devices."""
    jax.config.update("jax_disable_most_optimizations", True)
    store = write_store(folder / "store", train=5, spec={"flip_left_right": True})
    recipe = get_recipe("default").override(
        batch_size=4, epsilon=1e-3, intensity_augmentation=False, affine_augmentation=False, elastic_augmentation=0.0
    )
    job = JobSettings(NETWORK, recipe, 6, n=5, validation=1, validate_every=3, checkpoint_every=4)
    found: dict[str, Any] = {}

    def train(name: str, settings: JobSettings, start: Pretrained | None = None, **how: Any) -> dict[str, Any]:
        said: list[str] = []
        with lock_folder(folder / name), shown(said.append):
            done = train_job(store, settings, folder / name, start, execution=Execution(**how), progress=False)
        found[name] = {"said": [line for line in said if line.startswith("parallel:")]}
        state = jax.tree.map(np.asarray, (done.state.params, done.state.batch_stats))
        losses, scores = (np.array([v for _, v in curve]) for curve in (done.losses, done.validation))
        return {"losses": losses, "scores": scores, "state": state}

    def compare(name: str, one: dict[str, Any], other: dict[str, Any]) -> None:
        found[name]["differences"] = {k: difference(one[k], other[k]) for k in one}

    one = train("one", job)
    compare("pmap", one, train("pmap", job, parallel="pmap", cache="device", steps_per_call=3))
    compare("mesh", one, train("mesh", job, parallel="mesh", mesh="data:2,space:2", cache="device"))
    start = Pretrained.load(folder / "one")
    frozen = dataclasses.replace(job, freeze="encoder")
    one = train("frozen", frozen, start)
    compare("features", one, train("features", frozen, start, parallel=None, cache="features"))
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
