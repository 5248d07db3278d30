"""Samples drawn from label maps among those of scans: which data set of maps, and which of its maps."""

from collections.abc import Sequence
from pathlib import Path

from tlseg_jax.input.synthesis.mixing import Mixed, check_same_grid, labels_of
from tlseg_jax.preprocess.store.any_store import AnyStore, open_any_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store, is_prepared
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.recipes import Recipe
from tlseg_jax.train.seen import seen_of, seen_subjects


def mixed_store(store: AnyStore, recipe: Recipe) -> tuple[Store, tuple[str, ...]] | None:
    """The label maps that part of the samples is drawn from, and which of them; None where none is.

    They lie beside the scans' data set, or in a folder of the user's. Maps of persons whom the scans' test set holds
    take no part.

    Raises:
      InputError: there are no such maps, or these data cannot be mixed with them.
    """
    if not recipe.mix_synthetic:
        return None
    asked = f"`mix_synthetic={recipe.mix_synthetic:g}`"
    if isinstance(store, SliceStore):
        raise InputError(
            f"{asked} draws heads of label maps, which are volumes, and {store.where} holds slices: leave it out."
        )
    if store.map_factor:
        raise InputError(f"{asked} is of data sets of scans, and all images of {store.where} are drawn: leave it out.")
    if store.spec.volumes.random_patch:
        raise InputError(
            f"{asked} needs one fixed patch, and those of {store.where} are at random places: leave it out."
        )
    folder: Path = store.folder.parent / recipe.synthetic  # an absolute one stands for itself
    if not is_prepared(folder):
        raise InputError(
            f"{asked} draws from the prepared data set `synthetic={recipe.synthetic}`, which is not in "
            f"{store.folder.parent}: run 'tlseg prepare --from_labels' with that name on label maps of "
            "whole heads first, or name another."
        )
    maps = open_any_store(folder)
    if isinstance(maps, SliceStore) or not maps.map_factor:
        raise InputError(
            f"`synthetic={recipe.synthetic}` names {maps.where}, which holds no label maps: prepare them with "
            "`from_labels`, or name another."
        )
    check_same_grid(store, maps)
    labels_of(store.spec, maps.spec, maps.where)
    subjects = tuple(s for s in maps.subjects("train") if not seen_subjects(store, "test", seen_of([(maps, (s,))], {})))
    if not subjects:
        raise InputError(
            f"All label maps of {maps.where} are of persons who test {store.where}: prepare maps of others, or leave "
            "`mix_synthetic` out."
        )
    return maps, subjects


def mixed_maps(store: Store, recipe: Recipe) -> Mixed | None:
    """What part of the samples of a data set with a fixed patch is drawn from; for errors see `mixed_store`."""
    found = mixed_store(store, recipe)
    if found is None:
        return None
    (maps, subjects), box = found, store.patch_box
    if box is None:
        raise InputError(f"{store.where} has no patch to draw samples of: prepare it with `test_fraction` below 1.")
    from tlseg_jax.input.synthesis.maps import Maps  # a machine that only measures steps may lack what reads files

    labels = labels_of(store.spec, maps.spec, maps.where)
    return Mixed(Maps(maps, box.size, store.spec, labels), subjects, box, recipe.mix_synthetic)


def trained_on(store: AnyStore, subjects: Sequence[str], recipe: Recipe) -> list[tuple[AnyStore, Sequence[str]]]:
    """All data sets that a run learns from, and whom of them, as `seen.seen_of` takes them."""
    mixed = mixed_store(store, recipe)
    return [(store, subjects), *([mixed] if mixed else [])]
