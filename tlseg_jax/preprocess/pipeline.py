"""One scan through every step, in the paper's order; for training data and for prediction alike."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.codes import anywhere, mask_of
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan
from tlseg_jax.preprocess.steps.bias import correct_bias
from tlseg_jax.preprocess.steps.normalise import zscore
from tlseg_jax.preprocess.steps.register import register
from tlseg_jax.preprocess.steps.resample import codes_to_grid, mask_to_grid, to_grid
from tlseg_jax.preprocess.steps.strip import brain_mask, foreground, own_brain, strip
from tlseg_jax.preprocess.steps.template import mni305_grid, native_grid

VERSION = 1
"""Raised when the steps change what they give, so that old results are not taken for new ones."""


@dataclasses.dataclass(frozen=True)
class PrepareSettings:
    """What may be chosen besides the data set's spec.

    Attributes:
      registration: "auto" registers where the spec's space is MNI305; "skip" takes the scans to be in
        the spec's space already.
      order: interpolation of the image, 1 linear or 3 cubic spline.
      from_labels: whether the source is label maps alone, from which images are drawn in training.
    """

    registration: Literal["auto", "skip"] = "auto"
    bias_correction: bool = True
    order: int = 3
    from_labels: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the version of the steps; of scans as they always were."""
        values = dataclasses.asdict(self) | {"version": VERSION}
        return values if self.from_labels else {k: v for k, v in values.items() if k != "from_labels"}

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "PrepareSettings":
        """The settings that a manifest's `parameters` hold; whatever else is in there is passed over."""
        return cls(**{f.name: d[f.name] for f in dataclasses.fields(cls) if f.name in d})


@dataclasses.dataclass(frozen=True, eq=False)
class Prepared:
    """A scan after every step.

    Attributes:
      image: grid.shape, z-scored.
      label: grid.shape codes (`preprocess.codes`); None where the scan has none.
      space_to_world: (4, 4) the grid's space mm -> the scan's world RAS mm; with the grid, the scan's
        shape and its affine this takes a prediction back (`resample.to_scan`).
      details: what the steps have to say (where the brain mask is from, registration figures).
      label_right: of each structure that is there the share on the right of the head's middle plane.
    """

    image: Float32[np.ndarray, "x y z"]
    label: UInt8[np.ndarray, "x y z"] | None
    grid: Grid
    space_to_world: Affine
    seconds: dict[str, float]
    details: dict[str, Any]
    label_right: Mapping[str, float] = dataclasses.field(default_factory=dict)


def needs_registration(scan: Scan, spec: DatasetSpec, settings: PrepareSettings) -> bool:
    """Whether this scan has to be registered: for its space, or for the template's brain mask."""
    if settings.registration == "skip" and spec.volumes.space == "MNI305":
        return False
    if spec.volumes.space == "MNI305":
        return True
    return spec.volumes.skull_strip and scan.mask is None and own_brain(scan.image, scan.affine) is None


def preprocess_scan(
    scan: Scan,
    spec: DatasetSpec,
    settings: PrepareSettings,
    space_to_world: Affine | None = None,
    name: str = "The scan",
) -> Prepared:
    """Registration (its transform only), bias field, resampling (once), skull strip, z-score.

    That is the order of Weatheritt et al., section 3.2. Cropping comes when a patch is read, as one
    box serves the whole data set.

    Args:
      scan: voxels and affine; the label and the mask may be None.
      spec: the data set to look like.
      space_to_world: (4, 4) MNI305 mm -> world RAS mm where it is known already; None registers if
        `needs_registration`.

    Raises:
      ExclusionError: the scan cannot be registered, or nothing of it (or of its label) is on the grid.
    """
    seconds: dict[str, float] = {}
    details: dict[str, Any] = {}

    @contextlib.contextmanager
    def step(key: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[key] = round(time.perf_counter() - start, 3)

    mni_to_world = space_to_world
    if mni_to_world is None:
        with step("register"):
            if needs_registration(scan, spec, settings):
                found = register(scan.image, scan.affine, name)
                mni_to_world = found.mni_to_world
                details["registration"] = {"information": found.information, "scales": list(found.scales)}
            elif spec.volumes.space == "MNI305":
                mni_to_world = np.eye(4)
    head = foreground(scan.image, scan.affine)
    if spec.volumes.space == "MNI305":
        assert mni_to_world is not None
        grid, to_world = mni305_grid(spec), mni_to_world
    else:
        grid, to_world = native_grid(spec, scan.image.shape, scan.affine, head), np.eye(4)

    image = scan.image
    own = own_brain(image, scan.affine)  # before the bias field touches the constant background
    if settings.bias_correction:
        with step("bias"):
            image, _ = correct_bias(image, scan.affine, head if own is None else own)
    with step("resample"):
        image = to_grid(image, scan.affine, grid, to_world, settings.order)
        label = None
        if scan.label is not None:
            label = codes_to_grid(scan.label, scan.affine, grid, to_world, len(spec.structures), spec.exclusive)
            if not anywhere(label).any():
                sides = "x".join(map(str, grid.shape))
                raise ExclusionError(
                    f"{name}: nothing of its label is left on the {spec.volumes.space} grid of {sides} voxels: "
                    "check the label, the orientation in the headers, or choose a smaller `spacing`."
                )
        middle = 0.0 if spec.volumes.space == "MNI305" else head_middle(scan, head)
        right = {} if label is None else shares_right(label, spec, grid, middle)
    mask = None
    with step("strip"):
        if spec.volumes.skull_strip:
            mask, details["brain_mask"] = brain_mask(scan, own, grid, to_world, mni_to_world)
            image = strip(image, mask)
    with step("normalise"):
        where = None
        if spec.volumes.normalise == "mask":
            if mask is None:
                known = scan.mask if scan.mask is not None else own if own is not None else head
                mask = mask_to_grid(known, scan.affine, grid, to_world)
            where = mask
        image = zscore(image, where, name)
    return Prepared(image, label, grid, to_world, seconds, details, right)


def head_middle(scan: Scan, head: NDArray[np.bool_]) -> float:
    """x of the head's centre of mass, in mm of the world: near enough for what lies on one side alone."""
    return float(scan.affine[0, :3] @ [i.mean() for i in np.nonzero(head)] + scan.affine[0, 3])


def shares_right(label: NDArray[np.uint8], spec: DatasetSpec, grid: Grid, middle: float) -> dict[str, float]:
    """Share of each structure's voxels beyond `middle` on x, in mm of the grid's space, which grows to the right."""
    shares = {}
    for i, structure in enumerate(spec.structures):
        where = np.nonzero(mask_of(label, i, spec.exclusive))
        if where[0].size:
            shares[structure] = float(np.mean(grid.affine[0, :3] @ where + grid.affine[0, 3] > middle))
    return shares
