"""Tumours found, missed and made up: agreement counted in tumours and not in voxels.

A tumour is a connected component of the mask in three dimensions; voxels that share a face, an edge or a
corner are connected (26-neighbourhood). A tumour of the reference is found where one component of the
prediction overlaps it by at least half, that is, with an intersection over union of 0.5 or more: the
"detection at 50% overlap" of the LiTS benchmark (Bilic et al. 2019). So a component that covers two
tumours finds one at most, and a tumour covered by two components leaves one of them false: two that
overlap one by half or more would make it up between them, touch, and be one.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage

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
    """Number the connected components of a mask: 0 outside and 1 to n inside; and n."""
    labels, count = ndimage.label(mask, ndimage.generate_binary_structure(3, 3), output=np.int32)
    return labels, int(count)


def detect(predicted: Bool[np.ndarray, "a b c"], reference: Bool[np.ndarray, "a b c"]) -> Detection:
    """Count the tumours of one volume, with the axes of both masks in any order."""
    ours, n_ours = label_components(predicted)
    theirs, n_theirs = label_components(reference)
    size_ours = np.bincount(ours.ravel(), minlength=n_ours + 1)
    size_theirs = np.bincount(theirs.ravel(), minlength=n_theirs + 1)
    inside = (ours > 0) & (theirs > 0)
    pairs, both = np.unique(np.stack([theirs[inside], ours[inside]]), axis=1, return_counts=True)
    t, p = pairs
    found = int(np.count_nonzero(both >= OVERLAP * (size_theirs[t] + size_ours[p] - both)))
    return Detection(found, n_theirs - found, n_ours - found)


def pool(detections: Iterable[Detection]) -> Detection:
    """The tumours of several volumes counted together, each tumour with the same weight."""
    all_of = tuple(detections)
    return Detection(sum(d.found for d in all_of), sum(d.missed for d in all_of), sum(d.false for d in all_of))
