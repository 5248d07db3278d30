"""From a raw scan to a label map on its own grid, with networks whose right answer is known."""

import dataclasses
import gzip
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from tests.conftest import csv_rows
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.datasets.structures import Labels
from tlseg_jax.evaluate.inference import Predictor
from tlseg_jax.evaluate.label_map import save_label_map
from tlseg_jax.evaluate.metrics import score
from tlseg_jax.evaluate.predict import Prediction, predict_scan
from tlseg_jax.evaluate.predict_folder import output_path, predict_folder
from tlseg_jax.evaluate.predict_once import Outcome
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.pipeline import PrepareSettings, preprocess_scan
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.written import RECORD

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SPEC = DatasetSpec(
    "ball",
    ("ball",),
    VolumeGrid("native", (40, 40, 40), (1.0, 1.0, 1.0), (16, 16, 16), random_patch=True, train_count=1, test_count=1),
    "ball",
)
SETTINGS = PrepareSettings(registration="skip", bias_correction=False, order=1)
CODES = {"LAS": np.diag([-1.2, 1.0, 1.5, 1]), "RAS": np.diag([1.2, 1.0, 1.5, 1])}
TURNED = np.array([[0, 0, 1.2, 0], [-1.0, 0, 0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])


def bright(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability rising with intensity: one half midway between the head's and the ball's."""
    return (1 / (1 + np.exp(-(patches - 3))))[..., None].astype(np.float32)


def nothing_found(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.zeros_like(patches)[..., None]


def segmenter(predictor: Predictor) -> Callable[[ScanFiles], Prediction]:
    return lambda files: predict_scan(files, SPEC, None, SETTINGS, predictor)


def write_head(path: Path, affine: NDArray[np.float64], shape: tuple[int, int, int] = (30, 36, 24)) -> ScanFiles:
    """A grey head with a white off-centre ball, 5 mm in radius."""
    at = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    mm = np.sqrt((affine[:3, :3] ** 2).sum(0))
    middle = (np.array(shape) - 1) / 2
    head = (np.linalg.norm((at - middle) * mm, axis=-1) < 15).astype(np.float32)
    ball = np.linalg.norm((at - middle - np.array([3, -4, 2])) * mm, axis=-1) < 5
    nib.save(nib.Nifti1Image(20.5 * head + 100 * ball.astype(np.float32), affine), path)
    nib.save(nib.Nifti1Image(ball.astype(np.uint8), affine), path.with_name("truth_" + path.name))
    return ScanFiles(path.name.split(".")[0], path)


def truth(files: ScanFiles) -> NDArray[np.bool_]:
    return np.asarray(nib.load(files.image.with_name("truth_" + files.image.name)).dataobj) > 0


@pytest.mark.parametrize("affine", [CODES["LAS"], CODES["RAS"], TURNED], ids=["LAS", "RAS", "turned"])
def test_a_scan_of_any_orientation_is_segmented_on_its_own_grid(tmp_path: Path, affine: NDArray[np.float64]) -> None:
    files = write_head(tmp_path / "head.nii.gz", affine)
    prediction = predict_scan(files, SPEC, None, SETTINGS, bright)
    reference = truth(files)
    assert prediction.label.shape == reference.shape
    assert score(prediction.label > 0, reference, (1.2, 1.0, 1.5)).dice > 0.9
    assert prediction.volumes_ml == {"ball": pytest.approx(prediction.label.sum() * 1.8 / 1000)}
    assert prediction.warnings == () and "inference" in prediction.seconds
    save_label_map(prediction.label, prediction.affine, files, tmp_path / "seg.nii.gz")
    found = nib.load(tmp_path / "seg.nii.gz")
    assert np.array_equal(found.affine, nib.load(files.image).affine)
    assert np.array_equal(np.asarray(found.dataobj) > 0, prediction.label)


def test_what_looks_wrong_is_said(tmp_path: Path) -> None:
    files = write_head(tmp_path / "head.nii.gz", CODES["RAS"])
    (nothing,) = predict_scan(files, SPEC, None, SETTINGS, nothing_found).warnings
    assert nothing.startswith("no ball was found")
    fixed = SPEC.changed(random_patch=False)
    # The ball's middle is near (23, 15, 22): this patch cuts it in half.
    (cut,) = predict_scan(files, fixed, Box((24, 8, 14), (16, 16, 16)), SETTINGS, bright).warnings
    assert "reaches the left of the patch" in cut


def test_a_label_map_in_a_scans_place_is_refused(tmp_path: Path) -> None:
    files = write_head(tmp_path / "a.nii.gz", CODES["RAS"])
    label = tmp_path / "truth_a.nii.gz"
    with pytest.raises(ExclusionError, match=r"truth_a\.nii\.gz looks like a label map, not a scan: .*\(0, 1\)"):
        segmenter(bright)(ScanFiles("a", label))
    (good, bad) = predict_folder(
        (files, ScanFiles("truth", label)), tmp_path / "out", segmenter(bright), progress=False
    )
    assert good.output and not bad.output and "give the scan that it belongs to" in bad.problem


def test_a_label_beside_the_scan_is_not_read(tmp_path: Path) -> None:
    files = write_head(tmp_path / "head.nii.gz", CODES["RAS"])
    missing = dataclasses.replace(files, label=tmp_path / "not_there.nii.gz")
    assert predict_scan(missing, SPEC, None, SETTINGS, bright).label.any()


def test_a_folder_goes_on_past_a_scan_that_fails(tmp_path: Path, said: list[str]) -> None:
    scans = [write_head(tmp_path / f"s{i}.nii.gz", CODES["LAS"]) for i in range(3)]
    scans[1].image.write_bytes(scans[1].image.read_bytes()[:200])
    out = tmp_path / "out"
    outcomes = predict_folder(scans, out, segmenter(bright), progress=False)
    assert [bool(o.problem) for o in outcomes] == [False, True, False]
    assert len(said) == 1 and said[0].startswith("s1 was not segmented: ") and "s1.nii.gz" in said[0]
    assert sorted(p.name for p in out.iterdir()) == ["s0_seg.nii.gz", "s2_seg.nii.gz", RECORD, "volumes.csv"]
    rows = csv_rows(out / "volumes.csv")
    assert [r["subject"] for r in rows] == ["s0", "s1", "s2"]
    label = np.asarray(nib.load(rows[2]["output"]).dataobj)
    assert float(rows[2]["volume_ml"]) == pytest.approx(label.sum() * 1.8 / 1000, abs=1e-4)
    assert rows[1]["volume_ml"] == rows[1]["output"] == "" and rows[1]["problem"]


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir())}


@pytest.mark.parametrize("name", ["s1_seg.nii.gz", "volumes.csv"])
@pytest.mark.parametrize("corrected", [False, True], ids=["foreign", "corrected"])
def test_what_predict_did_not_write_is_not_replaced(tmp_path: Path, name: str, corrected: bool) -> None:
    scans = [write_head(tmp_path / f"s{i}.nii.gz", CODES["LAS"]) for i in range(2)]
    out = tmp_path / "out"
    out.mkdir()
    if corrected:
        predict_folder(scans, out, segmenter(bright), model={"digest": "a"}, progress=False)
    (out / name).write_bytes(b"hours of somebody's work")
    before, asked = contents(out), list[ScanFiles]()
    with pytest.raises(InputError, match=rf"{name} is there and was not written .*changed since: .*`overwrite`"):
        predict_folder(scans, out, lambda files: asked.append(files), model={"digest": "a"}, progress=False)  # type: ignore[arg-type,return-value]
    assert contents(out) == before and not asked
    predict_folder(scans, out, segmenter(bright), model={"digest": "a"}, overwrite=True, progress=False)
    assert contents(out)[name] != before[name] and len(csv_rows(out / "volumes.csv")) == 2


class Killed(BaseException):
    """As a kill does, but that the test goes on."""


@pytest.mark.parametrize("stop", range(1, 9))
def test_a_folder_that_was_stopped_anywhere_goes_on_and_makes_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """Files take their names by `os.replace`: the list of files, a map, the list, the table, and so on."""
    scans = [write_head(tmp_path / f"s{i}.nii.gz", CODES["LAS"]) for i in range(2)]
    folders = {"never stopped": tmp_path / "a", "stopped": tmp_path / "b"}
    predict_folder(scans, folders["never stopped"], segmenter(bright), model={"digest": "a"}, progress=False)
    replace, made, calls = os.replace, list[str](), itertools.count(1)

    def replace_until(*given: Any) -> None:
        if next(calls) == stop:
            raise Killed
        replace(*given)

    def segment(files: ScanFiles) -> Prediction:
        made.append(files.subject)
        return segmenter(bright)(files)

    def run() -> tuple[Outcome, ...]:
        return predict_folder(scans, folders["stopped"], segment, model={"digest": "a"}, progress=False)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_until)
        with pytest.raises(Killed):
            run()
    done = {p.name for p in folders["stopped"].glob("*_seg.nii.gz")}
    made.clear()
    assert [o.anew for o in run()] == [f"{s.subject}_seg.nii.gz" not in done for s in scans]
    assert made == [s.subject for s in scans if f"{s.subject}_seg.nii.gz" not in done]
    tables = []
    for folder in folders.values():
        assert {n for n in contents(folder) if not n.startswith(".")} == {
            "s0_seg.nii.gz",
            "s1_seg.nii.gz",
            "volumes.csv",
            RECORD,
        }
        tables.append([(r["subject"], r["volume_ml"], r["warning"]) for r in csv_rows(folder / "volumes.csv")])
    assert tables[0] == tables[1]
    made.clear()
    run()
    assert not made


@pytest.mark.parametrize("what", ["model", "scan", "mask", "nothing"])
def test_a_map_of_another_scan_or_model_is_not_taken_for_this_ones(tmp_path: Path, what: str) -> None:
    files, out = write_head(tmp_path / "s.nii.gz", CODES["LAS"]), tmp_path / "out"
    predict_folder([files], out, segmenter(nothing_found), model={"digest": "a"}, progress=False)
    if what == "scan":
        write_head(files.image, CODES["RAS"])
    other = dataclasses.replace(files, mask=files.image.with_name("truth_s.nii.gz")) if what == "mask" else files
    model = {"digest": "b" if what == "model" else "a"}
    (outcome,) = predict_folder([other], out, segmenter(bright), model=model, progress=False)
    assert outcome.anew == bool(outcome.volumes_ml["ball"]) == (what != "nothing")
    assert ("replaces what an earlier call made" in outcome.warning) == outcome.anew


def test_volumes_of_other_scans_in_the_same_folder_stay(tmp_path: Path) -> None:
    scans = [write_head(tmp_path / f"s{i}.nii.gz", CODES["LAS"]) for i in range(2)]
    for files in scans:
        predict_folder([files], tmp_path / "out", segmenter(bright), model={"digest": "a"}, progress=False)
    assert [r["subject"] for r in csv_rows(tmp_path / "out" / "volumes.csv")] == ["s0", "s1"]


def test_a_map_that_appears_while_the_scan_is_segmented_stays(tmp_path: Path) -> None:
    files, out = write_head(tmp_path / "s.nii.gz", CODES["LAS"]), tmp_path / "out"

    def segment(files: ScanFiles) -> Prediction:
        (out / "s_seg.nii.gz").write_bytes(b"drawn meanwhile")
        return segmenter(bright)(files)

    (outcome,) = predict_folder([files], out, segment, progress=False)
    assert "s_seg.nii.gz is there" in outcome.problem and (out / "s_seg.nii.gz").read_bytes() == b"drawn meanwhile"


def test_scans_of_each_format_are_segmented_alike_and_what_is_not_read_is_named(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    image = nib.load(write_head(tmp_path / "a.nii.gz", CODES["LAS"]).image)
    nib.save(image, source / "a.nii.gz")
    itk = sitk.GetImageFromArray(np.asarray(image.dataobj).transpose(2, 1, 0))
    mm = np.linalg.norm(image.affine[:3, :3], axis=0)
    lps = np.diag([-1.0, -1.0, 1.0]) @ image.affine[:3]
    itk.SetSpacing(mm.tolist())
    itk.SetDirection((lps[:, :3] / mm).ravel().tolist())
    itk.SetOrigin(lps[:, 3].tolist())
    sitk.WriteImage(itk, str(source / "b.nrrd"))
    sitk.WriteImage(itk, str(source / "c.mha"))
    nib.save(nib.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 2, -1), image.affine), source / "d.nii")
    (source / "e.mnc").write_bytes(b"CDF")
    found = find_scans(source, need_label=False)
    for same, ends in ((False, [".nii.gz"] * 3), (True, [".nii.gz", ".nrrd", ".mha"])):
        out = tmp_path / f"out{same}"
        outcomes = predict_folder(found.scans, out, segmenter(bright), same=same, progress=False)
        assert [o.subject for o in outcomes] == ["a", "b", "c", "d", "e"]
        made = [out / f"{s}_seg{e}" for s, e in zip("abc", ends, strict=True)]
        assert [o.output for o in outcomes] == [*made, None, None]
        assert "4D series" in outcomes[3].problem and "MINC" in outcomes[4].problem
        masks = [sitk.GetArrayFromImage(sitk.ReadImage(str(o.output))) for o in outcomes[:3]]
        assert masks[0].any() and (masks[0] == masks[1]).all() and (masks[0] == masks[2]).all()


def test_a_scan_whose_voxels_changed_in_the_file_beside_its_header_is_segmented_again(tmp_path: Path) -> None:
    image = nib.load(write_head(tmp_path / "a.nii.gz", CODES["LAS"]).image)
    files = ScanFiles("b", tmp_path / "b.hdr")
    for voxels, anew in ((image.dataobj, True), (image.dataobj, False), (np.flip(image.dataobj, 0), True)):
        nib.save(nib.Nifti1Pair(np.asarray(voxels), image.affine), files.image)
        (outcome,) = predict_folder([files], tmp_path / "out", segmenter(bright), model={"digest": "a"}, progress=False)
        assert outcome.anew == anew and not outcome.problem


def test_a_network_that_fails_is_named_for_each_scan(tmp_path: Path) -> None:
    scans = [write_head(tmp_path / f"s{i}.nii.gz", CODES["LAS"]) for i in range(2)]

    def full(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        raise RuntimeError("out of memory\n" + "details\n" * 50)

    outcomes = predict_folder(scans, tmp_path / "out", segmenter(full), progress=False)
    assert [o.problem for o in outcomes] == ["RuntimeError: out of memory"] * 2


@pytest.mark.parametrize("error", [TypeError, KeyError, AssertionError, MemoryError, OSError, RecursionError])
def test_no_failure_of_one_scan_stops_the_others(error: type[Exception], tmp_path: Path) -> None:
    names = ("s0.NII.GZ", os.fsdecode(b"M\xfcller.nii.gz"), "s2.Nii")
    scans = [dataclasses.replace(write_head(tmp_path / "x.nii.gz", CODES["LAS"]), subject=f"s{i}") for i in range(3)]
    for i, name in enumerate(names):
        content = (tmp_path / "x.nii.gz").read_bytes()
        (tmp_path / name).write_bytes(content if name.lower().endswith("gz") else gzip.decompress(content))
        scans[i] = dataclasses.replace(scans[i], image=tmp_path / name)
    works = segmenter(bright)

    def segment(files: ScanFiles) -> Prediction:
        if files.subject == "s0":
            raise error("odd")
        return works(files)

    outcomes = predict_folder(scans, tmp_path / "out", segment, progress=False)
    assert [bool(o.problem) for o in outcomes] == [True, False, False]
    assert error.__name__ in outcomes[0].problem and "odd" in outcomes[0].problem
    rows = csv_rows(tmp_path / "out" / "volumes.csv")
    assert [Path(r["input"]).name for r in rows] == [names[0], "M\\udcfcller.nii.gz", names[2]]


def test_a_folder_that_cannot_be_written_is_found_before_the_first_scan(tmp_path: Path) -> None:
    scans = [write_head(tmp_path / "s0.nii.gz", CODES["LAS"])]

    def never(files: ScanFiles) -> Prediction:
        raise AssertionError("a scan was read")

    (tmp_path / "file").touch()
    for folder in (Path("/proc/no"), Path("/proc"), tmp_path / "file" / "out"):
        with pytest.raises(InputError, match="cannot be made or written to"):
            predict_folder(scans, folder, never, progress=False)


def test_a_full_disk_stops_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = [write_head(tmp_path / f"s{i}.nii.gz", CODES["LAS"]) for i in range(2)]

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(nib, "save", no_space)
    with pytest.raises(OSError, match="No space"):
        predict_folder(scans, tmp_path / "out", segmenter(bright), progress=False)
    assert not list((tmp_path / "out").iterdir())


def test_a_folder_never_overwrites_an_input(tmp_path: Path) -> None:
    scan = ScanFiles("a", tmp_path / "a_seg.nii.gz")
    for scans, word in (([scan], "never overwritten"), ([], "no scans"), ([scan, scan], "Two scans")):
        folder = tmp_path / "out" if word == "Two scans" else tmp_path
        with pytest.raises(InputError, match=word):
            predict_folder(scans, folder, segmenter(bright), progress=False)
    for name, same in (
        ("b.MGZ", ".mgz"),
        ("b.nii", ".nii"),
        ("b.Nii.Gz", ".nii.gz"),
        ("b.nrrd", ".nrrd"),
        ("b.nhdr", ".nrrd"),
        ("b.mha", ".mha"),
        ("b.MHD", ".mha"),
        ("b.hdr", ".nii.gz"),
        ("dicom", ".nii.gz"),
        ("b.mnc", ".nii.gz"),
    ):
        files = ScanFiles("b", Path(name))
        assert output_path(files, Path("o")) == Path("o/b_seg.nii.gz")
        assert output_path(files, Path("o"), same=True) == Path(f"o/b_seg{same}")


def oasis(subject: str) -> ScanFiles:
    folder = DATA / "brain_oasis"
    if not folder.exists():
        pytest.skip("the real scans are not here")
    return ScanFiles(subject, folder / f"{subject}_T1w.nii.gz", folder / f"{subject}_labels.nii.gz")


def test_a_real_caudate_survives_the_way_there_and_back(tmp_path: Path) -> None:
    """The label itself is the scan, so a network that reads intensities knows the answer."""
    files = oasis("sub-1000")
    source = nib.load(files.label)
    caudate = np.isin(np.asarray(source.dataobj), (36, 37))
    nib.save(nib.Nifti1Image(0.5 * caudate.astype(np.float32), source.affine, source.header), tmp_path / "scan.nii.gz")
    low, high = [], []

    def observe(patches: NDArray[np.float32]) -> NDArray[np.float32]:
        low.append(patches.min())
        high.append(patches.max())
        return ((patches - low[0]) / (high[0] - low[0]))[..., None]

    spec = get_spec("hdt_wb").changed(spacing=(1.0, 1.0, 1.0), patch_size=(256, 256, 192))
    prediction = predict_scan(ScanFiles("s", tmp_path / "scan.nii.gz"), spec, None, SETTINGS, observe, batch=1)
    assert score(prediction.label > 0, caudate, (1, 1, 1)).dice >= 0.95
    assert next(iter(prediction.volumes_ml.values())) == pytest.approx(caudate.sum() / 1000, rel=0.05)


@pytest.mark.slow
def test_a_real_caudate_survives_registration_and_back(tmp_path: Path) -> None:
    """A network that answers with the registered reference: what is lost is lost on the way alone."""
    files = oasis("sub-1000")
    spec, settings = get_spec("hdt_c"), PrepareSettings(bias_correction=False)
    known = preprocess_scan(read_scan(files, Labels.of(36, 37)), spec, settings).label
    assert known is not None
    box = Box.centred(ndimage.center_of_mass(known), spec.volumes.patch_size)
    inside = tuple(slice(a, b) for a, b in zip(box.start, box.stop, strict=True))
    prediction = predict_scan(files, spec, box, settings, lambda p: known[inside][None, ..., None].astype(np.float32))
    caudate = np.isin(np.asarray(nib.load(files.label).dataobj), (36, 37))
    assert score(prediction.label > 0, caudate, (1, 1, 1)).dice >= 0.95
    save_label_map(prediction.label, prediction.affine, files, tmp_path / "seg.mgz")
    assert np.allclose(nib.load(tmp_path / "seg.mgz").affine, nib.load(files.image).affine, atol=1e-4)
