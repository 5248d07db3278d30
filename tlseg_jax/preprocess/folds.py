"""Cross-validation on a prepared data set: the same arrays under another split."""

import copy

from tlseg_jax.datasets.splits import numbered
from tlseg_jax.preprocess.prepare_cohort import box_of_labels
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.records import images_of
from tlseg_jax.runtime.errors import InputError


def take_fold(store: AnyStore, number: int, folds: int, target: AnyStore | None = None) -> AnyStore:
    """The data set with the persons of one fold held out for test and all others to train on.

    Whatever the split on disk, each person is held out in exactly one fold, by the number that the manifest keeps
    ("persons"): a scan that is excluded or added later moves nobody else. The fixed patch is placed anew, by the
    labels of this fold's training scans alone. Nothing is written.

    Args:
      number: which fold, from 0.
      target: the data set whose folds count for the persons whom it knows, by name or by image; None: `store`'s own.

    Raises:
      InputError: there are fewer persons than folds, or fewer than two folds.
    """
    of_target = _folds_of(target or store, folds)
    fold_of = {p: k % folds for p, k in _numbers(store).items()} | of_target
    images = {i: r["person"] for r in target.manifest["subjects"].values() for i in images_of(r)} if target else {}
    for subject, person in store.persons.items():
        known = next((images[i] for i in sorted(images_of(store.record(subject))) if i in images), None)
        if known is not None:
            fold_of[person] = of_target[known]
    manifest = copy.deepcopy(store.manifest)
    for subject, person in store.persons.items():
        manifest["subjects"][subject]["split"] = "test" if fold_of[person] == number else "train"
    if "patch_box" in manifest:
        box, _ = box_of_labels(manifest["subjects"], store.spec, store.folder)
        manifest["patch_box"] = box.to_dict() if box else None
    return store.with_manifest(manifest)


def _folds_of(store: AnyStore, folds: int) -> dict[str, int]:
    """Person -> fold, of everyone whom the data set has ever listed.

    Folds differ by one person at most in size, but for those who have left or come. Only where that would empty a fold
    those who are there are numbered anew.
    """
    here = set(store.persons.values())
    if not 2 <= folds <= len(here):
        raise InputError(
            f"{store.where} has {len(here)} persons, which cannot be split {folds} ways: "
            f"give `folds` between 2 and {len(here)}, or 0 for the split that it was prepared with."
        )
    numbers = _numbers(store)
    if len({numbers[p] % folds for p in here}) < folds:
        numbers |= {p: i for i, p in enumerate(sorted(here, key=lambda p: numbers[p]))}
    return {p: k % folds for p, k in numbers.items()}


def _numbers(store: AnyStore) -> dict[str, int]:
    return numbered(store.persons.values(), {p: int(e["number"]) for p, e in store.manifest.get("persons", {}).items()})
