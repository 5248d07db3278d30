"""A raw scan in, its segmentation by the 2D network in the scan's own space out, slice by slice in batches."""

import dataclasses
import time

import numpy as np

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.false_positives import Forest
from tlseg_jax.evaluate.forest_effect import ORGAN
from tlseg_jax.evaluate.inference import THRESHOLD
from tlseg_jax.evaluate.predict import Prediction, label_and_volumes, not_found
from tlseg_jax.evaluate.slice_inference import BATCH, SlicePredictor, predict_stack
from tlseg_jax.geometry import Grid
from tlseg_jax.preprocess.codes import decide
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.reading.slice_read import planes_to_scan, read_volume


def predict_slices_scan(
    files: ScanFiles,
    spec: DatasetSpec,
    predictor: SlicePredictor,
    channels: int,
    *,
    batch: int = BATCH,
    forest: Forest | None = None,
    cleaned: str = "",
) -> Prediction:
    """Segment one scan as it came from the scanner, every axial slice of it.

    The probability (not the mask) is interpolated back onto the scan's own pixels and cut at 0.5 there.

    Args:
      files: the scan; a label is not read.
      spec: the data set that the network was trained on, as prepared.
      predictor: the network.
      channels: slices that it sees at once.
      batch: slices a call.
      forest: drops components of `cleaned` that it takes to be false, where post-processing is asked for.
      cleaned: the structure that the forest was trained on.

    Raises:
      ExclusionError: the scan cannot be read.
      InputError: the network gives values that are not finite.
    """
    volume = read_volume(dataclasses.replace(files, label=None), spec, every_slice=True)
    start = time.perf_counter()
    # float16 is what the network saw in training.
    image = volume.image.astype(np.float16)
    probability = predict_stack(image, channels, volume.z, predictor, batch)
    if forest is not None:
        at = spec.structures.index(cleaned)
        liver = probability[..., spec.structures.index(ORGAN)] > THRESHOLD if forest.liver else None
        one = probability[..., at]
        # Planes are every slice of the scan, so the third axis of the affine is one slice.
        spacing = Grid(volume.scan_shape, volume.affine).spacing
        probability[..., at] = one * forest.keep(one, one > THRESHOLD, image, spacing, liver)
    inferred = time.perf_counter()
    planes = np.moveaxis(probability, -1, 0)
    on_scan = np.stack([planes_to_scan(p, volume) for p in planes], -1)
    voxel_ml = Grid(volume.scan_shape, volume.scan_affine).voxel_ml
    label, volumes = label_and_volumes(decide(on_scan, spec.exclusive), spec, voxel_ml)
    seconds = dict(volume.seconds) | {"inference": inferred - start, "to_scan": time.perf_counter() - inferred}
    return Prediction(
        files,
        label,
        volume.scan_affine,
        on_scan,
        volumes,
        seconds,
        {},
        (*volume.doubts.values(), *volume.warnings, *not_found(s for s, ml in volumes.items() if not ml)),
    )
