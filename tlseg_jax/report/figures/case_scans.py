"""The scan, the truth and the predictions of a case, from the prepared data set and the cells of a sweep."""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.evaluate.mask_file import load_masks
from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.evaluate.results import result_name
from tlseg_jax.geometry import Affine
from tlseg_jax.preprocess.store.any_store import open_any_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.report.study_info import StudyInfo
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.results_table import ResultRow


@dataclasses.dataclass(frozen=True, eq=False)
class CaseScan:
    """A scan with its truth.

    Attributes:
      image: (x, y, z).
      reference: (x, y, z) bool.
      affine: (4, 4) voxel -> RAS mm.
      stack: whether the z axis is a stack of slices that are no neighbours.
      numbers: of slices, each one's number in its volume; empty for volumes.
      voxel_ml: ml of the person in a voxel; None: the affine's.
    """

    image: NDArray[np.floating]
    reference: Mask
    affine: Affine
    stack: bool = False
    numbers: tuple[int, ...] = ()
    voxel_ml: float | None = None


def load_scan(study: StudyInfo, test_set: str, subject: str) -> CaseScan:
    """A test scan as it was prepared, of a test set as in results.csv.

    Raises:
      InputError: the data set is not there any more, is damaged, or lacks the scan.
    """
    if test_set not in study.stores:
        raise InputError(
            f"The study names no prepared data set of {test_set}: run the sweep again, which writes where it is."
        )
    store = open_any_store(study.stores[test_set])
    if subject not in store.subjects():
        raise InputError(
            f"{store.where} holds no scan {subject} any more: it was prepared anew; run the sweep again to score it."
        )
    if isinstance(store, SliceStore):
        return _of_slices(store, test_set, subject)
    return _of_volume(store, test_set, subject)


def _of_volume(store: Store, test_set: str, subject: str) -> CaseScan:
    image, truth = store.image(subject).astype(np.float32), store.mask(subject, _structure_of(store, test_set))
    return CaseScan(image, truth, store.grid(subject).affine, voxel_ml=store.person_grid(subject).voxel_ml)


def _structure_of(store: Store | SliceStore, test_set: str) -> str:
    named = {result_name(store.spec, s): s for s in store.spec.structures}
    if test_set not in named:
        raise InputError(
            f"{store.where} is labelled with {store.spec.shown}, which does not make a test set "
            f"{test_set}: run the sweep again with that data set."
        )
    return named[test_set]


def _of_slices(store: SliceStore, test_set: str, subject: str) -> CaseScan:
    structure = _structure_of(store, test_set)
    record = store.record(subject)
    planes = [int(record["planes"][p]) for p in record["samples"]]
    affine = np.array(record["affine"], np.float64)
    stack = not store.contiguous(subject)
    if not stack:
        affine[:3, 3] += affine[:3, 2] * planes[0]
    image = np.moveaxis(store.volume_image(subject)[..., 0], 0, -1).astype(np.float32)
    truth = np.moveaxis(store.mask(subject, structure), 0, -1)
    return CaseScan(image, truth, affine, stack, tuple(planes))


def load_prediction(study: StudyInfo, row: ResultRow) -> Mask:
    """What a cell's model predicted for a row's scan: (x, y, z) bool.

    Raises:
      InputError: the cell's file of masks is missing or damaged, or lacks the scan.
    """
    path = study.cell(row.cell) / "predictions" / f"{row.test_set}.npz"
    masks = load_masks(path)
    if row.subject not in masks:
        raise InputError(f"{path} holds no mask of {row.subject}: remove it and run the sweep again.")
    mask = masks[row.subject]
    return np.moveaxis(mask, 0, -1) if study.kind == "slices" else mask


def check_alike(scan: CaseScan, predicted: Mask, row: ResultRow) -> None:
    """Refuse a prediction that was made on another grid.

    Raises:
      InputError: the shapes differ.
    """
    if scan.image.shape != predicted.shape:
        raise InputError(
            f"The mask of {row.subject} in cell {row.cell} has {_size(predicted.shape)} voxels and the scan has "
            f"{_size(scan.image.shape)}: {row.test_set} was prepared anew; remove that cell and run the sweep again."
        )


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
