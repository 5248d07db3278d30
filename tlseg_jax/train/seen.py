"""Whom a model has seen, so that no test subject is scored whom it was trained on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.records import images_of
from tlseg_jax.runtime.errors import InputError


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
        person
        for s, person in store.persons.items()
        if images_of(store.record(s)) & images or f"{group}:{person}" in persons
    }
    return tuple(s for s in store.subjects(split) if store.persons[s] in known)


def refuse_seen(store: AnyStore, description: Mapping[str, Any], trained: str, hint: str = "") -> None:
    """Refuse to score a model on test subjects whom it has seen.

    Args:
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
