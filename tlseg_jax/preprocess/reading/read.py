"""One subject's files, read into checked arrays.

A file is decompressed to its end, so that gzip's checksum is verified.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.label_names import values_in_words
from tlseg_jax.datasets.spec import LabelValues
from tlseg_jax.preprocess.reading.header import Header, places_of, read_header, with_name
from tlseg_jax.preprocess.reading.planes import check_finite, rounding_of, scaled, stream_planes, whole_numbers
from tlseg_jax.preprocess.reading.same_grid import check_same_grid, turn_onto, turned
from tlseg_jax.preprocess.reading.scan import Scan, ScanFiles, UnnamedValuesError
from tlseg_jax.preprocess.reading.scan_file import fault

__all__ = ["Header", "read_header", "read_scan"]

_NAMED_VALUES = 12


def read_scan(files: ScanFiles, label_values: LabelValues = (), structure: str = "structure") -> Scan:
    """Read and check one subject.

    Args:
      files: where the image and, if any, the label map and the brain mask are.
      label_values: values of the label map (or names of segments) that make the structure, each of which must
        occur; "all" takes every value above 0, and empty the one that the map holds.
      structure: what they make, for messages.

    Returns:
      image (x, y, z) float32, label and mask (x, y, z) bool, all on the axes of the image's file. A mask is
      every voxel above 0, so that a skull-stripped scan (FreeSurfer's brainmask) serves as one.

    Raises:
      ExclusionError: a file cannot be read (see `read_header`), the grids differ, a voxel of the image
        is not finite or all are equal, or the label map or mask is empty, is not of whole
        numbers (labels), lacks one of `label_values`, or holds several where none is named.
    """
    header = read_header(files.image)
    others: dict[Path, Header] = {}
    warnings = [header.warning]
    for path in (files.label, files.mask):
        if path is not None:
            others[path] = read_header(path)
            warnings += [others[path].warning, check_same_grid(files.image, header, path, others[path])]
    label = mask = None
    if files.label is not None:
        label, label_values = _read_label(files.label, others[files.label], label_values, structure)
        label = turned(label, turn_onto(header, others[files.label]))
    image = _read_image(files.image, header)
    if files.mask is not None:
        mask = turned(_read_mask(files.mask, others[files.mask]), turn_onto(header, others[files.mask]))
    values = () if label_values == "all" else label_values
    return Scan(image, header.affine, label, mask, values, tuple(w for w in warnings if w))


def _read_image(path: Path, header: Header) -> NDArray[np.float32]:
    image = np.empty(header.shape, np.float32, order="F")
    for k, stored in enumerate(stream_planes(path, header)):
        image[:, :, k] = scaled(header, stored)
    check_finite(path, image, "voxels")
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
    layers = [whole_numbers(path, header, _stored(path, header, n)) for n in range(header.layers)]
    label = np.zeros(header.shape, np.bool_, order="F")
    if not values or values == "all":
        for layer in layers:
            label |= layer > 0
        if not label.any():
            raise fault(path, "is an empty label map (no voxel is above 0)", "label the scan or leave it out")
        if not values:
            found = [int(v) for layer in layers for v in np.unique(layer[layer != 0])]
            if len(found) > 1:
                segments = ", ".join(f"'{s.name}' {s.value}" for s in header.segments)
                raise UnnamedValuesError(
                    f"{path} holds {len(found)} label values and none is named as the {structure}: name those that "
                    "make it with `label_values=A,B`, or take every value above 0 with `label_values=all` (it holds "
                    f"{segments or values_in_words(found, structure)})."
                )
            values = (found[0],)
        return label, values
    for value in values:
        here = np.zeros(header.shape, np.bool_, order="F")
        for n, wanted in places_of(path, header, value):
            here |= layers[n] == wanted
        if not here.any():
            what = f"the label value {value}" if isinstance(value, int) else f"the segment '{value}'"
            raise fault(path, f"has no voxel of {what} (it has {_some_values(header, layers)})", "check `label_values`")
        label |= here
    return label, values


def _read_mask(path: Path, header: Header) -> NDArray[np.bool_]:
    stored = scaled(header, _stored(path, header))
    check_finite(path, stored, "voxels")
    # What was nought before it became a multiple of the slope may be half of one now.
    mask = np.asarray(stored > rounding_of(header), np.bool_)
    if not mask.any():
        raise fault(path, "is an empty mask (no voxel is above 0)", "correct it, or give none")
    return mask


def _stored(path: Path, header: Header, layer: int = 0) -> NDArray[Any]:
    """The voxels as they are stored, (x, y, z)."""
    array = np.empty(header.shape, header.dtype, order="F")
    for k, plane in enumerate(stream_planes(path, header, layer=layer)):
        array[:, :, k] = plane
    return array


def _some_values(header: Header, layers: list[NDArray[Any]]) -> str:
    """A few of the values that are there, for a message."""
    values = sorted({int(v) for layer in layers for v in np.unique(layer)} - {0})
    if not values:
        return "only 0"
    text = ", ".join(with_name(header, v) for v in values[:_NAMED_VALUES])
    return text + (f" and {len(values) - _NAMED_VALUES} more" if len(values) > _NAMED_VALUES else "")
