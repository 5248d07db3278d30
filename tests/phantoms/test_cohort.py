"""The built-in cohort on disk."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.phantoms import cohort
from tlseg_jax.phantoms.cohort import write_cohort
from tlseg_jax.phantoms.phantom import draw_person, grid_for, settings_for
from tlseg_jax.runtime.errors import InputError

COARSE = 6.0
"""mm; drawing is quick at this size."""


def write(name: str, folder: Path, **kwargs: Any) -> list[dict[str, str]]:
    values = {"train": 2, "test": 1, "spacing": COARSE, "progress": False} | kwargs
    table = write_cohort(PAPERS[name], folder, **values)
    with table.open(newline="") as f:
        return list(csv.DictReader(f))


def test_files_are_what_the_list_says(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "hdt_c"
    rows = write("hdt_c", folder)
    assert [r["split"] for r in rows] == ["test", "train", "train"]
    assert "nothing" in (folder / "README.txt").read_text() and "Synthetic" in (folder / "README.txt").read_text()
    spec = PAPERS["hdt_c"].at_spacing(COARSE)
    phantom = draw_person(settings_for(spec), 1, 0, grid_for(spec))
    image, label, mask = (nib.load(folder / rows[1][k]) for k in ("image", "label", "mask"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), np.rint(phantom.image))
    np.testing.assert_array_equal(np.asarray(label.dataobj), phantom.label)
    np.testing.assert_array_equal(np.asarray(mask.dataobj), phantom.brain)
    assert label.get_data_dtype() == np.uint8 and image.header["magic"] == b"n+1"
    for volume in (image, label, mask):
        np.testing.assert_allclose(volume.affine, grid_for(spec).affine, atol=1e-4)
        assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    assert not [p for p in tmp_path.rglob("*.tmp")]


def test_data_sets_of_one_trial_share_persons_and_split(tmp_path: Path) -> None:
    rows = [write(n, tmp_path / n) for n in ("hdt_c", "hdt_v", "hdt_wb")]
    keys = [[(r["subject"], r["person"], r["split"]) for r in of] for of in rows]
    assert keys[0] == keys[1] == keys[2]
    image = rows[0][0]["image"]
    assert (tmp_path / "hdt_c" / image).read_bytes() == (tmp_path / "hdt_v" / image).read_bytes()


def test_oas_c_only_tests(tmp_path: Path) -> None:
    assert {r["split"] for r in write("oas_c", tmp_path / "o", test=2)} == {"test"}
    with pytest.raises(InputError, match="at least one"):
        write("oas_c", tmp_path / "p", train=4, test=0)


def test_the_files_do_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    write("mal_c", tmp_path / "one", workers=1)
    write("mal_c", tmp_path / "two", workers=3)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 3 * 3 + 3
    for f in files:
        assert (tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes()


def test_more_training_subjects_keep_the_others(tmp_path: Path) -> None:
    few, many = write("hdt_c", tmp_path / "few", train=1), write("hdt_c", tmp_path / "many", train=3)
    assert many[: len(few)] == few


def test_an_identical_cohort_is_reused_and_another_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = write("hdt_c", tmp_path / "c")
    monkeypatch.setattr(cohort, "draw_person", lambda *a: pytest.fail("drew again"))
    assert write("hdt_c", tmp_path / "c") == rows
    with pytest.raises(InputError, match=r"another built-in cohort \(different: train\)"):
        write("hdt_c", tmp_path / "c", train=3)
    with pytest.raises(InputError, match="different: dataset, settings"):
        write("hdt_v", tmp_path / "c")


def test_a_failure_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cohort, "write_nifti", full)
    with pytest.raises(OSError, match="No space left"):
        write("hdt_c", tmp_path / "c")
    assert not list(tmp_path.iterdir())


def test_faults_in_the_folder_and_the_counts_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write("hdt_c", tmp_path / "file")
    with pytest.raises(InputError, match="cannot be written"):
        write("hdt_c", tmp_path / "file" / "below")
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.doc").write_text("x")
    with pytest.raises(InputError, match="holds other files"):
        write("hdt_c", other)
    (other / "cohort.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        write("hdt_c", other)
    assert (other / "thesis.doc").exists()
    for bad in ({"train": -1}, {"spacing": 0.0}):
        with pytest.raises(InputError, match="not usable"):
            write("hdt_c", tmp_path / "new", **bad)
    (tmp_path / "empty").mkdir()
    assert write("hdt_c", tmp_path / "empty")


def test_parameters_are_plain_json(tmp_path: Path) -> None:
    write("hdt_wb", tmp_path / "c")
    found = json.loads((tmp_path / "c" / "cohort.json").read_text())
    assert found["dataset"] == "hdt_wb" and found["settings"]["space"] == "native" and found["seed"] == 0
