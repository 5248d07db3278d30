"""A label map of slices as codes of its structures (`preprocess.codes`)."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.codes import UNMARKED, encode, mask_of
from tlseg_jax.preprocess.reading.header import Header, named_values, places_of
from tlseg_jax.preprocess.reading.planes import Clock, stream_planes, whole_numbers
from tlseg_jax.preprocess.reading.scan_file import fault

_TABLE = 1 << 16  # label values below this are looked up in a table; others are rare and sorted


@dataclasses.dataclass(frozen=True, eq=False)
class LabelCodes:
    """A label map as codes of the structures.

    Attributes:
      codes: in the file's own axes.
      voxels: of each structure.
    """

    codes: UInt8[np.ndarray, "i j k"]
    voxels: tuple[int, ...]


def read_label_codes(path: Path, header: Header, spec: DatasetSpec, clock: Clock) -> LabelCodes:
    """A label map of any stored type as one byte a voxel.

    Raises:
      ExclusionError: the file cannot be read, holds values that are not finite or not whole, or values that
        no structure of `spec` names, where those are not background.
    """
    places = [[place for v in values for place in places_of(path, header, v)] for values in spec.label_values]
    codes = np.zeros(header.shape, np.uint8, order="F")
    found: set[int] = set()
    for layer in range(header.layers):
        ours = tuple(tuple(v for at, v in of_one if at == layer) for of_one in places)
        seen = _add_codes(codes, path, header, layer, ours, spec, clock)
        found |= seen - {v for values in ours for v in values} - {spec.unmarked_value}
    counts = np.zeros(256, np.int64)
    for k in range(header.shape[2]):
        counts += np.bincount(codes[:, :, k].ravel(order="K"), minlength=256)
    strangers = sorted(found - {0})
    if strangers and spec.planes.other_values == "refuse":
        values_of = zip(spec.structures, spec.label_values, strict=True)
        known = ", ".join(f"{s} {'+'.join(map(str, v))}" for s, v in values_of)
        word = "values" if len(strangers) > 1 else "value"
        raise fault(
            path,
            f"holds the label {word} {named_values(header, strangers)}, beyond those of {spec.name} ({known})",
            "correct it, or say what the values mean with `structures`, as in `structures=liver:1+2,tumour:2`",
        )
    if spec.unmarked_value is not None:
        counts[UNMARKED] = 0
    every = np.arange(256, dtype=np.uint8)
    voxels = (int(counts[mask_of(every, i, spec.exclusive)].sum()) for i in range(len(spec.structures)))
    return LabelCodes(codes, tuple(voxels))


def _add_codes(
    codes: NDArray[np.uint8],
    path: Path,
    header: Header,
    layer: int,
    ours: tuple[tuple[int, ...], ...],
    spec: DatasetSpec,
    clock: Clock,
) -> set[int]:
    """Set the codes that one layer says; returns the values that are on it."""
    seen: set[int] = set()
    table = _codes_of(np.arange(_TABLE), ours, spec)
    # Of exclusive structures that overlap on layers the last counts.
    put = np.maximum if spec.exclusive else np.bitwise_or
    for k, stored in enumerate(stream_planes(path, header, clock, layer)):
        if not header.scaled and not stored.any():  # NaN is not nought
            continue
        index = _small_whole_numbers(header, stored)
        if index is not None:
            codes[:, :, k] = put(codes[:, :, k], table[index])
            seen.update(np.flatnonzero(np.bincount(index.ravel(order="K"))).tolist())
        else:
            whole = whole_numbers(path, header, stored, "voxels of a slice")
            values, inverse = np.unique(whole, return_inverse=True)
            codes[:, :, k] = put(codes[:, :, k], _codes_of(values, ours, spec)[inverse.reshape(stored.shape)])
            seen.update(int(v) for v in values)
    return seen


def _codes_of(values: NDArray[Any], ours: tuple[tuple[int, ...], ...], spec: DatasetSpec) -> NDArray[np.uint8]:
    """The byte that each label value becomes."""
    out = encode([np.isin(values, wanted) for wanted in ours], spec.exclusive)
    if spec.unmarked_value is not None:
        out[values == spec.unmarked_value] = UNMARKED
    return out


def _small_whole_numbers(header: Header, stored: NDArray[Any]) -> NDArray[np.uint16] | None:
    """A plane of a label map as indices into the table, where all its values are; the usual case, and quick."""
    if header.scaled:
        return None
    with np.errstate(invalid="ignore"):  # NaN and what does not fit come back as another number
        index = stored.astype(np.uint16)
    return index if (index == stored).all() else None
