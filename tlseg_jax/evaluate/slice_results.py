"""Scores of a 2D network over the volumes of a prepared data set of slices, one test set a structure.

The slices of a volume are scored together as one 3D mask, over its samples: where the data set takes only
some of a volume's slices, so do the scores and the volumes in ml. Volumes are counted in the scan's own voxels, as
`predict` does and as the label file has them; the prepared pixels round outlines off.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from tlseg_jax.evaluate.detection import OVERLAP, Detection, detect, pool
from tlseg_jax.evaluate.inference import THRESHOLD
from tlseg_jax.evaluate.metrics import Mask, SubjectScore, score
from tlseg_jax.evaluate.results import Keep, ScoreSpace, SubjectRow, common_structures, result_name, save_results
from tlseg_jax.evaluate.slice_inference import BATCH, SlicePredictor, predict_planes
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.preprocess.slice_back import canonical_affine, planes_on_scan
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class SliceResults:
    """Scores of the structures that a network and a data set have in common.

    Attributes:
      rows: structure -> one row a volume.
      detections: structure -> what was found in each volume by name; empty where it could not be counted.
      no_detection: why it could not, else "".
    """

    rows: Mapping[str, tuple[SubjectRow, ...]]
    detections: Mapping[str, Mapping[str, Detection]]
    no_detection: str = ""

    def detection_entry(self, structure: str) -> dict[str, Any]:
        """Plain values for JSON: the pooled detection and each volume's, or None and the reason."""
        if self.no_detection:
            return {"detection": None, "no_detection": self.no_detection}
        each = self.detections[structure]
        volumes = {s: d.to_dict() for s, d in each.items()}
        return {"detection": {"overlap": OVERLAP, **pool(each.values()).to_dict(), "volumes": volumes}}


def evaluate_slices(
    store: SliceStore,
    split: str,
    predictor: SlicePredictor,
    outputs: Sequence[str],
    channels: int,
    *,
    batch: int = BATCH,
    progress: bool = True,
    keep: Keep | None = None,
    space: ScoreSpace = "data",
) -> SliceResults:
    """Predict and score each volume of a split, for every structure that the network and the store name alike.

    The processes of a run divide the volumes.

    Tumour-wise detection needs 3D components, so it is counted only where the samples of all these
    volumes are consecutive slices.

    Args:
      store: the prepared data set, which may be another than the run's.
      split: "train" or "test".
      predictor: the network.
      outputs: names of its outputs, in order.
      channels: of its input.
      batch: slices a call.
      progress: show a bar on stderr.
      keep: called for each structure and volume with the row and the predicted mask (samples, x, y), in the
        process that predicted it. The row's test set is that of `result_name`.
      space: "scan" takes the probability to the scan's own pixels, as `predict` does, and compares it there with the
        label file that was prepared.

    Raises:
      InputError: no structure in common, no volumes in the split, or a volume cannot be read or
        predicted (it is named), or see `original_planes`.
    """
    structures = common_structures(store.spec, outputs, store.where)
    subjects = store.subjects(split)
    if not subjects:
        raise InputError(
            f"The prepared data set {store.where} has no {split} volumes to evaluate: "
            "prepare it with other test volumes, or choose another data set."
        )
    scattered = scattered_volumes(store, subjects)

    def row(subject: str, structure: str, found: SubjectScore) -> SubjectRow:
        return SubjectRow(
            result_name(store.spec, structure, split, space), structure, subject, store.persons[subject], found
        )

    def results(some: Sequence[str]) -> list[dict[str, Any]]:
        out = []
        for subject in tqdm(some, desc=f"evaluate {store.spec.name}", unit="volume", disable=not progress, leave=None):
            predicted, reference = predict_subject(store, subject, predictor, channels, batch)
            drawn = _drawn(store, subject) if space == "scan" else reference
            of_subject = {}
            for s in structures:
                theirs = reference_mask(store, drawn, s)
                probability = predicted[..., outputs.index(s)]
                ours = on_scan = _on_scan(store, subject, probability)
                if space == "data":
                    ours = probability > THRESHOLD
                found = score(ours, theirs, _steps(store, subject, space))
                reference_ml = label_ml(store, subject, s)
                if reference_ml is not None:
                    predicted_ml = int(np.count_nonzero(on_scan)) * store.scan_voxel_ml(subject)
                    found = dataclasses.replace(found, reference_ml=reference_ml, predicted_ml=predicted_ml)
                if keep is not None:
                    keep(row(subject, s, found), ours)
                tumours = None if scattered else dataclasses.asdict(detect(ours, theirs))
                of_subject[s] = [dataclasses.asdict(found), tumours]
            out.append(of_subject)
        return out

    by_subject = dict(zip(subjects, processes.divide(subjects, results), strict=True))
    rows = {s: tuple(row(v, s, SubjectScore(**r[s][0])) for v, r in by_subject.items()) for s in structures}
    detections = {} if scattered else {s: {v: Detection(**r[s][1]) for v, r in by_subject.items()} for s in structures}
    return SliceResults(rows, detections, scattered)


