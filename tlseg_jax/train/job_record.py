"""What a run records of itself and of its data, and whom a model has seen."""

import hashlib
import importlib.metadata
import json
import platform
from collections.abc import Sequence
from typing import Any

from tlseg_jax.preprocess.any_store import AnyStore
from tlseg_jax.train.checkpoint import SavedModel
from tlseg_jax.train.job_settings import JobSettings


def store_digest(store: AnyStore) -> str:
    """A checksum of what a run reads from a store: scans, labels, splits and patch or slices."""
    records = {
        s: (r["fingerprint"], r["split"], *([r["samples"]] if "samples" in r else []))
        for s, r in ((s, store.record(s)) for s in store.subjects())
    }
    text = json.dumps([store.manifest["spec"], store.manifest.get("patch_box"), records], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


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
