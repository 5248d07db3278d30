"""Where a study works: its folders, and the data sets it finds or makes there."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from tlseg_jax.datasets.factors import is_factor_name
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.evaluate.inference import Tiles
from tlseg_jax.input.synthesis.persons import map_persons
from tlseg_jax.phantoms.abdomen import cohort_spec
from tlseg_jax.phantoms.abdomen_cohort import VOLUMES, write_abdomens
from tlseg_jax.phantoms.cohort import phantoms, write_cohort
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.prepare_slices import prepare_slices
from tlseg_jax.preprocess.store.any_store import AnyStore, not_prepared, open_any_store
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import is_prepared
from tlseg_jax.runtime import elsewhere, processes
from tlseg_jax.runtime.bounds import Bound, Positive, Share
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log

COHORT_SPACING = 2.0
"""mm; usual voxel size of the built-in cohort of heads."""

COHORT_TRAIN, COHORT_TEST = 24, 6
"""Heads of the built-in cohort that train and that test."""


@dataclasses.dataclass(frozen=True)
class Workplace:
    """Where things are, and how to make what is not.

    Attributes:
      workdir: folder of the runs, and of the built-in cohort with its stores where it is used.
      store: folder of your prepared data sets; not given: the built-in synthetic cohort.
      cohort_train: training subjects of the built-in cohort; not given: 24 heads, 10 or 11 abdomens.
      cohort_test: test subjects of the built-in cohort; not given: 6 heads, 3 or 4 abdomens.
      workers: processes that draw and prepare the built-in cohort.
      distances: also measure HD95 and the average surface distance, in mm; of slices that are consecutive.
      clean: drop pieces that are a tenth of the smallest of the training labels or less (not of `recipe=paper`).
      tiles: whole-brain volumes: overlapping tiles, or the paper's without overlap.
      tta: volumes: score and predict by the mean over a scan as it is, mirrored, and both moved by a voxel (not of
        `recipe=paper`).
      adabn: share of what batch norms normalise by, in scoring and predicting, that is taken from the scan itself, such
        as 0.3, the rest being the running averages (`models.adabn`); 0: the running averages alone.
      progress: whether to draw bars.
      cohort_spacing: voxel size in mm of the built-in cohort of heads.
      label_maps: whole-head label maps that the images of factor data sets are drawn from; None: schematic heads.
    """

    workdir: Path
    store: Path | None = None
    cohort_train: Annotated[int, Bound(2)] | None = None
    cohort_test: Positive | None = None
    workers: Positive = 2
    distances: bool = False
    clean: bool = True
    tiles: Tiles = "gaussian"
    tta: bool = True
    adabn: Share = 0.0
    progress: bool = True
    cohort_spacing: float = COHORT_SPACING
    label_maps: Path | None = None

    @property
    def scoring(self) -> dict[str, Any]:
        """How runs are scored, as `assess` and `is_scored` take it."""
        return {name: getattr(self, name) for name in ("distances", "clean", "tiles", "tta", "adabn")}

    @property
    def store_name(self) -> str:
        """The user's prepared data sets, in messages."""
        return elsewhere.current().name(self.store) if self.store else "the built-in cohort"


def lacks_unseen(place: Workplace, name: str) -> bool:
    """Whether the user's store has no test set of that name, which is then said."""
    if place.store is None or is_prepared(place.store / name):
        return False
    log.info(
        f"{name}: not in {place.store_name}, so generalisation to unseen data is not measured "
        "(prepare scans of another source under that name to have it)."
    )
    return True


def named_spec(place: Workplace, name: str) -> DatasetSpec:
    """The spec of a prepared data set in the user's store, else of a name in the papers or a TOML file.

    A data set may have been prepared under a name of the user's own (`prepare --name`).

    Raises:
      InputError: nothing has that name.
    """
    if place.store is not None and is_prepared(place.store / name):
        return open_any_store(place.store / name).spec
    return get_spec(name)


