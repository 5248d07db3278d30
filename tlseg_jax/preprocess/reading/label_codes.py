"""A label map as codes of its structures (`preprocess.codes`), a plane at a time."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.structures import ALL, Labels
from tlseg_jax.preprocess.codes import UNMARKED, encode
from tlseg_jax.preprocess.reading.header import Header, named_values, places_of
from tlseg_jax.preprocess.reading.planes import stream_planes, whole_numbers
from tlseg_jax.preprocess.reading.scan_file import fault

_TABLE = 1 << 16  # label values below this are looked up in a table; others are rare and sorted

_Ours = tuple[tuple[int, ...], ...]
"""For each structure the values that make it on one layer."""


@dataclasses.dataclass(frozen=True, eq=False)
class LabelCodes:
    """A label map as codes of the structures.

    Attributes:
      codes: in the file's own axes.
      seen: for each layer the values that are on it; 0 may be left out.
    """

    codes: UInt8[np.ndarray, "i j k"]
    seen: tuple[set[int], ...]

    @property
    def values(self) -> list[int]:
        """All that are there, sorted, without 0."""
        return sorted(set().union(*self.seen) - {0})


def read_label_codes(path: Path, header: Header, labels: Labels) -> LabelCodes:
    """A label map of any stored type as one byte a voxel.

    A single structure whose values are not named, or all, is every value above 0.

    Raises:
      ExclusionError: the file cannot be read, or holds values that are not finite or not whole.
    """
    unnamed = labels.values in ((ALL,), ((),))
    places = [] if unnamed else [[p for v in of for p in places_of(path, header, v)] for of in labels.values]
    codes = np.zeros(header.shape, np.uint8, order="F")
    seen = []
    for layer in range(header.layers):
        ours = None if unnamed else tuple(tuple(v for at, v in of if at == layer) for of in places)
        seen.append(_add_codes(codes, path, header, layer, ours, labels))
    return LabelCodes(codes, tuple(seen))


def check_no_others(path: Path, header: Header, labels: Labels, found: LabelCodes, name: str) -> None:
    """Check that a label map holds no values but those of its structures and of the background.

    Args:
      name: the data set's.

    Raises:
      ExclusionError: it does.
    """
    known = {p for values in labels.values for v in values for p in places_of(path, header, v)}
    others = {v for layer, values in enumerate(found.seen) for v in values if (layer, v) not in known}
    strangers = sorted(others - {0, labels.unmarked})
    if not strangers:
        return
    shown = ", ".join(f"{s} {'+'.join(map(str, v))}" for s, v in zip(labels.structures, labels.values, strict=True))
    word = "values" if len(strangers) > 1 else "value"
    raise fault(
        path,
        f"holds the label {word} {named_values(header, strangers)}, beyond those of {name} ({shown})",
        "correct it, or say what the values mean with `structures`, as in `structures=liver:1+2,tumour:2`",
    )


def _add_codes(
    codes: NDArray[np.uint8], path: Path, header: Header, layer: int, ours: _Ours | None, labels: Labels
) -> set[int]:
    """Set the codes that one layer says; returns the values that are on it."""
    seen: set[int] = set()
    table = _codes_of(np.arange(_TABLE), ours, labels)
    # Of exclusive structures that overlap on layers the last counts.
    put = np.maximum if labels.exclusive else np.bitwise_or
    for k, stored in enumerate(stream_planes(path, header, layer)):
        if not header.scaled and not table[0] and not stored.any():  # NaN is not nought
            continue
        index = _small_whole_numbers(header, stored)
        if index is not None:
            codes[:, :, k] = put(codes[:, :, k], table[index])
            seen.update(np.flatnonzero(np.bincount(index.ravel(order="K"))).tolist())
        else:
            whole = whole_numbers(path, header, stored, f"voxels of slice {k}")
            values, inverse = np.unique(whole, return_inverse=True)
            codes[:, :, k] = put(codes[:, :, k], _codes_of(values, ours, labels)[inverse.reshape(stored.shape)])
            seen.update(int(v) for v in values)
    return seen


def _codes_of(values: NDArray[Any], ours: _Ours | None, labels: Labels) -> NDArray[np.uint8]:
    """The byte that each label value becomes."""
    out = encode([values > 0] if ours is None else [np.isin(values, wanted) for wanted in ours], labels.exclusive)
    if labels.unmarked is not None:
        out[values == labels.unmarked] = UNMARKED
    return out


def _small_whole_numbers(header: Header, stored: NDArray[Any]) -> NDArray[np.uint16] | None:
    """A plane of a label map as indices into the table, where all its values are; the usual case, and quick."""
    if header.scaled:
        return None
    with np.errstate(invalid="ignore"):  # NaN and what does not fit come back as another number
        index = stored.astype(np.uint16)
    return index if (index == stored).all() else None
