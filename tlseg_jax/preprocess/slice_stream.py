"""A volume's file read a plane at a time along its slowest axis, so that it never stands whole in memory."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.slice_spec import SliceSpec
from tlseg_jax.preprocess.header import Header
from tlseg_jax.preprocess.scan_file import AGAIN, fault, is_gzipped, one_sentence, open_plain

_TRAILER_BYTES = 1 << 20  # MGH keeps scanner parameters after the voxels; no format keeps more than this
_WHOLE = 1e-3  # float label maps saved with a scale factor are off by rounding
_NAMED_VALUES = 12
_TABLE = 1 << 16  # label values below this are looked up in a table; others are rare and sorted


@dataclasses.dataclass
class Clock:
    """Seconds spent on reading and decompressing, which no code of ours can shorten."""

    decompress: float = 0.0


def stream_planes(path: Path, header: Header, clock: Clock) -> Iterator[NDArray[Any]]:
    """The planes (i, j) of a file along its third axis, the slowest, unscaled and in the stored type.

    The file is read to its end, so that gzip's checksum is verified.

    Args:
      path: a file of one of the formats of `read_header`.
      header: its header.
      clock: the seconds of reading are added to it.

    Raises:
      ExclusionError: the file is cut short, damaged or goes on for ever.
    """
    dtype = np.dtype(header.byteorder + np.dtype(header.dtype).str[1:])
    sides, planes = header.shape[:2], header.shape[2]
    bytes_of_plane = sides[0] * sides[1] * dtype.itemsize
    start = header.end - bytes_of_plane * planes
    with one_sentence(path), open_plain(path) as f:

        def read(count: int) -> bytes:
            begin = time.perf_counter()
            content = f.read(count)
            clock.decompress += time.perf_counter() - begin
            return content

        got = len(read(start))
        for _ in range(planes):
            content = read(bytes_of_plane)
            got += len(content)
            if len(content) < bytes_of_plane:
                raise fault(path, f"is cut short (it needs {header.end:,} bytes and holds {got:,})", AGAIN)
            yield np.frombuffer(content, dtype).reshape(sides, order="F")
        if len(read(_TRAILER_BYTES)) == _TRAILER_BYTES and is_gzipped(path) and read(1):
            raise fault(path, "holds far more data than its header says", "export the scan again")


@dataclasses.dataclass(frozen=True, eq=False)
class LabelBits:
    """A label map as bits.

    Attributes:
      bits: (i, j, k) uint8 in the file's own axes; bit n is set where structure n of the spec is.
      voxels: of each structure.
    """

    bits: NDArray[np.uint8]
    voxels: tuple[int, ...]


def read_label_bits(path: Path, header: Header, spec: SliceSpec, clock: Clock) -> LabelBits:
    """A label map of any stored type as one byte a voxel.

    Raises:
      ExclusionError: the file cannot be read, holds values that are not finite or not whole, or values that
        no structure of `spec` names, where those are not background.
    """
    bits = np.zeros(header.shape, np.uint8, order="F")
    counts = np.zeros(256, np.int64)
    seen: set[int] = set()
    table = _bits_of(np.arange(_TABLE), spec)
    for k, stored in enumerate(stream_planes(path, header, clock)):
        if not header.scaled and not stored.any():  # NaN is not nought
            seen.add(0)
            counts[0] += stored.size
            continue
        index = _small_whole_numbers(header, stored)
        if index is not None:
            bits[:, :, k] = table[index]
            seen.update(np.flatnonzero(np.bincount(index.ravel(order="K"))).tolist())
        else:
            values, inverse = np.unique(_whole_numbers(path, header, stored), return_inverse=True)
            bits[:, :, k] = _bits_of(values, spec)[inverse.reshape(stored.shape)]
            seen.update(int(v) for v in values)
        counts += np.bincount(bits[:, :, k].ravel(order="K"), minlength=256)
    strangers = sorted(seen - {0} - {v for values in spec.label_values for v in values})
    if strangers and spec.other_values == "refuse":
        named = ", ".join(map(str, strangers[:_NAMED_VALUES]))
        more = f" and {len(strangers) - _NAMED_VALUES} more" if len(strangers) > _NAMED_VALUES else ""
        values_of = zip(spec.structures, spec.label_values, strict=True)
        ours = ", ".join(f"{s} {'+'.join(map(str, v))}" for s, v in values_of)
        word = "values" if len(strangers) > 1 else "value"
        raise fault(
            path,
            f"holds the label {word} {named}{more}, beyond those of {spec.name} ({ours})",
            "correct it, or say what the values mean with --labels, as in --labels=liver:1+2,tumour:2",
        )
    has = (np.arange(256)[:, None] >> np.arange(len(spec.structures))) & 1
    return LabelBits(bits, tuple(int(n) for n in counts @ has))


def _bits_of(values: NDArray[Any], spec: SliceSpec) -> NDArray[np.uint8]:
    """The byte that each label value becomes."""
    out = np.zeros(len(values), np.uint8)
    for bit, wanted in enumerate(spec.label_values):
        out[np.isin(values, wanted)] |= 1 << bit
    return out


def _small_whole_numbers(header: Header, stored: NDArray[Any]) -> NDArray[np.uint16] | None:
    """A plane of a label map as indices into the table, where all its values are; the usual case, and quick."""
    if header.scaled:
        return None
    with np.errstate(invalid="ignore"):  # NaN and what does not fit come back as another number
        index = stored.astype(np.uint16)
    return index if (index == stored).all() else None


def _whole_numbers(path: Path, header: Header, stored: NDArray[Any]) -> NDArray[Any]:
    """A plane of a label map, scaled, as whole numbers."""
    if stored.dtype.kind in "iu" and not header.scaled:
        return stored
    values = stored.astype(np.float64) * header.slope + header.inter
    check_finite(path, values, "voxels of a slice")
    whole = np.rint(values)
    off = np.abs(values - whole) > _WHOLE
    if off.any():
        raise fault(
            path,
            f"is not a label map, as it holds {values[off][0]:g}, which is not a whole number",
            "export it with nearest-neighbour interpolation, or check that it is the right file",
        )
    return whole


def check_finite(path: Path, values: NDArray[Any], of: str) -> None:
    """Raises ExclusionError: a value is NaN or infinite."""
    finite = np.isfinite(values)
    if not finite.all():
        count = int(values.size - np.count_nonzero(finite))
        raise fault(
            path,
            f"is NaN or infinite in {count:,} of the {values.size:,} {of}",
            "replace them (often the background) and save the file again",
        )
