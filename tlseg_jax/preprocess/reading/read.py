"""One subject's files, read into checked arrays.

A file is decompressed to its end, so that gzip's checksum is verified.
"""

from collections.abc import Collection
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.label_names import values_in_words
from tlseg_jax.datasets.structures import ALL, ANY_VALUE, Labels, LabelValues
from tlseg_jax.preprocess.codes import anywhere
from tlseg_jax.preprocess.reading.header import Header, named_values, places_of, read_header
from tlseg_jax.preprocess.reading.label_codes import read_label_codes
from tlseg_jax.preprocess.reading.planes import check_finite, rounding_of, scaled, stream_planes
from tlseg_jax.preprocess.reading.same_grid import read_others, turn_onto, turned
from tlseg_jax.preprocess.reading.scan import Scan, ScanFiles, UnnamedValuesError
from tlseg_jax.preprocess.reading.scan_file import fault

__all__ = ["Header", "read_header", "read_scan"]

_SIDES = 2
"""Values up to which a structure is whole with all of them alone, as one of each side is."""


def read_scan(files: ScanFiles, labels: Labels = ANY_VALUE) -> Scan:
    """Read and check one subject.

    Returns:
      image (x, y, z) float32, label (x, y, z) codes (`preprocess.codes`) and mask (x, y, z) bool, on the axes of
      the image's file. A mask is every voxel above 0: a skull-stripped scan (FreeSurfer's brainmask) serves as one.

    Raises:
      ExclusionError: a file cannot be read (see `read_header`), the grids differ, a voxel of the image
        is not finite or all are equal, or the label map or mask is empty, is not of whole
        numbers (labels), lacks one of the two values of a single structure or all of more, or holds several where
        none is named.
    """
    header = read_header(files.image)
    others, warnings = read_others(files, header)
    label, mask, values = None, None, labels.values
    if files.label is not None:
        label, values, absent = _read_label(files.label, others[files.label], labels, files.marked)
        label = turned(label, turn_onto(header, others[files.label]))
        warnings.append(absent)
    image = _read_voxels(files.image, header)
    if image.min() == image.max():
        raise fault(files.image, f"is constant (every voxel is {image.flat[0]:g})", "export the scan again")
    if files.mask is not None:
        mask = turned(_read_mask(files.mask, others[files.mask]), turn_onto(header, others[files.mask]))
    return Scan(image, header.affine, label, mask, values, tuple(w for w in warnings if w))


def _read_voxels(path: Path, header: Header) -> NDArray[np.float32]:
    image = np.empty(header.shape, np.float32, order="F")
    for k, stored in enumerate(stream_planes(path, header)):
        image[:, :, k] = scaled(header, stored)
    check_finite(path, image, "voxels")
    return image


def check_values_named(path: Path, labels: Labels) -> None:
    """Check that a label map holds one value alone, as none is named.

    Raises:
      UnnamedValuesError: it holds several.
      ExclusionError: it cannot be read, or no voxel is above 0.
    """
    _read_label(path, read_header(path), labels, ())


def _read_label(
    path: Path, header: Header, labels: Labels, marked: Collection[str]
) -> tuple[NDArray[np.uint8], tuple[LabelValues, ...], str]:
    """The codes of the structures' voxels, the values that make them, and a warning of what is not there."""
    found = read_label_codes(path, header, labels)
    codes, there = found.codes, named_values(header, found.values) if found.values else "only 0"
    if labels.values in ((ALL,), ((),)):
        if not codes.any():
            raise fault(path, "is an empty label map (no voxel is above 0)", "label the scan or leave it out")
        if labels.values == (ALL,):
            return codes, labels.values, ""
        several = [v for values in found.seen for v in sorted(values - {0})]
        if len(several) > 1:
            (structure,) = labels.structures
            segments = ", ".join(f"'{s.name}' {s.value}" for s in header.segments)
            raise UnnamedValuesError(
                f"{path} holds {len(several)} label values and none is named as the {structure}: name those that "
                "make it with `label_values=A,B`, or take every value above 0 with `label_values=all` (it holds "
                f"{segments or values_in_words(several, structure)})."
            )
        return codes, ((several[0],),), ""
    missing = [
        f"{value} ({structure})" if len(labels.structures) > 1 else str(value)
        for structure, values_of in zip(labels.structures, labels.values, strict=True)
        for value in values_of
        if not marked or structure in marked
        if not any(v in found.seen[layer] for layer, v in places_of(path, header, value))
    ]
    # Of a structure of many parts a small one may well not be there; of one with a value a side it is a fault.
    whole = len(labels.structures) == 1 and len(labels.values[0]) <= _SIDES
    if missing and (whole or not anywhere(codes).any()):
        what = f"the label value {missing[0]}" if len(missing) == 1 else f"the label values {', '.join(missing)}"
        setting = "label_values" if len(labels.structures) == 1 else "structures"
        raise fault(path, f"has no voxel of {what} (it has {there})", f"check `{setting}`")
    absent = f"{path} has no voxel of {', '.join(missing)}: taken as not there." if missing else ""
    return codes, labels.values, absent


def _read_mask(path: Path, header: Header) -> NDArray[np.bool_]:
    # What was nought before it became a multiple of the slope may be half of one now.
    mask = np.asarray(_read_voxels(path, header) > rounding_of(header), np.bool_)
    if not mask.any():
        raise fault(path, "is an empty mask (no voxel is above 0)", "correct it, or give none")
    return mask
