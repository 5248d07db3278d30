"""Cross-validation on a prepared data set: the same arrays under another split."""

import copy

from tlseg_jax.datasets.splits import fold_numbers
from tlseg_jax.errors import InputError
from tlseg_jax.preprocess.any_store import AnyStore
from tlseg_jax.preprocess.prepare_cohort import training_box
from tlseg_jax.preprocess.store import Store


def take_fold(store: AnyStore, number: int, folds: int) -> AnyStore:
    """The data set with the persons of one fold held out for test and all others to train on.

    Whatever the split on disk, each person is held out in exactly one fold. The fixed patch is placed anew, by the
    labels of this fold's training scans alone. Nothing is written.

    Args:
      store: the prepared data set.
      number: which fold, from 0.
      folds: how many.

    Raises:
      InputError: there are fewer persons than folds, or fewer than two folds.
    """
    persons = sorted(set(store.persons.values()))
    if not 2 <= folds <= len(persons):
        raise InputError(
            f"{store.folder} has {len(persons)} persons, which cannot be split {folds} ways: "
            f"give --folds between 2 and {len(persons)}, or 0 for the split that it was prepared with."
        )
    fold_of = fold_numbers(persons, folds)
    manifest = copy.deepcopy(store.manifest)
    for subject, person in store.persons.items():
        manifest["subjects"][subject]["split"] = "test" if fold_of[person] == number else "train"
    if isinstance(store, Store):
        box, _ = training_box(manifest["subjects"], store.spec, store.folder)
        manifest["patch_box"] = box.to_dict() if box else None
    return store.with_manifest(manifest)
