"""The built-in cohort on disk: phantom heads as NIfTI files that `prepare` reads like anyone's scans.

    FOLDER/README.txt         what these files are, and are not
    FOLDER/cohort.json        the parameters that they were drawn from
    FOLDER/subjects.csv       subject, image, label, mask, split, person
    FOLDER/images/hdt-000.nii.gz, FOLDER/labels/..., FOLDER/masks/...

Each data set is drawn in the space that it is delivered in, so nothing has to be registered.
"""

import csv
import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, Space
from tlseg_jax.geometry import Affine
from tlseg_jax.phantoms.cohort_folder import SEED, drawn, filling_cohort, flush_file, holds_cohort, write_nifti
from tlseg_jax.phantoms.phantom import draw_person, grid_for, settings_for
from tlseg_jax.runtime.errors import InputError

VERSION = 1
"""Raised whenever the same parameters would draw other voxels."""

COLUMNS = ("subject", "image", "label", "mask", "split", "person")

NOTE = """Synthetic heads drawn by a program (tlseg_jax.phantoms.phantom).

These are schematic drawings in the style of T1-weighted MRI. They show no real person and hold no
patient data. They exist so that the software can be run, tested and studied where there are no scans.
A score reached on them says nothing about how a method performs on patients.

Data set: {name}. The label marks: {structure}. Settings: {settings}.
subjects.csv lists the files; cohort.json has the parameters that draw the same files again.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class DrawnScan:
    """One person as the cohort shows it.

    Attributes:
      name: of the person, and of the files.
      image: (x, y, z), 0 or more.
      label: (x, y, z), 1 in the structure.
      brain: (x, y, z) bool.
      affine: (4, 4) voxel -> mm.
    """

    name: str
    image: NDArray[Any]
    label: NDArray[np.uint8]
    brain: NDArray[np.bool_]
    affine: Affine


@dataclasses.dataclass(frozen=True, eq=False)
class Persons:
    """Whom a cohort shows.

    Attributes:
      parameters: all that their voxels depend on, as plain values.
      draw: a person's number, from 0 -> the scan.
    """

    parameters: dict[str, Any]
    note: str
    draw: Callable[[int], DrawnScan]


def phantoms(spec: DatasetSpec, seed: int, count: int) -> Persons:
    """As many phantom heads as are asked for, of a data set with a spacing.

    Raises:
      InputError: there is no cohort for this data set.
    """
    settings, grid = settings_for(spec), grid_for(spec)
    plain = {k: str(v) for k, v in vars(settings).items()}
    parameters = {"cohort": VERSION, "settings": plain, "shape": list(grid.shape), "affine": grid.affine.tolist()}

    def draw(person: int) -> DrawnScan:
        phantom = draw_person(settings, person, seed, grid)
        name = f"{settings.population}-{person:03d}"
        return DrawnScan(name, phantom.image, phantom.label, phantom.brain, grid.affine)

    note = NOTE.format(name=spec.name, structure=spec.shown, settings=plain)
    return Persons(parameters | {"seed": seed}, note, draw)


def write_cohort(
    spec: DatasetSpec,
    folder: Path,
    *,
    train: int = 32,
    test: int = 8,
    spacing: float = 2.0,
    workers: int = 2,
    progress: bool = True,
    persons: Callable[[DatasetSpec, int, int], Persons] = phantoms,
) -> Path:
    """Draw a data set's persons into `folder`, whole or not at all; an identical one is reused.

    Data sets of one population (hdt_c, hdt_v, hdt_wb) show the same persons under the same names and
    with the same split. A data set that the paper only tests on gets no training subjects.

    Args:
      spec: one of the paper's five, at any spacing.
      spacing: isotropic voxel size in mm.
      persons: whom: of the data set at its spacing, the seed and how many.

    Returns:
      The path of subjects.csv.

    Raises:
      InputError: there is no cohort for this data set, a count is not usable, or `folder` holds
        something else.
    """
    folder = folder.absolute()
    train = train if spec.volumes.train_count else 0
    if train < 0 or test < 0 or train + test < 1:
        raise InputError(f"A cohort of {train} training and {test} test subjects is not usable: ask for at least one.")
    sized = spec.at_spacing(spacing)
    whom = persons(sized, SEED, train + test)
    parameters = {"dataset": spec.name, "train": train, "test": test, **whom.parameters}
    table = folder / "subjects.csv"
    if holds_cohort(folder, parameters):
        return table

    # Test subjects come first in the numbering, so that more training subjects add to the same cohort.
    numbers = range(train + test)
    with filling_cohort(folder, parameters, whom.note) as beside:
        for kind in ("images", "labels", "masks"):
            (beside / kind).mkdir()
        draw = functools.partial(_write_person, beside, spec.volumes.space, whom)
        done = drawn(draw, numbers, workers, f"drawing {spec.name}", "head", progress)
        rows = [
            (name, *files, "test" if person < test else "train", name)
            for person, (name, files) in zip(numbers, done, strict=True)
        ]
        with (beside / table.name).open("w", newline="", encoding="utf-8") as f:
            writer = csv.writer(f, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(rows)
            flush_file(f)
    return table


def _write_person(folder: Path, space: Space, whom: Persons, person: int) -> tuple[str, tuple[str, str, str]]:
    """Draw and write one person; returns the name and the paths relative to `folder`."""
    scan = whom.draw(person)
    image = np.clip(np.rint(scan.image), 0, 32767).astype(np.int16)  # whole numbers, as scanners give
    volumes: tuple[tuple[str, NDArray[Any]], ...] = (
        ("images", image),
        ("labels", scan.label),
        ("masks", scan.brain.astype(np.uint8)),
    )
    paths = []
    for kind, volume in volumes:
        relative = f"{kind}/{scan.name}.nii.gz"
        code: Literal["scanner", "aligned"] = "aligned" if space == "MNI305" else "scanner"
        write_nifti(folder / relative, volume, scan.affine, code)
        paths.append(relative)
    return scan.name, (paths[0], paths[1], paths[2])
