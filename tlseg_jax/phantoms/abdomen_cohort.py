"""The built-in cohort of the liver report on disk: procedural abdomens as NIfTI files that `prepare` reads.

FOLDER/README.txt         what these files are, and are not
FOLDER/cohort.json        the parameters that they were drawn from
lits:         FOLDER/volume-0.nii.gz, FOLDER/segmentation-0.nii.gz, ...      (labels 1 liver, 2 tumour)
mri_artery:   FOLDER/case-01/artery.nii.gz, FOLDER/case-01/label.nii.gz, ... (label 1 tumour)
"""

import functools
from pathlib import Path

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.phantoms.abdomen import check_drawn, draw_abdomen, drawn_person
from tlseg_jax.phantoms.cohort_folder import SEED, drawn, filling_cohort, holds_cohort, write_nifti
from tlseg_jax.runtime.errors import InputError

VERSION = 1
"""Raised whenever the same parameters would draw other voxels."""

VOLUMES = {"lits": 14, "mri_artery": 14}
"""Volumes of a cohort unless told otherwise."""

LARGEST_PIXELS = 256
"""Slices of more pixels a side are refused: the shapes hold no finer detail, and whole volumes are drawn at once."""

NOTE = """Synthetic abdomens drawn by a program (tlseg_jax.phantoms.abdomen).

These are schematic drawings in the style of {style}. They show no real person and hold no
patient data. They exist so that the software can be run, tested and studied where there are no scans.
A score reached on them says nothing about how a method performs on patients.

Data set: {name}. Label values: {labels}.
CT (lits) and MRI (mri_artery) show different persons of one population.
cohort.json has the parameters that draw the same files again.
"""


def write_abdomens(spec: DatasetSpec, folder: Path, *, volumes: int, workers: int = 2, progress: bool = True) -> Path:
    """Draw a data set's abdomens into `folder`, whole or not at all; an identical cohort is reused.

    More volumes add to the same first ones.

    Args:
      spec: `lits` or `mri_artery`, at the pixels to draw (see `abdomen.cohort_spec`).

    Returns:
      `folder`, absolute.

    Raises:
      InputError: there is no cohort for this data set, a number is not usable, or `folder` holds
        something else.
    """
    check_drawn(spec)
    pixels = spec.planes.pixels
    if max(pixels) > LARGEST_PIXELS:
        raise InputError(
            f"The built-in cohort of '{spec.name}' is not drawn at {pixels[0]}x{pixels[1]} pixels: "
            f"give at most {LARGEST_PIXELS} a side."
        )
    if volumes < 1:
        raise InputError(f"A cohort of {volumes} volumes is not usable: ask for at least one.")
    folder = folder.absolute()
    parameters = {
        "cohort": VERSION,
        "dataset": spec.name,
        "modality": spec.planes.modality,
        "pixels": list(spec.planes.pixels),
        "volumes": volumes,
        "seed": SEED,
    }
    if holds_cohort(folder, parameters):
        return folder
    ct = spec.planes.modality == "CT"
    note = NOTE.format(
        name=spec.name,
        style="contrast-enhanced CT in HU" if ct else "T1-weighted MRI in the arterial phase",
        labels="1 liver, 2 tumour" if ct else "1 tumour",
    )
    with filling_cohort(folder, parameters, note) as beside:
        write = functools.partial(_write_volume, spec, beside)
        for _ in drawn(write, range(volumes), workers, f"drawing {spec.name}", "volume", progress):
            pass
    return folder


def _write_volume(spec: DatasetSpec, folder: Path, volume: int) -> None:
    scan = draw_abdomen(spec, drawn_person(spec, volume), SEED)
    image, label = folder / f"volume-{volume}.nii.gz", folder / f"segmentation-{volume}.nii.gz"
    if spec.planes.modality == "MR":
        case = folder / f"case-{volume + 1:02d}"
        case.mkdir()
        image, label = case / "artery.nii.gz", case / "label.nii.gz"
    write_nifti(image, scan.image, scan.affine, "scanner")
    write_nifti(label, scan.label, scan.affine, "scanner")
