"""What a run records of itself and of its data, and whom a model has seen."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from tlseg_jax.datasets.splits import labelled_subset
from tlseg_jax.errors import InputError
from tlseg_jax.preprocess.any_store import AnyStore
from tlseg_jax.train.checkpoint import SavedModel
from tlseg_jax.train.job_settings import JobSettings


def store_digest(store: AnyStore, subjects: Sequence[str] | None = None) -> str:
    """A checksum of what training on some subjects, or a score of them, depends on in a store.

    That is their scans, labels, persons and split, and where the patch or the slices are; None: of all subjects.
    """
    records = {
        s: (r["fingerprint"], r["split"], r["person"], *([r["samples"]] if "samples" in r else []))
        for s, r in ((s, store.record(s)) for s in (store.subjects() if subjects is None else subjects))
    }
    text = json.dumps([store.manifest["spec"], store.manifest.get("patch_box"), records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def labelled_scans(store: AnyStore, job: JobSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The labelled scans of a run: those that train, and those that validate.

    Raises:
      InputError: there are none to train on.
    """
    train = store.subjects("train")
    if not train:
        raise InputError(f"{store.folder} holds no training subjects: prepare it with --test_fraction below 1.")
    subjects = labelled_subset(train, store.persons, len(train) if job.n is None else job.n, job.seed)
    if not 0 <= job.validation < len(subjects):
        raise InputError(
            f"--validation={job.validation} of {len(subjects)} labelled scans leaves none to train on: give fewer."
        )
    fitted = subjects[: len(subjects) - job.validation]
    return fitted, subjects[len(fitted) :]


def run_settings(store: AnyStore, job: JobSettings, start: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run is, as its `settings.json` keeps it: the whole job, its data, and the weights that it starts from.

    Two runs are the same where `run_folder.differing` finds nothing between these.

    Args:
      store: the data.
      job: the settings.
      start: of the pre-trained model its run, step, task and weights; None without one.

    Raises:
      InputError: see `labelled_scans`.
    """
    fitted, held = labelled_scans(store, job)
    return {
        "job": job.to_dict(),
        "data": {
            "spec": store.spec.to_dict(), "store": store_digest(store, (*fitted, *held)), "subjects": list(fitted)
        },
        "validation_subjects": list(held),
        "pretrained": None if start is None else dict(start),
    }  # fmt: skip


def describe(
    store: AnyStore, job: JobSettings, subjects: Sequence[str], pretrained: SavedModel | None
) -> dict[str, Any]:
    """What is saved with every checkpoint: enough to rebuild the network and to preprocess a new scan."""
    before = pretrained.description if pretrained else {}
    group = store.spec.split_group
    return {
        "network": job.network.to_dict(),
        "spec": store.spec.to_dict(),
        "prepare": store.manifest["parameters"],
        "synthetic": bool(store.manifest.get("synthetic", False)),
        "pretask": before.get("task", "none"),
        "task": store.spec.name,
        "n": len(subjects),
        "seed": job.seed,
        # Whoever tests this model must know whom it has seen, in pre-training too.
        "seen_images": sorted(
            {*before.get("seen_images", ()), *(store.record(s)["image_sha256"] for s in subjects)}
        ),
        "seen_persons": sorted(
            {*before.get("seen_persons", ()), *(f"{group}:{store.persons[s]}" for s in subjects)}
        ),
        "versions": {
            p: importlib.metadata.version(p) for p in ("jax", "flax", "optax", "orbax-checkpoint", "grain")
        } | {"python": platform.python_version()},
    }  # fmt: skip


def seen_subjects(store: AnyStore, split: str, description: dict[str, Any]) -> tuple[str, ...]:
    """Subjects of a split whom a model was trained or pre-trained on, by image checksum or by person."""
    images, persons = set(description["seen_images"]), set(description["seen_persons"])
    group = store.spec.split_group
    return tuple(
        s
        for s in store.subjects(split)
        if store.record(s)["image_sha256"] in images or f"{group}:{store.persons[s]}" in persons
    )
