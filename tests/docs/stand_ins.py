"""What a reader of the docs has and a test machine lacks: scans with labels, label maps, CT and MRI, all drawn.

They let every command run; nothing can be learnt from them.
"""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from tests.preprocess.slice_volumes import anatomy, write_pair
from tlseg_jax.datasets.label_names import PRESETS
from tlseg_jax.geometry import Affine, Grid
from tlseg_jax.preprocess.steps.centres import CENTRES
from tlseg_jax.preprocess.steps.resample import mask_to_grid, to_grid
from tlseg_jax.preprocess.steps.template import MNI305_TO_MNI152, template_image, template_mask

WHITE, CORTEX, SCALP = (2, 41), (3, 42), 511
EXTRA = {"lateral_ventricle_left": (-9.0, 2.0, 22.0), "lateral_ventricle_right": (9.0, 2.0, 22.0)}
"""MNI305 mm: above the caudates; `CENTRES` has no ventricles."""


def head(seed: int, table: str = "freesurfer") -> tuple[NDArray[np.float32], NDArray[np.int16], Affine]:
    """The template as another person's scan, 2.5 mm, with balls for structures in a table's values."""
    rng = np.random.default_rng(seed)
    to_world = np.eye(4)  # MNI305 -> this scanner's mm
    to_world[:3, :3] = np.diag(rng.uniform(0.93, 1.07, 3))
    to_world[:3, 3] = np.array([12, -15, 10]) + rng.uniform(-4, 4, 3)
    affine = np.diag([2.5, 2.5, 2.5, 1.0])
    affine[:3, 3] = to_world[:3, 3] - (92, 130, 90)
    grid = Grid((74, 92, 74), affine)
    volume, to_mni152 = template_image()
    template = np.linalg.inv(MNI305_TO_MNI152) @ to_mni152
    image = to_grid(volume, template, grid, np.linalg.inv(to_world), order=1)
    mask, to_mni152 = template_mask()
    brain = mask_to_grid(mask, np.linalg.inv(MNI305_TO_MNI152) @ to_mni152, grid, np.linalg.inv(to_world))

    voxels = np.stack(np.indices(grid.shape), -1)
    at = nib.affines.apply_affine(np.linalg.inv(to_world) @ affine, voxels)  # MNI305 mm
    right = at[..., 0] > 0
    label = np.where(brain, np.where(right, WHITE[1], WHITE[0]), 0).astype(np.int16)
    dark = brain & (image < np.median(image[brain]))
    label[dark] = np.where(right, CORTEX[1], CORTEX[0])[dark]
    for name, centre in {**CENTRES, **EXTRA}.items():
        if not name.startswith("cerebral"):
            label[(np.linalg.norm(at - np.array(centre), axis=-1) < 6) & brain] = PRESETS[table][name][0]
    # Structures look unlike what is about them, and the noise makes each scan another image.
    image = 500 * image + 40 * (label % 7) * brain + rng.normal(0, 5, image.shape) * brain
    return np.maximum(image, 0).astype(np.float32), label, affine


def write_scans(folder: Path, seeds: range, table: str = "freesurfer") -> None:
    """Scans and labels as `pairs`."""
    folder.mkdir(parents=True)
    for seed in seeds:
        image, label, affine = head(seed, table)
        nib.Nifti1Image(image, affine).to_filename(folder / f"sub-{seed}_T1w.nii.gz")
        nib.Nifti1Image(label, affine).to_filename(folder / f"sub-{seed}_labels.nii.gz")


def write_label_maps(folder: Path, seeds: range) -> None:
    """Whole heads without images: as `write_scans`, with something outside the brain."""
    folder.mkdir(parents=True)
    for seed in seeds:
        _, label, affine = head(seed)
        label[2:-2, 2:-2, 2:-2][label[2:-2, 2:-2, 2:-2] == 0] = SCALP
        nib.Nifti1Image(label, affine).to_filename(folder / f"map_{seed}.nii.gz")


def write_abdomens(folder: Path, seeds: range, tumour: bool = True) -> None:
    """`volume-N` and `segmentation-N`, as LiTS has them: liver 1 and, inside of it, tumour 2."""
    for seed in seeds:
        image, label = anatomy((64, 48, 16), seed=seed)
        write_pair(folder, str(seed), image, label if tumour else np.minimum(label, 1))


def write_cases(folder: Path, seeds: range) -> None:
    """A folder a case, with `artery.nii` and `label.nii`: arterial-phase MRI with the tumour labelled."""
    for seed in seeds:
        image, label = anatomy((64, 48, 16), seed=seed)
        case = folder / f"case{seed}"
        case.mkdir(parents=True)
        affine = np.diag([1.2, 1.2, 3.0, 1.0])
        files: dict[str, NDArray[Any]] = {"artery": image - image.min(), "label": (label == 2).astype(np.uint8)}
        for name, array in files.items():
            nib.Nifti1Image(array, affine).to_filename(case / f"{name}.nii")


def write_scores(to: Path, results: Path) -> None:
    """What another program wrote on the target's scans of a study: a table, or nnU-Net's summary.json."""
    with results.open(newline="") as f:
        scans = dict.fromkeys(r["subject"] for r in csv.DictReader(f) if r["role"] == "target")
    if to.suffix == ".csv":
        to.write_text("".join(f"{line}\n" for line in ("subject,dice", *(f"{s},0.8" for s in scans))))
        return
    cases = [{"metrics": {"1": {"Dice": 0.7}}, "prediction_file": f"predictions/{s}.nii.gz"} for s in scans]
    to.write_text(json.dumps({"metric_per_case": cases}))


def write_participants(to: Path, results: Path) -> None:
    """A participants.tsv of the persons that a study tested: their ages."""
    with results.open(newline="") as f:
        persons = dict.fromkeys(r["person"] for r in csv.DictReader(f) if r["person"])
    to.write_text("participant_id\tage\n" + "".join(f"{p}\t{60 + i}\n" for i, p in enumerate(persons)))
