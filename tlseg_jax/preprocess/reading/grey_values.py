"""Whether an image has the grey values of a scan, or is a label map that was given in a scan's place."""

from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from tlseg_jax.preprocess.reading.scan_file import fault

FEW = 8
"""An image of so few whole numbers, and no others, is no scan: 8-bit ones of a head or an abdomen have 200 or more."""

MOST = 256
"""Of more distinct values an image is taken for a scan: label maps of a whole head have 40 to 190."""

EVEN = 0.7
"""Of neighbouring voxels of a label map, background apart, at least this share is equal. It is 0.84 to 0.98 in label
maps of FreeSurfer, Neuromorphometrics, TotalSegmentator and CHAOS, and at most 0.21 in 8-bit scans of CT and MR."""

_LARGEST = 1 << 16


class GreyValues:
    """What tells a scan from a label map, gathered while an image's planes stream by."""

    def __init__(self) -> None:
        """Have seen none yet."""
        self._total, self._equal = np.zeros(_LARGEST, np.int64), np.zeros(_LARGEST, np.int64)
        self._scan = False

    def add(self, plane: Shaped[np.ndarray, "i j"]) -> None:
        """Take the next plane, in the image's units; after one that only a scan can have, none is looked at."""
        if self._scan:
            return
        least, largest = plane.min(), plane.max()
        # Whoever counts structures begins at 0; CT in Hounsfield units does not.
        if not (least >= 0 and largest < _LARGEST) or np.any(plane != np.rint(plane)):
            self._scan = True
            return
        whole = plane.astype(np.int64)
        here, same = whole[:-1].ravel(), (whole[:-1] == whole[1:]).ravel()
        self._total += np.bincount(here, minlength=_LARGEST)
        self._equal += np.bincount(here[same], minlength=_LARGEST)
        self._scan = bool(np.count_nonzero(self._total) > MOST)

    def check(self, path: Path) -> None:
        """Refuse a label map; what is damaged or constant is refused elsewhere.

        Raises:
          ExclusionError: all voxels are whole numbers, of which there are few, or large areas of equal ones.
        """
        values = np.flatnonzero(self._total)
        if self._scan or values.size < 2:
            return
        if values.size > FEW:
            # A window cuts scans off at both ends, where equal values say nothing either.
            inner = values[1:-1]
            inner = inner[inner != np.argmax(self._total)]
            if self._equal[inner].sum() < EVEN * self._total[inner].sum():
                return
        some = ", ".join(map(str, values[:FEW])) + (" and so on" if values.size > FEW else "")
        raise fault(
            path,
            f"looks like a label map, not a scan: it holds {values.size} whole numbers alone ({some}), in even areas",
            "give the scan that it belongs to",
        )


def check_grey(path: Path, image: Shaped[np.ndarray, "x y z"]) -> None:
    """As `GreyValues.check`, of an image that is at hand as a whole."""
    seen = GreyValues()
    for k in range(image.shape[2]):
        seen.add(image[:, :, k])
    seen.check(path)
