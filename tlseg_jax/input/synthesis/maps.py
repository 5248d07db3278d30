"""Label maps of a prepared data set as what samples are drawn from."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, Shape3
from tlseg_jax.datasets.structures import Labels
from tlseg_jax.geometry import Box
from tlseg_jax.input.synthesis.classes import class_table, numbered
from tlseg_jax.input.synthesis.draw import Synthesis
from tlseg_jax.preprocess.map_pipeline import MOST_CLASSES
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError


class Maps:
    """The label maps of a store."""

    def __init__(
        self, store: Store, sides: Shape3, like: DatasetSpec | None = None, labels: Labels | None = None
    ) -> None:
        """Take `store` for samples of so many voxels.

        Args:
          like: the data set whose images and codes the samples are to look like; None: the store's own.
          labels: which values of the maps make its structures; None: as the store has it.

        Raises:
          InputError: its maps hold more classes than a byte can tell.
        """
        values = {v for s in store.subjects() for v in store.record(s)["class_values"]}
        if len(values) > MOST_CLASSES:
            raise InputError(
                f"The label maps of {store.where} hold {len(values)} values in all, and images are drawn from at most "
                f"{MOST_CLASSES}: prepare maps of one kind."
            )
        spec, factor = like or store.spec, store.map_factor
        assert factor is not None and spec.volumes.spacing is not None
        self.store = store
        self.synthesis = Synthesis(
            class_table(values, labels or spec.labels),
            sides,
            spec.volumes.spacing,
            factor,
            len(spec.structures),
            spec.exclusive,
            spec.volumes.skull_strip,
            spec.volumes.normalise,
        )
        self._places: Mapping[str, NDArray[np.uint8]] = {
            s: np.array(numbered(store.record(s)["class_values"], self.synthesis.table), np.uint8)
            for s in store.subjects()
        }

    def classes(self, subject: str, box: Box) -> UInt8[np.ndarray, "i j k"]:
        """The classes in a box of the data set's grid with the margin that a sample is drawn from; see `map_box`."""
        return self._places[subject][self.store.classes(subject, self.map_box(box))]

    def map_box(self, box: Box) -> Box:
        """A box of the grid in voxels of the map, with the margin on each side."""
        of = self.synthesis
        start = [a * f - m for a, f, m in zip(box.start, of.factor, of.margin, strict=True)]
        size = [n * f + 2 * m for n, f, m in zip(box.size, of.factor, of.margin, strict=True)]
        return Box(tuple(start), tuple(size))  # type: ignore[arg-type]

    def shares(self, subject: str) -> Float32[np.ndarray, " classes"]:
        """How much of the whole map on the grid each class fills."""
        counts = np.zeros(len(self.synthesis.table.values), np.float32)
        counts[self._places[subject]] = self.store.record(subject)["class_voxels"]
        return counts / counts.sum()

    def sample(self, subject: str, box: Box) -> dict[str, Any]:
        """What `draw.draw_batch` takes of one sample."""
        return {"classes": self.classes(subject, box), "shares": self.shares(subject)}
