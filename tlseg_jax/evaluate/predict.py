"""A raw scan in, its segmentation in the scan's own space out."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import THRESHOLD, Predictor, Tiles, predict_volume
from tlseg_jax.evaluate.label_map import save_label_map
from tlseg_jax.geometry import Affine, Box, Grid
from tlseg_jax.preprocess.pipeline import PrepareSettings, preprocess_scan
from tlseg_jax.preprocess.reading.header import no_geometry
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.steps.resample import to_scan


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """A segmentation on a scan's own voxel grid.

    Attributes:
      files: the scan that it is of.
      label: (x, y, z) in the scan's own axes: bool, or uint8 where several structures have values of their own.
      affine: (4, 4) voxel -> RAS mm of the scan.
      volumes_ml: structure -> its volume in ml, counted in the scan's own voxels.
      seconds: what each preprocessing step, the network and the way back took.
      details: what preprocessing says of itself.
      warnings: sentences for the user; empty if nothing looked wrong.
    """

    files: ScanFiles
    label: NDArray[np.bool_] | NDArray[np.uint8]
    affine: Affine
    volumes_ml: dict[str, float]
    seconds: dict[str, float]
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()


def predict_scan(
    files: ScanFiles,
    spec: DatasetSpec,
    box: Box | None,
    settings: PrepareSettings,
    predictor: Predictor,
    tiles: Tiles = "gaussian",
    batch: int = 2,
) -> Prediction:
    """Segment one scan as it came from the scanner.

    The scan goes through the same preprocessing as the run's training data, and the probability
    (not the mask) is interpolated back onto the scan's own grid and cut at 0.5 there, which keeps
    the outline smooth at the scan's own resolution.

    Args:
      files: the scan, with a brain mask if there is one; a label is not read.
      spec: the data set that the network was trained on, as prepared.
      box: its fixed patch, in voxels of that spec's grid; None for tiles.
      settings: how that data set was preprocessed.
      predictor: the network.
      tiles: see `predict_volume`.
      batch: tiles a call.

    Raises:
      ExclusionError: the scan cannot be read or preprocessed.
      InputError: see `predict_volume`.
    """
    scan = read_scan(dataclasses.replace(files, label=None))
    prepared = preprocess_scan(scan, spec, settings, name=str(files.image))
    start = time.perf_counter()
    # float16 is what the network saw in training (see preprocess/store.py).
    image = prepared.image.astype(np.float16)
    probability = predict_volume(image, spec, box, predictor, tiles, batch)
    inferred = time.perf_counter()
    native = to_scan(probability, prepared.grid, prepared.space_to_world, scan.image.shape, scan.affine)
    label = native > THRESHOLD
    seconds = dict(prepared.seconds) | {"inference": inferred - start, "to_scan": time.perf_counter() - inferred}
    return Prediction(
        files=files,
        label=label,
        affine=scan.affine,
        volumes_ml={spec.structure: int(np.count_nonzero(label)) * Grid(scan.image.shape, scan.affine).voxel_ml},
        seconds=seconds,
        details=dict(prepared.details),
        warnings=(
            *scan.warnings,
            *filter(None, [no_geometry(files.image, scan.affine, scan.image.shape)]),
            *_warnings(spec, probability > THRESHOLD, None if spec.random_patch else box),
        ),
    )


def _warnings(spec: DatasetSpec, found: NDArray[np.bool_], box: Box | None) -> tuple[str, ...]:
    if not found.any():
        return (f"no {spec.structure} was found: check that the scan is like the network's training data",)
    if box is not None:
        faces = _faces(found, box)
        if faces:
            return (
                f"the {spec.structure} reaches the {' and '.join(faces)} of the patch "
                "and may be cut off there: check the overlay",
            )
    return ()


def _faces(found: NDArray[np.bool_], box: Box) -> list[str]:
    """Names of the box's faces that hold predicted voxels: a sign that the structure goes on beyond."""
    names = (("left", "right"), ("back", "front"), ("bottom", "top"))
    faces = []
    for axis, pair in enumerate(names):
        for voxel, name in zip((box.start[axis], box.stop[axis] - 1), pair, strict=True):
            if 0 <= voxel < found.shape[axis] and found.take(voxel, axis).any():
                faces.append(name)
    return faces


def write_label_map(prediction: Prediction, path: Path, before: Callable[[Path], None] = lambda _: None) -> None:
    """Write a prediction as its name says, with the scan's own shape, affine, codes and units.

    Raises:
      InputError: see `label_map.save_label_map`.
    """
    save_label_map(prediction.label, prediction.affine, prediction.files, path, before)
