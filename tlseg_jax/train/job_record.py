"""What a run records of itself and of its data, and whom a model has seen."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.datasets.splits import hold_out, labelled_subset
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.records import images_of
from tlseg_jax.runtime.errors import InputError
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
    """The labelled scans of a run: those that train, and those that validate; see `hold_out`.

    Raises:
      InputError: there are none to train on.
    """
    train = store.subjects("train")
    if not train:
        raise InputError(f"{store.where} holds no training subjects: prepare it with --test_fraction below 1.")
    subjects = labelled_subset(train, store.persons, len(train) if job.n is None else job.n, job.seed)
    return hold_out(subjects, store.persons, job.validation)


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
        **seen_of([(store, subjects)], before),
        "versions": {
            p: importlib.metadata.version(p) for p in ("jax", "flax", "optax", "orbax-checkpoint", "grain")
        } | {"python": platform.python_version()},
    }  # fmt: skip


def seen_of(trained: Iterable[tuple[AnyStore, Sequence[str]]], before: Mapping[str, Any]) -> dict[str, list[str]]:
    """Whom a model has seen, by checksums of images' files and voxels and by person, as its description has it.

    Args:
      trained: data sets and which subjects of them it trains on.
      before: the description of the model that it starts from; may be empty.
    """
    images, voxels, persons = (set(before.get(k, ())) for k in ("seen_images", "seen_voxels", "seen_persons"))
    for store, subjects in trained:
        images |= {store.record(s)["image_sha256"] for s in subjects}
        voxels |= {v for s in subjects if (v := store.record(s).get("image_voxels"))}
        persons |= {f"{store.spec.split_group}:{store.persons[s]}" for s in subjects}
    return {"seen_images": sorted(images), "seen_voxels": sorted(voxels), "seen_persons": sorted(persons)}


def seen_subjects(store: AnyStore, split: str, description: Mapping[str, Any]) -> tuple[str, ...]:
    """Subjects of a split whom a model was trained or pre-trained on.

    A person is known by the name, within a split_group, and by the checksums of any of the person's images: of the file
    and, where the model and the store know it, of the voxels.
    """
    images, persons = set(description["seen_images"]), set(description["seen_persons"])
    images.update(description.get("seen_voxels", ()))
    group = store.spec.split_group
    known = {
        person for s, person in store.persons.items()
        if images_of(store.record(s)) & images or f"{group}:{person}" in persons
    }  # fmt: skip
    return tuple(s for s in store.subjects(split) if store.persons[s] in known)


def refuse_seen(store: AnyStore, description: Mapping[str, Any], trained: str, hint: str = "") -> None:
    """Refuse to score a model on test subjects whom it has seen.

    Args:
      store: the test set.
      description: of the model.
      trained: where they were trained on, for the message.
      hint: what else may be done.

    Raises:
      InputError: there are such; they are named.
    """
    seen = seen_subjects(store, "test", description)
    if seen:
        names = ", ".join(seen[:20]) + (f" and {len(seen) - 20} more" if len(seen) > 20 else "")
        raise InputError(
            f"{len(seen)} test subject(s) of {store.spec.name} ({names}) were trained on in {trained}, so the scores "
            "would be too good: prepare the test set without them, or use one split for both (one split_group, or a "
            f"split column in the CSV){hint}."
        )
