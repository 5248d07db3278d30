"""Specks: components of a prediction that are smaller than any that the training labels have.

A caudate is one piece on each side, and a spot of it elsewhere is false; a tumour may be a few voxels. How small a
piece may be is therefore taken from the labels that a network was trained on, and kept with it. Holes are left: labels
of deep nuclei, ventricles and abdominal organs have none, and to fill those of predictions changed no score
(benchmarks/recipe.md).
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from numpy.typing import NDArray
from scipy import ndimage

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore

WHOLE = 0.99
"""Share of a structure that its pieces make from the largest on; what is beyond is how the label was drawn."""

MARGIN = 0.1
"""Of the smallest piece of the training labels: a smaller one of a prediction is a speck. A piece that a network tears
off a thin structure is larger."""

LOOKED_AT = 20
"""Training labels, evenly among all: more say little more."""

_NEIGHBOURS = np.ones((3, 3, 3))


def smallest_pieces(store: AnyStore, subjects: Sequence[str]) -> dict[str, float]:
    """Structure -> its smallest piece in these subjects' labels, as a share of its volume in that subject.

    Structures that no label shows are left out, and all of slices of which some are not consecutive.
    """
    if isinstance(store, SliceStore) and store.scattered(subjects):
        return {}
    some = [subjects[i] for i in np.unique(np.linspace(0, len(subjects) - 1, LOOKED_AT).astype(int))]
    smallest: dict[str, float] = {}
    for subject in some:
        codes = store.codes(subject)
        for structure in store.marked(subject):
            mask = mask_of(codes, store.spec.structures.index(structure), store.spec.exclusive)
            box = _around(mask)
            if box is not None:
                smallest[structure] = min(smallest.get(structure, 1.0), _smallest(mask[box]))
    return smallest


def _smallest(mask: NDArray[np.bool_]) -> float:
    sizes = np.sort(_pieces(mask)[1])[::-1]
    so_far = np.cumsum(sizes) / sizes.sum()
    return float(sizes[np.searchsorted(so_far, WHOLE)] / sizes.sum())


def without_specks(
    codes: UInt8[np.ndarray, "x y z"], spec: DatasetSpec, smallest: Mapping[str, float]
) -> UInt8[np.ndarray, "x y z"]:
    """Codes (`preprocess.codes`) without the specks by `smallest_pieces`, which become background."""
    out = codes
    boxes = ndimage.find_objects(codes, len(spec.structures)) if spec.exclusive else []
    for i, structure in enumerate(spec.structures):
        if structure not in smallest:
            continue
        box = boxes[i] if spec.exclusive else _around(mask_of(codes, i, False))
        if box is None:
            continue
        labels, sizes = _pieces(mask_of(codes[box], i, spec.exclusive))
        small = sizes < MARGIN * smallest[structure] * sizes.sum()
        if small.any():
            out = out.copy() if out is codes else out
            specks = np.concatenate([[False], small])[labels]
            out[box][specks] = 0 if spec.exclusive else out[box][specks] & ~np.uint8(1 << i)
    return out


def _around(mask: NDArray[np.bool_]) -> tuple[slice, ...] | None:
    """The smallest box that holds a mask, as most of a volume is not worth looking at; None: it is empty."""
    found = ndimage.find_objects(mask.view(np.uint8))
    return tuple(found[0]) if found else None


def _pieces(mask: Bool[np.ndarray, "x y z"]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Components that touch by faces, edges or corners, numbered from 1, and how many voxels each has."""
    labels, _ = ndimage.label(mask, _NEIGHBOURS)
    return labels, np.bincount(labels.ravel())[1:]
