"""Tumours found, missed and made up: agreement counted in tumours and not in voxels.

A tumour is a connected component of the mask in three dimensions; voxels that share a face, an edge or a
corner are connected (26-neighbourhood). A tumour of the reference is found where one component of the
prediction overlaps it by at least half, that is, with an intersection over union of 0.5 or more: the
"detection at 50% overlap" of the LiTS benchmark (Bilic et al. 2019). Matching is one to one, so a
component that covers two tumours finds one at most, and a tumour covered by two components leaves one of
them false. Of all matchings of pairs that overlap enough, one with the most pairs is taken; above one
half no tumour has two candidates and there is no choice.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage, sparse
from scipy.sparse import csgraph

OVERLAP = 0.5
"""Intersection over union from which on a tumour counts as found."""


@dataclasses.dataclass(frozen=True)
class Detection:
    """Tumours of one volume, or of several.

    Attributes:
      found: tumours of the reference with a component of the prediction.
      missed: tumours of the reference without one.
      false: components of the prediction that found none.
    """

    found: int
    missed: int
    false: int

    @property
    def precision(self) -> float | None:
        """Share of the predicted components that are tumours; None where nothing was predicted."""
        return self.found / (self.found + self.false) if self.found + self.false else None

    @property
    def recall(self) -> float | None:
        """Share of the tumours that were found; None where there are none."""
        return self.found / (self.found + self.missed) if self.found + self.missed else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the counts, precision and recall."""
        return dataclasses.asdict(self) | {"precision": self.precision, "recall": self.recall}


def label_components(mask: Bool[np.ndarray, "a b c"]) -> tuple[Int32[np.ndarray, "a b c"], int]:
    """Number the connected components of a mask: 0 outside and 1 to n inside; and n.

    Raises:
      ValueError: the mask is not bool or has not three axes.
    """
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise ValueError(f"expected a bool mask with three axes, not {mask.dtype} {mask.shape}")
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 3), output=np.int32)
    return labels, int(count)


def detect(
    predicted: Bool[np.ndarray, "a b c"],
    reference: Bool[np.ndarray, "a b c"],
    threshold: float = OVERLAP,
    smallest: int = 1,
) -> Detection:
    """Count the tumours of one volume, with the axes of both masks in any order.

    Args:
      threshold: intersection over union from which on a tumour counts as found, above 0 and at most 1.
      smallest: components of fewer voxels are left out of both masks; 1 leaves out none.

    Raises:
      ValueError: the masks differ in shape or are not bool, or the threshold is out of range.
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"the masks differ in shape: {predicted.shape} and {reference.shape}")
    if not 0 < threshold <= 1:
        raise ValueError(f"an overlap of {threshold} is not usable")
    ours, n_ours = label_components(predicted)
    theirs, n_theirs = label_components(reference)
    size_ours = np.bincount(ours.ravel(), minlength=n_ours + 1)
    size_theirs = np.bincount(theirs.ravel(), minlength=n_theirs + 1)
    inside = (ours > 0) & (theirs > 0)
    pairs, both = np.unique(np.stack([theirs[inside], ours[inside]]), axis=1, return_counts=True)
    t, p = pairs
    enough = both >= threshold * (size_theirs[t] + size_ours[p] - both)
    enough &= (size_theirs[t] >= smallest) & (size_ours[p] >= smallest)
    found = 0
    if enough.any():
        graph = sparse.csr_array((np.ones(enough.sum(), np.int8), (t[enough], p[enough])), (n_theirs + 1, n_ours + 1))
        found = int(np.count_nonzero(csgraph.maximum_bipartite_matching(graph) >= 0))
    tumours = int(np.count_nonzero(size_theirs[1:] >= smallest))
    components = int(np.count_nonzero(size_ours[1:] >= smallest))
    return Detection(found, tumours - found, components - found)


def pool(detections: Iterable[Detection]) -> Detection:
    """The tumours of several volumes counted together, each tumour with the same weight."""
    all_of = tuple(detections)
    return Detection(sum(d.found for d in all_of), sum(d.missed for d in all_of), sum(d.false for d in all_of))
