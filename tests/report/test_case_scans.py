"""Scans and masks of slices come out as volumes, in the place along the body that the store says."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.evaluate.slices import SHAPE, SPACING, draw, write_slice_store
from tests.report.sweep_results import LIVER, make_rows, study_dict, write_rows
from tlseg_jax.evaluate.mask_file import save_masks
from tlseg_jax.report.figures.case_scans import load_scan
from tlseg_jax.report.sections.cases import cases, scans
from tlseg_jax.report.study_info import StudyInfo, read_study
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies.results_table import Results, read_results

SET = "tiny2d_tumour"


def liver(folder: Path, samples: list[int] | None = None) -> tuple[Results, StudyInfo]:
    """A study of one test volume, vol-2, predicted perfectly but for an empty last slice."""
    write_slice_store(folder / "store", samples=samples)
    rows = make_rows(LIVER[:2], (2,), 1, 1, study="liver", task=SET, unseen=())
    rows = [r | {"subject": "vol-2", "person": "vol-2"} for r in rows if r["role"] == "target"]
    write_json(
        folder / "study.json",
        study_dict(LIVER[:2], (2,), 1, study="liver", unseen=(), kind="slices", stores={SET: str(folder / "store")}),
    )
    mask = draw(2)[1] >> 1 & 1 > 0
    mask = mask[samples or list(range(len(mask)))].copy()
    mask[-1] = False
    for row in rows:
        save_masks(folder / "cells" / row["cell"] / "predictions" / f"{SET}.npz", {"vol-2": mask})
    return read_results(write_rows(folder / "results.csv", rows)), read_study(folder / "study.json")


def test_slices_become_a_volume(tmp_path: Path) -> None:
    _, study = liver(tmp_path)
    scan = load_scan(study, SET, "vol-2")
    image, bits = draw(2)
    assert scan.image.shape == (*SHAPE[1:], SHAPE[0]) and not scan.stack
    np.testing.assert_array_equal(scan.reference, np.moveaxis(bits >> 1 & 1, 0, -1) > 0)
    np.testing.assert_allclose(scan.image, np.moveaxis(image, 0, -1), atol=2e-3)
    np.testing.assert_allclose(np.linalg.norm(scan.affine[:3, :3], axis=0), SPACING)


def test_samples_apart_are_a_stack(tmp_path: Path) -> None:
    results, study = liver(tmp_path, [1, 2, 5, 8])
    scan = load_scan(study, SET, "vol-2")
    assert scan.stack and scan.numbers == (1, 2, 5, 8) and scan.image.shape == (*SHAPE[1:], 4)
    section, notes = scans(results, study, 3)
    (viewer,) = section.viewers
    assert notes == () and viewer.places[2][2] == "slice 5 (3 of 4)" and "no neighbours" in viewer.note


def test_a_run_of_slices_keeps_its_height(tmp_path: Path) -> None:
    _, study = liver(tmp_path, [3, 4, 5])
    scan = load_scan(study, SET, "vol-2")
    whole = load_scan(liver(tmp_path / "whole")[1], SET, "vol-2")
    np.testing.assert_allclose(scan.affine @ [0, 0, 0, 1], whole.affine @ [0, 0, 3, 1])


def test_the_grid_and_the_viewer_show_slices(tmp_path: Path) -> None:
    results, study = liver(tmp_path)
    section = cases(results, dataclasses.replace(study, figures=tmp_path / "figures"))
    assert section.figures[0].png.is_file() and section.paragraphs == ()
    found, notes = scans(results, study, 3)
    (viewer,) = found.viewers
    assert notes == () and viewer.title.startswith("Only subject of the target tiny2d_tumour: vol-2")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    _, study = liver(tmp_path)
    with pytest.raises(InputError, match="holds no scan vol-9"):
        load_scan(study, SET, "vol-9")
    with pytest.raises(InputError, match="names no prepared data set of other"):
        load_scan(study, "other", "vol-2")
