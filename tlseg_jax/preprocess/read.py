"""One subject's files, read into checked arrays.

A file is decompressed to its end, so that gzip's checksum is verified, and parsed from memory.
"""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.label_names import values_in_words
from tlseg_jax.datasets.spec import LabelValues
from tlseg_jax.preprocess.header import Header, check_same_grid, read_header
from tlseg_jax.preprocess.scan import Scan, ScanFiles, UnnamedValuesError
from tlseg_jax.preprocess.scan_file import AGAIN, fault, is_gzipped, one_sentence, open_plain

__all__ = ["Header", "read_header", "read_scan"]

_TRAILER_BYTES = 1 << 20  # MGH keeps scanner parameters after the voxels; no format keeps more than this
_WHOLE = 1e-3  # float label maps saved with a scale factor are off by rounding
_NAMED_VALUES = 12


def read_scan(files: ScanFiles, label_values: LabelValues = (), structure: str = "structure") -> Scan:
    """Read and check one subject.

    Args:
      files: where the image and, if any, the label map and the brain mask are.
      label_values: values of the label map that make the structure, each of which must occur; "all" takes every
        value above 0, and empty the one that the map holds.
      structure: what they make, for messages.

    Returns:
      image (x, y, z) float32, label and mask (x, y, z) bool, all in the file's own axes. A mask is
      every voxel above 0, so that a skull-stripped scan (FreeSurfer's brainmask) serves as one.

    Raises:
      ExclusionError: a file cannot be read (see `read_header`), the grids differ, a voxel of the image
        is not finite or all are equal, or the label map or mask is empty, is not of whole
        numbers (labels), lacks one of `label_values`, or holds several where none is named.
    """
    header = read_header(files.image)
    others: dict[Path, Header] = {}
    for path in (files.label, files.mask):
        if path is not None:
            others[path] = read_header(path)
            check_same_grid(files.image, header, path, others[path])
    label = mask = None
    if files.label is not None:
        label, label_values = _read_label(files.label, others[files.label], label_values, structure)
    image = _read_image(files.image, header)
    if files.mask is not None:
        mask = _read_mask(files.mask, others[files.mask])
    return Scan(image, header.affine, label, mask, () if label_values == "all" else label_values)


def _read_image(path: Path, header: Header) -> NDArray[np.float32]:
    image = _voxels(path, header, np.dtype(np.float32))
    _check_finite(path, image)
    if image.min() == image.max():
        raise fault(path, f"is constant (every voxel is {image.flat[0]:g})", "export the scan again")
    return image


def check_values_named(path: Path, structure: str) -> None:
    """Check that a label map holds one value alone, as none is named.

    Raises:
      UnnamedValuesError: it holds several.
      ExclusionError: it cannot be read, or no voxel is above 0.
    """
    _read_label(path, read_header(path), (), structure)


def _read_label(
    path: Path, header: Header, values: LabelValues, structure: str
) -> tuple[NDArray[np.bool_], LabelValues]:
    """The structure's voxels, and the values that make it."""
    stored = _voxels(path, header, None)
    if stored.dtype.kind == "f":
        _check_finite(path, stored)
        whole = np.rint(stored)
        off = np.abs(stored - whole) > _WHOLE
        if off.any():
            raise fault(
                path,
                f"is not a label map, as it holds {stored[off][0]:g}, which is not a whole number",
                "export it with nearest-neighbour interpolation, or check that it is the right file",
            )
        stored = whole
    if not values or values == "all":
        label = np.asarray(stored > 0, np.bool_)
        if not label.any():
            raise fault(path, "is an empty label map (no voxel is above 0)", "label the scan or leave it out")
        if not values:
            found = [int(v) for v in np.unique(stored[stored != 0])]
            if len(found) > 1:
                raise UnnamedValuesError(
                    f"{path} holds {len(found)} label values and none is named as the {structure}: name those that "
                    "make it with --label_values=A,B, or take every value above 0 with --label_values=all (it holds "
                    f"{values_in_words(found, structure)})."
                )
            values = (found[0],)
        return label, values
    label = np.zeros(stored.shape, np.bool_)
    for value in values:
        here = stored == value
        if not here.any():
            raise fault(
                path,
                f"has no voxel of the label value {value} (it has {_some_values(stored)})",
                "check --label_values",
            )
        label |= here
    return label, values


def _read_mask(path: Path, header: Header) -> NDArray[np.bool_]:
    stored = _voxels(path, header, None)
    _check_finite(path, stored)
    mask = np.asarray(stored > 0, np.bool_)
    if not mask.any():
        raise fault(path, "is an empty mask (no voxel is above 0)", "correct it, or give none")
    return mask


def _voxels(path: Path, header: Header, dtype: np.dtype[np.float32] | None) -> NDArray[Any]:
    """The scaled voxels, (x, y, z), as `dtype` or as they come."""
    with one_sentence(path):
        with open_plain(path) as f:
            content = f.read(header.end + _TRAILER_BYTES)
            if is_gzipped(path) and f.read(1):  # a file that goes on for ever is not a scan
                raise fault(path, "holds far more data than its header says", "export the scan again")
        if len(content) < header.end:
            raise fault(
                path,
                f"is cut short (it needs {header.end:,} bytes and holds {len(content):,})",
                AGAIN,
            )
        kind: Any
        if path.name.lower().endswith((".mgz", ".mgh")):
            kind = nib.MGHImage
        else:
            kind = nib.Nifti2Image if content[4:6] == b"n+" else nib.Nifti1Image
        array: NDArray[Any] = np.asanyarray(kind.from_bytes(content).dataobj, dtype)
        return array.reshape(header.shape)


def _check_finite(path: Path, array: NDArray[Any]) -> None:
    finite = np.isfinite(array)
    if not finite.all():
        count = int(array.size - np.count_nonzero(finite))
        raise fault(
            path,
            f"is NaN or infinite in {count:,} of its {array.size:,} voxels",
            "replace them (often the background) and save the file again",
        )


def _some_values(stored: NDArray[Any]) -> str:
    """A few of the values that are there, for a message."""
    values = np.unique(stored)
    values = values[values != 0]
    if not len(values):
        return "only 0"
    text = ", ".join(f"{v:.0f}" for v in values[:_NAMED_VALUES])
    return text + (f" and {len(values) - _NAMED_VALUES} more" if len(values) > _NAMED_VALUES else "")
