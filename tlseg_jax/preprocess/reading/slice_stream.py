"""A label map of slices as bits, one a structure."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.reading.header import Header, places_of, with_name
from tlseg_jax.preprocess.reading.planes import Clock, stream_planes, whole_numbers
from tlseg_jax.preprocess.reading.scan_file import fault

_NAMED_VALUES = 12
_TABLE = 1 << 16  # label values below this are looked up in a table; others are rare and sorted


@dataclasses.dataclass(frozen=True, eq=False)
class LabelBits:
    """A label map as bits.

    Attributes:
      bits: in the file's own axes; bit n is set where structure n of the spec is.
      voxels: of each structure.
    """

    bits: UInt8[np.ndarray, "i j k"]
    voxels: tuple[int, ...]


def read_label_bits(path: Path, header: Header, spec: DatasetSpec, clock: Clock) -> LabelBits:
    """A label map of any stored type as one byte a voxel.

    Raises:
      ExclusionError: the file cannot be read, holds values that are not finite or not whole, or values that
        no structure of `spec` names, where those are not background.
    """
    places = [[place for v in values for place in places_of(path, header, v)] for values in spec.label_values]
    bits = np.zeros(header.shape, np.uint8, order="F")
    found: set[int] = set()
    for layer in range(header.layers):
        ours = tuple(tuple(v for at, v in of_one if at == layer) for of_one in places)
        seen = _add_bits(bits, path, header, layer, ours, clock)
        found |= seen - {v for values in ours for v in values}
    counts = np.zeros(256, np.int64)
    for k in range(header.shape[2]):
        counts += np.bincount(bits[:, :, k].ravel(order="K"), minlength=256)
    strangers = sorted(found - {0})
    if strangers and spec.planes.other_values == "refuse":
        named = ", ".join(with_name(header, v) for v in strangers[:_NAMED_VALUES])
        more = f" and {len(strangers) - _NAMED_VALUES} more" if len(strangers) > _NAMED_VALUES else ""
        values_of = zip(spec.structures, spec.label_values, strict=True)
        known = ", ".join(f"{s} {'+'.join(map(str, v))}" for s, v in values_of)
        word = "values" if len(strangers) > 1 else "value"
        raise fault(
            path,
            f"holds the label {word} {named}{more}, beyond those of {spec.name} ({known})",
            "correct it, or say what the values mean with `structures`, as in `structures=liver:1+2,tumour:2`",
        )
    has = (np.arange(256)[:, None] >> np.arange(len(spec.structures))) & 1
    return LabelBits(bits, tuple(int(n) for n in counts @ has))


def _add_bits(
    bits: NDArray[np.uint8], path: Path, header: Header, layer: int, ours: tuple[tuple[int, ...], ...], clock: Clock
) -> set[int]:
    """Set the bits that one layer says; returns the values that are on it.

    Args:
      bits: (i, j, k), written to.
      path: the label map.
      header: its header.
      layer: which layer.
      ours: the values on it that make each structure.
      clock: the seconds of reading are added to it.
    """
    seen: set[int] = set()
    table = _bits_of(np.arange(_TABLE), ours)
    for k, stored in enumerate(stream_planes(path, header, clock, layer)):
        if not header.scaled and not stored.any():  # NaN is not nought
            continue
        index = _small_whole_numbers(header, stored)
        if index is not None:
            bits[:, :, k] |= table[index]
            seen.update(np.flatnonzero(np.bincount(index.ravel(order="K"))).tolist())
        else:
            whole = whole_numbers(path, header, stored, "voxels of a slice")
            values, inverse = np.unique(whole, return_inverse=True)
            bits[:, :, k] |= _bits_of(values, ours)[inverse.reshape(stored.shape)]
            seen.update(int(v) for v in values)
    return seen


def _bits_of(values: NDArray[Any], ours: tuple[tuple[int, ...], ...]) -> NDArray[np.uint8]:
    """The byte that each label value becomes."""
    out = np.zeros(len(values), np.uint8)
    for bit, wanted in enumerate(ours):
        out[np.isin(values, wanted)] |= 1 << bit
    return out


def _small_whole_numbers(header: Header, stored: NDArray[Any]) -> NDArray[np.uint16] | None:
    """A plane of a label map as indices into the table, where all its values are; the usual case, and quick."""
    if header.scaled:
        return None
    with np.errstate(invalid="ignore"):  # NaN and what does not fit come back as another number
        index = stored.astype(np.uint16)
    return index if (index == stored).all() else None
