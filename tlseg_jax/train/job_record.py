"""What a run records of itself and of its data."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from typing import Any

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.datasets.splits import hold_out, labelled_subset
from tlseg_jax.evaluate.specks import smallest_pieces
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.seen import seen_of
from tlseg_jax.train.synthetic import mixed_store, trained_on


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
    """The labelled scans of a run: those that train, and those that validate; see `hold_out`.

    Raises:
      InputError: there are none to train on.
    """
    train = store.subjects("train")
    if not train:
        raise InputError(f"{store.where} holds no training subjects: prepare it with `test_fraction` below 1.")
    subjects = labelled_subset(train, store.persons, len(train) if job.n is None else job.n, job.seed)
    return hold_out(subjects, store.persons, job.validation)


def run_settings(store: AnyStore, job: JobSettings, start: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a run is, as its `settings.json` keeps it: the whole job, its data, and the weights that it starts from.

    Two runs are the same where `run_folder.differing` finds nothing between these.

    Args:
      start: of the pre-trained model its run, step, task and weights; None without one.

    Raises:
      InputError: see `labelled_scans`.
    """
    fitted, validating = labelled_scans(store, job)
    mixed = mixed_store(store, job.recipe)
    return {
        "job": job.to_dict(),
        "data": {
            "spec": store.spec.to_dict(),
            "store": store_digest(store, (*fitted, *validating)),
            "subjects": list(fitted),
            **({"synthetic": store_digest(*mixed)} if mixed else {}),
        },
        "validation_subjects": list(validating),
        "pretrained": None if start is None else dict(start),
    }


def describe(
    store: AnyStore, job: JobSettings, subjects: Sequence[str], pretrained: SavedModel | None
) -> dict[str, Any]:
    """What is saved with every checkpoint: enough to rebuild the network and to preprocess a new scan."""
    before = pretrained.description if pretrained else {}
    return {
        "network": job.network.to_dict(),
        "spec": store.spec.to_dict(),
        "prepare": store.manifest["parameters"],
        "synthetic": bool(store.manifest.get("synthetic", False)),
        "pretask": before.get("task", "none"),
        "task": store.spec.name,
        "n": len(subjects),
        # The papers' own figures are of every voxel that their networks found.
        **({} if job.recipe.name == "paper" else {"smallest_pieces": smallest_pieces(store, subjects)}),
        "seed": job.seed,
        # Whoever tests this model must know whom it has seen, in pre-training too.
        **seen_of(trained_on(store, subjects, job.recipe), before),
        "versions": {p: importlib.metadata.version(p) for p in ("jax", "flax", "optax", "orbax-checkpoint", "grain")}
        | {"python": platform.python_version()},
    }
