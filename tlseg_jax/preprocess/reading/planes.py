"""An image's voxels, whatever its format: a plane at a time along the slowest axis, and as numbers that are meant."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from jaxtyping import Float32, Shaped
from numpy.typing import NDArray

from tlseg_jax.preprocess.reading.dicom import read_slice
from tlseg_jax.preprocess.reading.formats import META, extension_of
from tlseg_jax.preprocess.reading.header import Header
from tlseg_jax.preprocess.reading.header_itk import check_meta_data, open_itk
from tlseg_jax.preprocess.reading.scan_file import AGAIN, fault, is_gzipped, one_sentence, open_plain

_TRAILER_BYTES = 1 << 20  # MGH keeps scanner parameters after the voxels; no format keeps more than this
_WHOLE = 1e-3  # float label maps saved with a scale factor are off by rounding


def stream_planes(path: Path, header: Header, layer: int = 0) -> Iterator[NDArray[Any]]:
    """The planes (i, j) of an image along its third axis, the slowest, unscaled and in the stored type.

    Files are read to their end, so that gzip's checksum is verified; SimpleITK holds NRRD and MetaImage whole.

    Args:
      layer: which of `header.layers`.

    Raises:
      ExclusionError: the file is cut short, damaged or goes on for ever.
    """
    if header.reader != "bytes":
        yield from _through_itk(path, header, layer)
        return
    dtype = np.dtype(header.byteorder + np.dtype(header.dtype).str[1:])
    sides, planes = header.shape[:2], header.shape[2]
    bytes_of_plane = sides[0] * sides[1] * dtype.itemsize
    start = header.end - bytes_of_plane * planes
    with one_sentence(path), open_plain(header.files[0]) as f:
        got = len(f.read(start))
        for _ in range(planes):
            content = f.read(bytes_of_plane)
            got += len(content)
            if len(content) < bytes_of_plane:
                raise fault(path, f"is cut short (it needs {header.end:,} bytes and holds {got:,})", AGAIN)
            yield np.frombuffer(content, dtype).reshape(sides, order="F")
        if len(f.read(_TRAILER_BYTES)) == _TRAILER_BYTES and is_gzipped(path) and f.read(1):
            raise fault(path, "holds far more data than its header says", "export the scan again")


def _through_itk(path: Path, header: Header, layer: int) -> Iterator[NDArray[Any]]:
    """The planes of a DICOM series, read one by one, or of a file that SimpleITK reads whole."""
    with one_sentence(path):
        if header.reader == "dicom":
            for file in header.files:
                yield read_slice(file).astype(header.dtype, copy=False)
            return
        if extension_of(path) in META:
            check_meta_data(path, header.end)
        array = sitk.GetArrayFromImage(open_itk(path).Execute())  # a copy: planes may be kept for long
        array = array.reshape(*header.shape[::-1], header.layers)
        for k in range(header.shape[2]):
            yield array[k, ..., layer].T


def scaled(header: Header, stored: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Stored values in the image's units."""
    with np.errstate(all="ignore"):
        if not header.scaled:
            return stored.astype(np.float32)
        return (stored.astype(np.float64) * header.slope + header.inter).astype(np.float32)


class VoxelDigest:
    """SHA-256 of an image's voxels as float32, in the file's order; the same whatever the format and its packing."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self._sha = hashlib.sha256(" ".join(map(str, shape)).encode())

    def add(self, plane: NDArray[Any]) -> None:
        """Take the next plane (i, j), or (i, j, k) of several, in the image's units."""
        self._sha.update((np.asarray(plane, np.float32) + np.float32(0)).T.tobytes())  # no minus nought

    @property
    def hex(self) -> str:
        """Of what was taken."""
        return self._sha.hexdigest()


def digest_of(image: Shaped[np.ndarray, "i j k"]) -> str:
    """The digest of a whole image."""
    digest = VoxelDigest((image.shape[0], image.shape[1], image.shape[2]))
    for k in range(image.shape[2]):
        digest.add(image[:, :, k])
    return digest.hex


def rounding_of(header: Header) -> float:
    """How far a value may be off for having been stored as a multiple of the slope: half of it.

    Of a slope of 1 or more nothing is said, as the nearest whole number need not be the one that was meant.
    """
    step = abs(header.slope)
    return step / 2 if header.scaled and np.dtype(header.dtype).kind in "iu" and step < 1 else 0.0


def whole_numbers(
    path: Path, header: Header, stored: Shaped[np.ndarray, "*shape"], of: str = "voxels"
) -> Shaped[np.ndarray, "*shape"]:
    """Stored values of a label map as whole numbers, of which they may be half a slope off (see `rounding_of`).

    Args:
      stored: any part of it.
      of: what the part is.

    Raises:
      ExclusionError: a value is not finite or not whole.
    """
    if stored.dtype.kind in "iu" and not header.scaled:
        return stored
    values = stored.astype(np.float64) * header.slope + header.inter if header.scaled else stored
    check_finite(path, values, of)
    whole = np.rint(values)
    off = np.abs(values - whole) > _WHOLE + rounding_of(header)
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
            f"is NaN or infinite in {count:,} of {'the' if ' ' in of else 'its'} {values.size:,} {of}",
            "replace them (often the background) and save the file again",
        )
