"""A raw scan in, its segmentation in the scan's own space out."""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.structures import LabelValues
from tlseg_jax.evaluate.false_positives import Forest
from tlseg_jax.evaluate.forest_effect import ORGAN
from tlseg_jax.evaluate.inference import THRESHOLD, Predictor, Tiles, predict_volume
from tlseg_jax.evaluate.slice_inference import BATCH as SLICES
from tlseg_jax.evaluate.slice_inference import predict_stack
from tlseg_jax.evaluate.specks import without_specks
from tlseg_jax.evaluate.trust.passes import Passed
from tlseg_jax.evaluate.trust.temperature import at_temperature
from tlseg_jax.evaluate.trust.trusting import Trust, doubt, passed_structures
from tlseg_jax.evaluate.trust.unlike import image_statistics, registration_statistics
from tlseg_jax.evaluate.trust.verdict import Verdict, judge
from tlseg_jax.geometry import Affine, Box, Grid, crop_or_pad
from tlseg_jax.preprocess.codes import decide, mask_of
from tlseg_jax.preprocess.pipeline import PrepareSettings, preprocess_scan
from tlseg_jax.preprocess.reading.grey_values import check_grey
from tlseg_jax.preprocess.reading.header import no_geometry
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.reading.slice_read import planes_to_scan, read_volume
from tlseg_jax.preprocess.steps.resample import codes_to_scan, to_scan


@dataclasses.dataclass(frozen=True, eq=False)
class Prediction:
    """A segmentation on a scan's own voxel grid.

    Attributes:
      files: the scan that it is of.
      label: (x, y, z) in the scan's own axes, of `own_values`.
      affine: (4, 4) voxel -> RAS mm of the scan.
      make_probability: interpolates `probability`, which most callers never look at.
      apart: structure -> (x, y, z) where it is, of those that overlap others where no value of `label` says both.
      verdict: how far it is to be believed, where that was asked.
      doubt: (x, y, z) share of the passes that say otherwise than the label map, likewise.
      volumes_ml: structure -> its volume in ml, counted in the scan's own voxels.
      seconds: what each preprocessing step, the network and the way back took.
      details: what preprocessing says of itself.
      warnings: sentences for the user; empty if nothing looked wrong.
    """

    files: ScanFiles
    label: NDArray[np.integer]
    affine: Affine
    make_probability: Callable[[], NDArray[np.float32]] = dataclasses.field(repr=False)
    volumes_ml: dict[str, float]
    seconds: dict[str, float]
    details: dict[str, Any]
    warnings: tuple[str, ...] = ()
    apart: dict[str, NDArray[np.bool_]] = dataclasses.field(default_factory=dict)
    verdict: Verdict | None = None
    doubt: NDArray[np.float32] | None = None

    @functools.cached_property
    def probability(self) -> NDArray[np.float32]:
        """(x, y, z, structures) in the scan's own axes, interpolated when it is first asked for."""
        return self.make_probability()


