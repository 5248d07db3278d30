"""One run by as many processes as the environment tells of, which `experiments.launch` starts:

    python -m tests.train.cluster_run STORES WORKDIR STEPS [start|slices]

Trains a tiny network on the store STORES/tiny, and does all that the processes have to agree on: validation,
checkpoints, scores and, with "start", a pre-trained model that is made first, and a frozen encoder; with "slices" a
small 2D network with test losses on the slices STORES/slices. What a process prints is the run's own words, and whose
volumes it read.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from tests.train.slice_runs import small_job
from tlseg_jax.commands import cli, cluster_flags
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime import processes
from tlseg_jax.studies import runs as study
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import get_recipe

NETWORK = UNetConfig("tiny", ((4,), (4,)), (4,), ((4,), (4,)), (), "concatenate")

BATCH = 4
"""Divides by the devices of every rehearsal; the fixture's epochs are not a whole number of batches."""


def main(given: Sequence[str]) -> None:
    """Do the run."""
    stores, workdir, steps = Path(given[0]), Path(given[1]), int(given[2])
    cluster_flags.start()
    read: set[str] = set()
    image = Store.image

    def watched(self: Store, subject: str, *rest: object) -> object:
        read.add(subject)
        return image(self, subject, *rest)  # type: ignore[arg-type]

    Store.image = watched  # type: ignore[method-assign,assignment]
    place = Workplace(workdir, stores, progress=False)
    recipe = dataclasses.replace(
        get_recipe("default"),
        batch_size=BATCH,
        intensity_augmentation=False,
        affine_augmentation=False,
        elastic_augmentation=0.0,
    )
    execution = Execution(parallel="one" if processes.count() == 1 else "pmap")
    job = JobSettings(NETWORK, recipe, steps, validation=2, validate_every=steps // 2, checkpoint_every=steps // 2)
    store = Store(stores / "tiny")
    if "slices" in given:
        slices = SliceStore(stores / "slices")
        small = small_job(steps=steps, epochs=0, validation=1, validate_every=steps // 2, watch_every=2)
        study.train_and_assess(place, slices, small, workdir / "run", None, [slices], execution, figures=False)
    elif "start" in given:
        first = JobSettings(NETWORK, recipe, 4, seed=1)
        pretrained = study.train_and_assess(place, store, first, workdir / "pretrained", None, [store], execution)
        job, start = dataclasses.replace(job, freeze="encoder"), Pretrained.load(pretrained)
        study.train_and_assess(place, store, job, workdir / "run", start, [store], execution, start_too=True)
    else:
        study.train_and_assess(place, store, job, workdir / "run", None, [store], execution, figures=False)
    print("read:", *sorted(read), flush=True)


if __name__ == "__main__":
    cli.run_command(main)
