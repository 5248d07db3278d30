"""A network over the scans of a prepared data set, and what it is compared with: of volumes or of slices."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import Predictor, Tiles, predict_volume
from tlseg_jax.evaluate.slice_inference import predict_planes
from tlseg_jax.geometry import Box, canonical_grid
from tlseg_jax.preprocess.codes import decide
from tlseg_jax.preprocess.slice_resize import planes_on_scan
from tlseg_jax.preprocess.steps.resample import codes_to_scan
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store

ScoreSpace = Literal["data", "scan"]
"""Which voxels are compared: the prepared data set's, or those of the scan's own files."""

Codes = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True, eq=False)
class VolumeReader:
    """A network over volumes: arrays are (x, y, z).

    Attributes:
      store: the prepared data set, which may be another than the run's.
      spec: what the network was trained on.
      box: the patch in the voxels of `store` (see `results.box_for`); None for tiles.
      predictor: the network.
      tiles: see `predict_volume`.
      batch: tiles a call.
    """

    store: Store
    spec: DatasetSpec
    box: Box | None
    predictor: Predictor
    tiles: Tiles = "gaussian"
    batch: int = 2

    def probability(self, subject: str) -> NDArray[np.float32]:
        """(*sides, structures) on the prepared voxels. Raises InputError: it cannot be read or predicted."""
        image = self.store.image(subject)
        return predict_volume(image, self.spec, self.box, self.predictor, self.tiles, self.batch)

    def reference(self, subject: str, space: ScoreSpace) -> Codes:
        """The label map.

        Raises:
          InputError: the scan's own file is needed and is not as it was, or the store does not hold how it was
            registered.
        """
        self.store.person_grid(subject), self.store.scan_grid(subject)
        if space == "data":
            return self.store.codes(subject)
        from tlseg_jax.preprocess.original import original_scan  # a machine that only trains may lack what it needs

        label = original_scan(self.store, subject).label
        assert label is not None
        return label

    def on_scan(self, subject: str, probability: NDArray[np.float32]) -> Codes:
        """What a probability says on the scan's own voxels, as `predict` finds it."""
        here, own = self.store.person_grid(subject), self.store.scan_grid(subject)
        return codes_to_scan(probability, here, np.eye(4), own.shape, own.affine, self.spec.exclusive)

    def voxel(self, subject: str, space: ScoreSpace) -> Any:
        """(3, 3) from one voxel to the next in mm of the person, in the order of the arrays."""
        return (self.store.scan_grid if space == "scan" else self.store.person_grid)(subject).voxel

    def scan_voxel_ml(self, subject: str) -> float:
        """Of a voxel of the scan's own file, in ml."""
        return self.store.scan_grid(subject).voxel_ml

    def why_no_components(self, subjects: Sequence[str]) -> str | None:
        """Why tumours cannot be counted in these scans, in a sentence; "" where they can; None: nobody counts."""
        return None


@dataclasses.dataclass(frozen=True, eq=False)
class PlaneReader:
    """A network over slices: arrays are (samples, x, y).

    Attributes:
      store: the prepared data set, which may be another than the run's.
      exclusive: whether the network's structures exclude each other.
      predictor: the network.
      channels: slices that it sees at once.
      batch: slices a call.
    """

    store: SliceStore
    exclusive: bool
    predictor: Predictor
    channels: int
    batch: int = 8

    def probability(self, subject: str) -> NDArray[np.float32]:
        """See `VolumeReader`."""
        return predict_planes(self.store.volume_image(subject, self.channels), self.predictor, self.batch)

    def reference(self, subject: str, space: ScoreSpace) -> Codes:
        """See `VolumeReader`."""
        if space == "data":
            return self.store.codes(subject)
        from tlseg_jax.preprocess.original import original_planes  # a machine that only trains may lack what it needs

        return original_planes(self.store, subject)

    def on_scan(self, subject: str, probability: NDArray[np.float32]) -> Codes:
        """See `VolumeReader`; plane by plane, as the scan's own pixels of all structures are many."""
        affine, scan = np.array(self.store.record(subject)["affine"], np.float64), self.store.scan_grid(subject)
        planes = (planes_on_scan(p, affine, scan) for p in np.moveaxis(probability, -1, 0))
        return np.stack([decide(np.stack(p, -1), self.exclusive) for p in zip(*planes, strict=True)])

    def voxel(self, subject: str, space: ScoreSpace) -> Any:
        """See `VolumeReader`."""
        affine = np.array(self.store.record(subject)["affine"], np.float64)
        if space == "scan":
            affine = canonical_grid(self.store.scan_grid(subject)).affine
        return affine[:3, [2, 0, 1]]

    def scan_voxel_ml(self, subject: str) -> float:
        """See `VolumeReader`."""
        return self.store.scan_grid(subject).voxel_ml

    def why_no_components(self, subjects: Sequence[str]) -> str:
        """See `VolumeReader`."""
        return self.store.scattered(subjects)


Reader = VolumeReader | PlaneReader


def reader_of(
    store: AnyStore,
    spec: DatasetSpec,
    box: Box | None,
    predictor: Predictor,
    *,
    channels: int = 1,
    tiles: Tiles = "gaussian",
    batch: int | None = None,
) -> Reader:
    """The reader of a store; for the arguments see `VolumeReader` and `PlaneReader`; `batch` None takes the usual."""
    how = {} if batch is None else {"batch": batch}
    if isinstance(store, SliceStore):
        return PlaneReader(store, spec.exclusive, predictor, channels, **how)
    return VolumeReader(store, spec, box, predictor, tiles, **how)