def open_store(place: Workplace, spec: DatasetSpec) -> AnyStore:
    """The prepared data set of a spec: the user's, or the built-in cohort's, made if it is missing.

    A factor data set (`datasets.factors`) is drawn where the user's store lacks it: nobody's scans are like that.

    Raises:
      InputError: the user's store lacks it, or holds another data set under its name.
    """
    if place.store is None:
        draw = _cohort_of_slices if spec.kind == "slices" else _cohort_of_heads
        return _made(lambda: draw(place, spec))
    folder = place.store / spec.name
    if not is_prepared(folder):
        if is_factor_name(spec.name):
            return _made(lambda: _cohort_of_heads(place, spec))
        raise not_prepared(place.store_name, spec.name)
    store = open_any_store(folder)
    if store.spec.kind != spec.kind:
        raise InputError(
            f"The prepared data set {store.where} is one of {store.spec.kind} and '{spec.name}' is one of {spec.kind}: "
            "prepare it again under another name."
        )
    if spec.kind == "volumes":
        there, here = store.spec.to_dict(), spec.to_dict()
        for field in ("structures", "space", "skull_strip", "random_patch", "split_group"):
            if (theirs := there[field]) != (ours := here[field]):
                raise InputError(
                    f"The prepared data set {store.where} was made from another description of '{spec.name}' "
                    f"({field} is {theirs!r} there and {ours!r} here): prepare it again under another name."
                )
    log.info(f"{spec.name}: using the prepared data set {store.where}.")
    return store


def _made(make: Callable[[], AnyStore]) -> AnyStore:
    """A store that is made; of several processes the chief makes it while the others wait, and all open it."""
    if processes.count() == 1:
        return make()
    return open_any_store(processes.chief(lambda: elsewhere.current().name(make().folder.absolute())))


def _cohort_of_heads(place: Workplace, spec: DatasetSpec) -> AnyStore:
    folder = place.workdir / "cohort" / spec.name
    made = folder.exists()
    maps = place.label_maps if is_factor_name(spec.name) else None
    source = write_cohort(
        spec.at_spacing(place.cohort_spacing),
        folder,
        train=place.cohort_train or COHORT_TRAIN,
        test=place.cohort_test or COHORT_TEST,
        spacing=place.cohort_spacing,
        workers=place.workers,
        progress=place.progress,
        persons=functools.partial(map_persons, maps) if maps else phantoms,
    )
    drawn = f"images drawn from the label maps of {maps}" if maps else "synthetic heads"
    log.info(
        f"{spec.name}: {'reusing the' if made else 'drew a'} built-in cohort in {folder}: {drawn}, already in "
        f"{spec.volumes.space} space at {place.cohort_spacing:g} mm, so nothing is registered; "
        "scores on them mean nothing for patients."
    )
    return prepare_dataset(
        spec.at_spacing(place.cohort_spacing),
        source,
        place.workdir / "store",
        PrepareSettings(registration="skip"),
        workers=place.workers,
        progress=place.progress,
    )


def _cohort_of_slices(place: Workplace, spec: DatasetSpec) -> SliceStore:
    small = cohort_spec(spec)
    if place.cohort_test is not None:
        small = small.changed(test_volumes=place.cohort_test)
    grid = small.planes
    usual = VOLUMES[spec.name] - cohort_spec(spec).planes.test_volumes
    train = usual if place.cohort_train is None else place.cohort_train
    folder = place.workdir / "cohort" / spec.name
    made = folder.exists()
    source = write_abdomens(
        small, folder, volumes=train + grid.test_volumes, workers=place.workers, progress=place.progress
    )
    log.info(
        f"{spec.name}: {'reusing the' if made else 'drew a'} built-in cohort in {folder}: synthetic abdomens of "
        f"{grid.pixels[0]}x{grid.pixels[1]} pixels ({grid.modality}); "
        f"scores on them mean nothing for patients."
    )
    return prepare_slices(small, source, place.workdir / "store", workers=place.workers, progress=place.progress)
