"""A network that adapts to each scan, whose parts may be many calls: tiles of a volume, slices of a stack."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Call = Callable[[NDArray[np.float32]], NDArray[np.float32]]


@dataclasses.dataclass(frozen=True, eq=False)
class AdaptingPredictor:
    """A predictor that normalises by statistics of the scan that it sees.

    Attributes:
      see: (rows, weights) -> their probabilities, by the rows' own statistics, and these.
      fixed: [statistics], [weight of each] -> the predictor by those of all of them together.
      again: whether a scan of one call is asked a second time too, by `fixed`, which does more than `see`.
    """

    see: Callable[[NDArray[np.float32], NDArray[np.float32]], tuple[NDArray[np.float32], Any]]
    fixed: Callable[[list[Any], list[float]], Call]
    again: bool = False

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Of rows that are the whole of a scan."""
        return self.see(rows, _weights(rows))[0]

    def over_scan(self, predict: Callable[[Call], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What `predict` gives of one scan, all of whose calls go by the statistics of the whole scan.

        They are taken in a pass of their own, in which each call goes by its own; a scan of one call needs no second.
        """
        parts: list[Any] = []
        weights: list[float] = []

        def collect(rows: NDArray[np.float32]) -> NDArray[np.float32]:
            counts = _weights(rows)
            found, own = self.see(rows, counts)
            parts.append(own)
            weights.append(float(counts.sum()))
            return found

        found = predict(collect)
        return found if len(parts) == 1 and not self.again else predict(self.fixed(parts, weights))


def _weights(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 for each row, and 0 for those at the end that only fill a batch up, which are its first row again."""
    weights = np.ones(len(rows), np.float32)
    for i in range(len(rows) - 1, 0, -1):
        if not np.array_equal(rows[i], rows[0]):
            break
        weights[i] = 0
    return weights