@dataclasses.dataclass(frozen=True, eq=False)
class _Found:
    """What a network gives of one scan: codes and the probability on its own voxels, and what the way there says."""

    codes: NDArray[np.uint8]
    probability: Callable[[], NDArray[np.float32]]
    affine: Affine
    seconds: dict[str, float]
    inferred: float
    details: dict[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unlike: Sequence[str] | None = None
    passed: Passed | None = None
    statistics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    doubt: NDArray[np.float32] | None = None


def predict_scan(
    files: ScanFiles,
    spec: DatasetSpec,
    box: Box | None,
    settings: PrepareSettings | None,
    predictor: Predictor,
    tiles: Tiles = "gaussian",
    batch: int | None = None,
    *,
    channels: int = 1,
    forest: Forest | None = None,
    cleaned: str = "",
    smallest: Mapping[str, float] | None = None,
    trust: Trust | None = None,
) -> Prediction:
    """Segment one scan as it came from the scanner; of slices every axial slice of it.

    The scan goes through the same preprocessing as the run's training data, and the probability
    (not the mask) is interpolated back onto the scan's own grid and cut at 0.5 there, which keeps
    the outline smooth at the scan's own resolution.

    Args:
      files: the scan, with a brain mask if there is one; a label is not read.
      spec: the data set that the network was trained on, as prepared.
      box: its fixed patch, in voxels of that spec's grid; None for tiles and for slices.
      settings: how that data set was preprocessed; None for slices.
      predictor: the network.
      tiles: see `predict_volume`.
      batch: tiles or slices a call; None: the usual.
      channels: slices that a 2D network sees at once.
      forest: of slices: drops components of `cleaned` that it takes to be false, where post-processing is asked for.
      cleaned: the structure that the forest was trained on.
      smallest: of the run's training labels, by which specks are dropped (`specks.without_specks`); None keeps all.
      trust: its networks' passes then make the prediction, in place of `predictor`, and it is judged by them.

    Raises:
      ExclusionError: the scan cannot be read or preprocessed.
      InputError: see `predict_volume`.
    """
    unlabelled = dataclasses.replace(files, label=None)
    if spec.kind == "slices":
        found = _of_planes(unlabelled, spec, predictor, channels, batch or SLICES, forest, cleaned, trust)
    else:
        assert settings is not None
        found = _of_volume(unlabelled, spec, box, settings, predictor, tiles, batch or 2, trust)
    codes = without_specks(found.codes, spec, smallest or {})
    label, apart = label_map_of(codes, spec)
    voxel_ml = Grid(codes.shape, found.affine).voxel_ml
    volumes = {
        s: int(np.count_nonzero(mask_of(codes, i, spec.exclusive))) * voxel_ml for i, s in enumerate(spec.structures)
    }
    unlike = found.unlike
    if unlike is None:
        unlike = not_found(s for s, ml in volumes.items() if not ml)
    verdict, make_probability = None, found.probability
    if found.passed is not None:
        calibration = trust.calibration if trust else None
        verdict = judge(passed_structures(found.passed, spec, volumes), found.statistics, calibration)
        if calibration:
            temperature = calibration.temperature

            def make_probability() -> NDArray[np.float32]:
                return at_temperature(found.probability(), temperature, spec.exclusive)

    return Prediction(
        files=files,
        label=label,
        affine=found.affine,
        make_probability=make_probability,
        volumes_ml=volumes,
        seconds=found.seconds | {"to_scan": time.perf_counter() - found.inferred},
        details=found.details,
        warnings=(*found.warnings, *unlike),
        apart=apart,
        verdict=verdict,
        doubt=found.doubt,
    )


def _of_volume(
    files: ScanFiles,
    spec: DatasetSpec,
    box: Box | None,
    settings: PrepareSettings,
    predictor: Predictor,
    tiles: Tiles,
    batch: int,
    trust: Trust | None,
) -> _Found:
    scan = read_scan(files)
    check_grey(files.image, scan.image)
    prepared = preprocess_scan(scan, spec, settings, name=str(files.image))
    start = time.perf_counter()
    # float16 is what the network saw in training (see preprocess/store.py).
    image = prepared.image.astype(np.float16)

    def ask(network: Predictor) -> NDArray[np.float32]:
        return predict_volume(image, spec, box, network, tiles, batch)

    passed = trust.ask(ask, spec) if trust else None
    probability = passed.mean if passed else ask(predictor)
    inferred = time.perf_counter()
    way = (prepared.grid, prepared.space_to_world, scan.image.shape, scan.affine)
    codes = codes_to_scan(probability, *way, spec.exclusive)
    decided = decide(probability, spec.exclusive)
    statistics = statistics_of(image, spec, box, prepared.details) if passed else {}
    doubted = to_scan(doubt(passed.codes, decided), *way) if passed else None
    geometry = no_geometry(files.image, scan.affine, scan.image.shape)
    return _Found(
        codes,
        functools.partial(to_scan, probability, *way),
        scan.affine,
        dict(prepared.seconds) | {"inference": inferred - start},
        inferred,
        dict(prepared.details),
        (*scan.warnings, *filter(None, [geometry])),
        _warnings(spec, decided, None if spec.volumes.random_patch else box),
        passed,
        statistics,
        doubted,
    )


def statistics_of(
    image: NDArray[np.floating], spec: DatasetSpec, box: Box | None, details: Mapping[str, Any]
) -> dict[str, float]:
    """Statistics of a prepared scan, of the part that the network sees, and of its registration (`trust.unlike`)."""
    seen = image if box is None or spec.volumes.random_patch else crop_or_pad(image, box)
    return {**image_statistics(seen.astype(np.float32)), **registration_statistics(details)}


def _of_planes(
    files: ScanFiles,
    spec: DatasetSpec,
    predictor: Predictor,
    channels: int,
    batch: int,
    forest: Forest | None,
    cleaned: str,
    trust: Trust | None,
) -> _Found:
    volume = read_volume(files, spec, every_slice=True)
    start = time.perf_counter()
    image = volume.image.astype(np.float16)

    def ask(network: Predictor) -> NDArray[np.float32]:
        return predict_stack(image, channels, volume.z, network, batch)

    passed = trust.ask(ask, spec) if trust else None
    probability = passed.mean if passed else ask(predictor)
    doubted = planes_to_scan(doubt(passed.codes, decide(probability, spec.exclusive)), volume) if passed else None
    if forest is not None:
        at = spec.structures.index(cleaned)
        liver = probability[..., spec.structures.index(ORGAN)] > THRESHOLD if forest.liver else None
        one = probability[..., at]
        # Planes are every slice of the scan, so the third axis of the affine is one slice.
        spacing = Grid(volume.scan_shape, volume.affine).spacing
        probability[..., at] = one * forest.keep(one, one > THRESHOLD, image, spacing, liver)
    inferred = time.perf_counter()
    on_scan = np.stack([planes_to_scan(p, volume) for p in np.moveaxis(probability, -1, 0)], -1)
    return _Found(
        decide(on_scan, spec.exclusive),
        lambda: on_scan,
        volume.scan_affine,
        dict(volume.seconds) | {"inference": inferred - start},
        inferred,
        warnings=(*volume.doubts.values(), *volume.warnings),
        passed=passed,
        doubt=doubted,
    )


def own_values(structures: Sequence[str], label_values: Sequence[LabelValues], exclusive: bool) -> tuple[int, ...]:
    """The label value that marks each structure in a prediction: the one of the training labels.

    A single structure is 1, and others are counted from 1 where they go by the names of segments, or where several
    values make one of exclusive structures, of which none is all of it. Of overlapping structures it is the first value
    that no later one has: where 1 and 2 are liver and 2 is tumour, the liver is written as 1 and the tumour as 2.
    """
    numbers = [[v for v in values if isinstance(v, int)] for values in label_values]
    if exclusive:
        single = all(len(n) == len(v) == 1 and n[0] > 0 for n, v in zip(numbers, label_values, strict=True))
        return tuple(n[0] for n in numbers) if single and len(structures) > 1 else tuple(range(1, len(structures) + 1))
    later = [{v for values in label_values[i + 1 :] for v in values} for i in range(len(structures))]
    return tuple(
        next((v for v in values if v not in taken), values[0]) if values else i + 1
        for i, (values, taken) in enumerate(zip(numbers, later, strict=True))
    )


def label_map_of(
    codes: NDArray[np.uint8], spec: DatasetSpec
) -> tuple[NDArray[np.integer], dict[str, NDArray[np.bool_]]]:
    """A label map of codes of the structures, of any shape, and the structures that it cannot tell.

    Structures that overlap are written as the value that both have. A structure whose values are all another's is part
    of that one wherever it is, as a tumour is liver. Where no value says which structures a voxel shows, the label map
    holds the last one's, and each of them is given by itself besides.
    """
    own = own_values(spec.structures, spec.label_values, spec.exclusive)
    if spec.exclusive:
        of_code = np.array([0, *own] + [0] * (255 - len(own)))
        return of_code[codes].astype(_smallest(own)), {}
    named = [{v for v in of if isinstance(v, int)} or {i} for of, i in zip(spec.label_values, own, strict=True)]
    meaning = {v: frozenset(i for i, of in enumerate(named) if v in of) for v in sorted(set().union(*named))}
    of_meaning = {m: v for v, m in reversed(meaning.items())}
    table, untold = np.zeros(256, np.int64), set[int]()
    for code in np.unique(codes[codes > 0]).tolist():
        there = [i for i in range(len(own)) if code >> i & 1]
        whole = frozenset(i for i, of in enumerate(named) if any(i == t or named[t] < of for t in there))
        table[code] = of_meaning.get(whole, own[there[-1]])
        if whole not in of_meaning:
            untold |= set(there)
    apart = {spec.structures[i]: mask_of(codes, i, False) for i in sorted(untold)}
    return table[codes].astype(_smallest([*own, *meaning])), apart


def _smallest(values: Iterable[int]) -> type[np.integer]:
    return np.uint8 if max(values) < 256 else np.int32


def not_found(structures: Iterable[str]) -> list[str]:
    """A sentence for each structure of which there is no voxel."""
    return [f"no {s} was found: check that the scan is like the network's training data" for s in structures]


def _warnings(spec: DatasetSpec, found: NDArray[np.uint8], box: Box | None) -> tuple[str, ...]:
    masks = {s: mask_of(found, i, spec.exclusive) for i, s in enumerate(spec.structures)}
    said = not_found(s for s, mask in masks.items() if not mask.any())
    for structure, mask in masks.items():
        if box is not None and (faces := _faces(mask, box)):
            said.append(
                f"the {structure} reaches the {' and '.join(faces)} of the patch "
                "and may be cut off there: check the overlay"
            )
    return tuple(said)


def _faces(found: NDArray[np.bool_], box: Box) -> list[str]:
    """Names of the box's faces that hold predicted voxels: a sign that the structure goes on beyond."""
    names = (("left", "right"), ("back", "front"), ("bottom", "top"))
    faces = []
    for axis, pair in enumerate(names):
        for voxel, name in zip((box.start[axis], box.stop[axis] - 1), pair, strict=True):
            if 0 <= voxel < found.shape[axis] and found.take(voxel, axis).any():
                faces.append(name)
    return faces