def predict_subject(
    store: SliceStore, subject: str, predictor: SlicePredictor, channels: int, batch: int = BATCH
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Probabilities (samples, x, y, outputs) and the label's bits (samples, x, y) of one volume.

    Raises:
      InputError: the volume cannot be read or predicted; it is named.
    """
    try:
        image, label = store.volume_image(subject, channels), store.volume_label(subject)
        return predict_planes(image, predictor, batch), label
    except InputError as e:
        raise InputError(f"Volume {subject} of {store.spec.name} could not be evaluated: {e}") from None


def label_ml(store: SliceStore, subject: str, structure: str) -> float | None:
    """A structure's ml in the slices that are samples, counted in the label file; None where the store lacks it."""
    r = store.record(subject)
    if structure in r.get("label_voxels", {}):
        return float(sum(r["label_voxels"][structure]) * store.scan_voxel_ml(subject))
    # Prepared before that was kept: of every slice it is what the whole file holds.
    every = len(r["samples"]) == store.depth(subject)
    return float(r["label_ml"][structure]) if every and structure in r.get("label_ml", {}) else None


def reference_mask(store: SliceStore, bits: NDArray[np.uint8], structure: str) -> Mask:
    """Where a label's bits, of any shape, say that the structure is."""
    return mask_of(bits, store.spec.structures.index(structure), store.spec.exclusive)


def scattered_volumes(store: SliceStore, subjects: Sequence[str]) -> str:
    """Why these volumes have no 3D components, in one sentence; "" where all have."""
    gaps = [s for s in subjects if not store.contiguous(s)]
    if not gaps:
        return ""
    return (
        f"The slices of {len(gaps)} of {len(subjects)} volume(s) of {store.spec.name} ({', '.join(gaps[:5])}) are not "
        "consecutive, so tumours in them have no 3D extent: prepare the data set with every slice of a volume "
        "(with_structure = 0 in its TOML file) to count tumours."
    )


def save_slice_results(
    run: Path, results: SliceResults, extra: Mapping[str, Any] | None = None
) -> dict[str, dict[str, Any]]:
    """Write the rows of every structure to the run folder; see `save_results`.

    The detection is kept with each test set's summary ("detection", or None and "no_detection").

    Args:
      run: the run folder, which exists.
      results: of `evaluate_slices`.
      extra: plain values to keep with each summary, such as the store.

    Returns:
      Test set name -> its summary, as written.

    Raises:
      InputError: an existing file there is damaged.
    """
    return {
        rows[0].test_set: save_results(run, rows, {**(extra or {}), **results.detection_entry(structure)})
        for structure, rows in results.rows.items()
    }


def _on_scan(store: SliceStore, subject: str, probability: NDArray[np.float32]) -> Mask:
    """Where a structure is on the scan's own pixels, (samples, x, y), as `predict` finds it."""
    r = store.record(subject)
    affine, scan_affine = np.array(r["affine"], np.float64), np.array(r["scan_affine"], np.float64)
    return np.stack([p > THRESHOLD for p in planes_on_scan(probability, affine, r["scan_shape"], scan_affine)])


def _drawn(store: SliceStore, subject: str) -> NDArray[np.uint8]:
    from tlseg_jax.preprocess.original import original_planes  # a machine that only trains may not have what it needs

    return original_planes(store, subject)


def _steps(store: SliceStore, subject: str, space: ScoreSpace) -> NDArray[np.float64]:
    """(3, 3): from one voxel to the next in mm of the scan, in the order of the arrays: z, x, y."""
    r = store.record(subject)
    affine = np.array(r["affine"], np.float64)
    if space == "scan":
        affine = canonical_affine(np.array(r["scan_affine"], np.float64), r["scan_shape"])
    return affine[:3, [2, 0, 1]]
