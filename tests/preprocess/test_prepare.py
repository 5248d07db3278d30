"""A folder of small synthetic scans to a store and back: resume, settings, exclusions, splits, the command."""

import collections
import dataclasses
import fcntl
import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import zarr

from tests.processes import python
from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.preprocess import prepare_subject
from tlseg_jax.preprocess.folds import take_fold
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import shown
from tlseg_jax.train.seen import seen_of, seen_subjects

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SETTINGS = PrepareSettings(registration="skip", bias_correction=False, order=1)
SPEC = DatasetSpec(
    "small",
    ("ball",),
    VolumeGrid("native", (24, 24, 24), (2.0, 2.0, 2.0), (16, 16, 16), train_count=3, test_count=1),
    "shared",
)


def write_scan(folder: Path, subject: str, centre: int = 12, radius: int = 3, seed: int = 0) -> None:
    at = np.indices((24, 24, 24)) - 11.5
    rng = np.random.default_rng(seed)
    image = np.where((at**2).sum(0) < 100, 500, 0) + rng.normal(0, 10, (24, 24, 24))
    label = 7 * ((np.indices((24, 24, 24)) - centre) ** 2).sum(0) < 7 * radius**2
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    for kind, volume in (("T1w", image.astype(np.float32)), ("labels", 7 * label.astype(np.uint8))):
        nib.Nifti1Image(volume, affine).to_filename(folder / f"{subject}_{kind}.nii.gz")


def write_source(folder: Path) -> Path:
    """Four heads with labels, in a new folder."""
    folder.mkdir()
    for i in range(4):
        write_scan(folder, f"sub-{i}", seed=i)
    return folder


def test_a_label_map_in_a_scans_place_is_left_out_and_named(tmp_path: Path) -> None:
    source = write_source(tmp_path / "source")
    (source / "sub-1_T1w.nii.gz").write_bytes((source / "sub-1_labels.nii.gz").read_bytes())
    store, _ = run(source, tmp_path / "store")
    ((name, reason),) = ((e["subject"], e["reason"]) for e in store.manifest["exclusions"])
    assert name == "sub-1" and "sub-1_T1w.nii.gz looks like a label map, not a scan" in reason


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_source(tmp_path / "source")


def run(source: Path, root: Path, spec: DatasetSpec = SPEC, **options: object) -> tuple[Store, list[str]]:
    lines: list[str] = []
    given = {"settings": SETTINGS, "workers": 1, "progress": False} | options
    with shown(lines.append):
        return prepare_dataset(spec, source, root, **given), lines  # type: ignore[arg-type]


def prepared_by(lines: list[str]) -> str:
    return lines[-1].split(": ")[1]


def test_store_holds_what_was_asked_for_and_any_zarr_reader_opens_it(source: Path, tmp_path: Path) -> None:
    store, lines = run(source, tmp_path / "store")
    assert prepared_by(lines) == "0 reused, 4 prepared, 0 excluded."
    assert len(store.subjects("train")) == 3 and len(store.subjects("test")) == 1
    m = store.manifest
    assert m["versions"]["numpy"] == np.__version__ and m["layout"] == "pairs" and m["warnings"] == []
    for subject in store.subjects():
        group = zarr.open_group(store.folder / "subjects" / f"{subject}.zarr", mode="r")
        image, label = np.asarray(group["image"]), np.asarray(group["label"])
        assert image.dtype == np.float16 and label.dtype == np.uint8
        assert (image == store.image(subject)).all() and (label == store.label(subject)).all()
        assert abs(image.astype(float).mean()) < 2e-3 and abs(image.astype(float).std() - 1) < 2e-3
        record = store.record(subject)
        original = np.asarray(nib.load(source / f"{subject}_labels.nii.gz").dataobj) > 0
        assert record["label_ml"]["ball"] == pytest.approx(original.sum() * 0.008)
        assert record["label_voxels"]["ball"] == label.sum() == pytest.approx(original.sum(), rel=0.1)
        assert len(record["image_sha256"]) == 64 and record["scan_shape"] == [24, 24, 24]
    assert store.patch_box is not None and store.patch_box.size == SPEC.volumes.patch_size


def test_second_call_does_only_what_changed(source: Path, tmp_path: Path) -> None:
    first, _ = run(source, tmp_path / "store")
    stamps = {p: p.stat().st_mtime_ns for p in first.folder.glob("subjects/*.zarr/zarr.json")}
    again, lines = run(source, tmp_path / "store")
    assert prepared_by(lines) == "4 reused, 0 prepared, 0 excluded."
    assert stamps == {p: p.stat().st_mtime_ns for p in again.folder.glob("subjects/*.zarr/zarr.json")}
    write_scan(source, "sub-2", radius=4, seed=2)
    write_scan(source, "sub-9", seed=9)
    third, lines = run(source, tmp_path / "store")
    assert prepared_by(lines) == "3 reused, 2 prepared, 0 excluded."
    assert third.record("sub-2")["label_ml"]["ball"] > first.record("sub-2")["label_ml"]["ball"]
    kept = first.subjects()
    assert [third.record(s)["split"] for s in kept] == [first.record(s)["split"] for s in kept]


def test_a_stopped_call_goes_on_from_what_is_done(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare_subject.preprocess_scan

    def stop_at_third(*args: object, **kw: object) -> object:
        if "sub-2" in str(args[-1]):
            raise KeyboardInterrupt
        return whole(*args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_subject, "preprocess_scan", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        run(source, tmp_path / "store")
    assert not (tmp_path / "store" / "small" / "manifest.json").exists()
    monkeypatch.undo()
    _, lines = run(source, tmp_path / "store")
    assert prepared_by(lines) == "2 reused, 2 prepared, 0 excluded."
    with pytest.raises(InputError, match="order was 1 and is now 3"):  # even before a manifest is there
        (tmp_path / "store" / "small" / "manifest.json").unlink()
        run(source, tmp_path / "store", settings=dataclasses.replace(SETTINGS, order=3))


def test_other_settings_are_refused_and_nothing_is_lost(source: Path, tmp_path: Path) -> None:
    first, _ = run(source, tmp_path / "store")
    before = (first.folder / "manifest.json").read_bytes()
    other = SPEC.changed(normalise="mask")
    with pytest.raises(InputError, match=r"normalise was 'volume' and is now 'mask'.*`overwrite`"):
        run(source, tmp_path / "store", other)
    with pytest.raises(InputError, match=r"label_values was \[\] and is now \[7\]"):
        run(source, tmp_path / "store", label_values=(7,))
    assert (first.folder / "manifest.json").read_bytes() == before
    _, lines = run(source, tmp_path / "store", other, overwrite=True)
    assert prepared_by(lines) == "0 reused, 4 prepared, 0 excluded."


def test_what_cannot_be_used_is_excluded_with_its_reason(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source / "sub-0_labels.nii.gz").unlink()
    (source / "sub-1_T1w.nii.gz").write_text("not an image")
    whole = prepare_subject.preprocess_scan

    def crash(*args: object, **kw: object) -> object:
        if "sub-2" in str(args[-1]):
            raise ZeroDivisionError("a fault of some library")
        return whole(*args, **kw)  # type: ignore[arg-type]

    monkeypatch.setattr(prepare_subject, "preprocess_scan", crash)
    store, _ = run(source, tmp_path / "store")
    reasons = {e["subject"]: e["reason"] for e in store.manifest["exclusions"]}
    assert reasons.keys() == {"sub-0", "sub-1", "sub-2"} and store.subjects() == ("sub-3",)
    assert "sub-1_T1w.nii.gz" in reasons["sub-1"] and "ZeroDivisionError" in reasons["sub-2"]
    (source / "sub-3_labels.nii.gz").unlink()
    with pytest.raises(InputError, match=r"No scan of .* can be used\. sub-0: .*sub-1: "):
        run(source, tmp_path / "store")
    assert Store(store.folder).subjects() == ("sub-3",)


def test_a_full_disk_is_not_an_exclusion(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(prepare_subject, "write_subject", full)
    with pytest.raises(OSError, match="No space left"):
        run(source, tmp_path / "store")


def test_data_sets_of_one_group_share_their_split(source: Path, tmp_path: Path) -> None:
    first, _ = run(source, tmp_path / "store", split_seed=3)
    other = SPEC.changed(name="other", patch_size=(8, 8, 8))
    second, _ = run(source, tmp_path / "store", other, split_seed=4)
    assert second.subjects("test") == first.subjects("test")
    lone = SPEC.changed(name="lone", split_group="lone")
    splits = {run(source, tmp_path / "store", lone, split_seed=s)[0].subjects("test") for s in range(6)}
    assert len(splits) > 1
    held = first.subjects("test")[0]
    rows = ["subject,image,label,split"]
    for s in first.subjects():
        side = "train" if s == held else ""
        rows.append(f"{s},{source}/{s}_T1w.nii.gz,{source}/{s}_labels.nii.gz,{side}")
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match=f"Subject {held} is to be in train and is in test"):
        run(tmp_path / "list.csv", tmp_path / "store", SPEC.changed(name="third"))


def test_a_label_that_the_patch_does_not_hold_is_named(source: Path, tmp_path: Path) -> None:
    write_scan(source, "sub-1", centre=19, radius=4, seed=1)
    tight = SPEC.changed(patch_size=(8, 8, 8), train_count=1, test_count=0)
    store, _ = run(source, tmp_path / "store", tight)
    (warning,) = store.manifest["warnings"]
    assert "sub-1 (" in warning and "patch_size" in warning and "sub-0" not in warning
    assert store.patch_box is not None
    inside = store.label("sub-1", store.patch_box).sum()
    whole = store.label("sub-1").sum()
    assert f"sub-1 ({whole - inside} of {whole} voxels)" in warning


def test_a_store_in_use_or_not_writable_is_refused(source: Path, tmp_path: Path) -> None:
    (tmp_path / "store" / "small").mkdir(parents=True)
    with (tmp_path / "store" / "small" / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process"):
            run(source, tmp_path / "store")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        run(source, tmp_path / "file")


def test_registrations_are_shared_by_the_data_sets_of_a_store(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fake(image: np.ndarray, affine: np.ndarray, name: str) -> object:
        calls.append(name)
        return prepare_subject.register.Registration(np.diag([0.5, 0.5, 0.5, 1.0]), 0.5, (1.0, 1.0, 1.0))

    monkeypatch.setattr(prepare_subject.register, "register", fake)
    mni = SPEC.changed(space="MNI305", name="a", dimensions=(86, 110, 78))
    settings = dataclasses.replace(SETTINGS, registration="auto")
    a, _ = run(source, tmp_path / "store", mni, settings=settings)
    b, _ = run(source, tmp_path / "store", dataclasses.replace(mni, name="b"), settings=settings)
    assert len(calls) == 4
    assert a.record("sub-0")["space_to_world"] == b.record("sub-0")["space_to_world"]
    assert b.record("sub-0")["details"]["registration"]["reused"]
    for path in (tmp_path / "store" / ".registrations").iterdir():
        path.write_text("{")  # a damaged one is made again
    run(source, tmp_path / "store", dataclasses.replace(mni, name="c"), settings=settings)
    assert len(calls) == 8


def flags_of(source: Path, folder: Path, train: int = 3, test: int = 1) -> list[str]:
    """A data set of one's own, of `source`, into the folder's store."""
    toml = folder / "mine.toml"
    toml.write_text(
        'name = "mine"\nstructure = "ball"\nspace = "native"\ndimensions = [24, 24, 24]\n'
        f"spacing = [2, 2, 2]\npatch_size = [16, 16, 16]\ntrain_count = {train}\ntest_count = {test}\n"
    )
    return [f"--dataset={toml}", f"--source={source}", f"--store={folder / 'store'}"]


def command(*flags: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "experiments.prepare", *flags)


def test_the_command(source: Path, tmp_path: Path) -> None:
    flags = [*flags_of(source, tmp_path), "--nobias_correction"]
    dry = command(*flags, "--dry_run")
    assert dry.returncode == 0 and "sub-3" in dry.stdout and "4 to prepare" in dry.stdout, dry.stderr
    assert not (tmp_path / "store").exists()
    done = command(*flags, "--workers=2", "--label_values=7")
    assert done.returncode == 0, done.stderr
    assert "mine: 3 for training, 1 for test" in done.stdout
    assert set(Store(tmp_path / "store" / "mine").subjects()) == {f"sub-{i}" for i in range(4)}
    wrong = command(*flags)
    assert wrong.returncode == 2 and "label_values" in wrong.stderr and "Traceback" not in wrong.stderr
    typo = command("--dataset=hdtc", f"--source={source}", f"--store={tmp_path}")
    assert typo.returncode == 2 and "did you mean hdt_c?" in typo.stderr
    letters = command(*flags, "--name=letters", "--label_values=a")
    assert letters.returncode == 2 and "names no segments, so 'a' is not found" in letters.stderr
    nothing = command(*flags, "--label_values=7,,8")
    assert nothing.returncode == 2 and "must be numbers or names" in nothing.stderr


@pytest.mark.slow
def test_real_scans_to_the_registered_store(tmp_path: Path) -> None:
    if not (DATA / "brain_oasis").exists():
        pytest.skip("the OASIS scans are not here")
    few = tmp_path / "few"
    few.mkdir()
    for subject in ("sub-1000", "sub-1007"):
        for kind in ("T1w", "labels"):
            shutil.copy(DATA / "brain_oasis" / f"{subject}_{kind}.nii.gz", few)
    done = command(
        "--dataset=hdt_c", f"--source={few}", f"--store={tmp_path / 'store'}", "--label_values=36,37", "--spacing=2"
    )
    assert done.returncode == 0, done.stderr
    store = Store(tmp_path / "store" / "hdt_c")
    a, b = (store.label(s) > 0 for s in store.subjects())
    assert 2 * (a & b).sum() / (a.sum() + b.sum()) > 0.6
    assert json.loads((store.folder / "manifest.json").read_text())["warnings"] == []


def test_nothing_here_needs_jax() -> None:
    code = "import sys, tlseg_jax.preprocess.prepare; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_maps_of_several_values_are_refused_before_any_work(source: Path, tmp_path: Path) -> None:
    path = source / "sub-0_labels.nii.gz"
    label = np.asarray(nib.load(path).dataobj).copy()
    label[0, 0, 0] = 3
    nib.Nifti1Image(label, nib.load(path).affine).to_filename(path)
    with pytest.raises(InputError, match=r"sub-0_labels.*holds 2 label values .*\(it holds 3, 7\)"):
        run(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    store, _ = run(source, tmp_path / "store", label_values=(7,))
    assert len(store.subjects()) == 4
    store, _ = run(source, tmp_path / "all", label_values=("all",))
    assert store.record("sub-0")["label_voxels"]["ball"] >= store.record("sub-1")["label_voxels"]["ball"]


def test_maps_of_one_value_each_that_differ_are_refused(source: Path, tmp_path: Path) -> None:
    path = source / "sub-2_labels.nii.gz"
    image = nib.load(path)
    nib.Nifti1Image((np.asarray(image.dataobj) > 0).astype(np.uint8), image.affine).to_filename(path)
    with pytest.raises(InputError, match=r"different values \(1 in sub-2 and 7 in sub-3\)"):
        run(source, tmp_path / "store")


@pytest.mark.parametrize(
    ("centres", "flips"), [((16, 17, 16, 17), False), ((7, 7, 7, 7), False), ((16, 7, 16, 7), True)]
)
def test_a_structure_on_one_side_of_every_head_is_not_mirrored(
    centres: tuple[int, ...], flips: bool, tmp_path: Path
) -> None:
    (tmp_path / "source").mkdir()
    for i, centre in enumerate(centres):
        write_scan(tmp_path / "source", f"sub-{i}", centre=centre, seed=i)
    spec = SPEC.changed(flip_left_right=True)
    store, _ = run(tmp_path / "source", tmp_path / "store", spec)
    assert store.spec.grid.flip_left_right == flips
    first = [*store.manifest["warnings"], ""][0]
    assert ("will not be mirrored" in first) == (not flips)
    if not flips:
        assert ("on the right in every" if centres[0] > 12 else "on the left in every") in first
    again, _ = run(tmp_path / "source", tmp_path / "store", spec)
    assert again.manifest["warnings"] == store.manifest["warnings"] and again.spec == store.spec
    for mirror in (True, False):  # the user's word goes before the labels'
        told, _ = run(tmp_path / "source", tmp_path / "store", spec, mirror=mirror)
        assert told.spec.grid.flip_left_right is mirror
        assert not any("mirrored" in w for w in told.manifest["warnings"])


@pytest.mark.parametrize("end", [".nii", ".nrrd", ".mha", ".mgz"])
def test_one_scan_in_two_files_is_one_person(end: str, source: Path, tmp_path: Path) -> None:
    """Compressed anew, not compressed, or of another format: other bytes, and the same voxels."""
    whole = nib.load(source / "sub-0_T1w.nii.gz")
    if end == ".mgz":
        nib.save(nib.MGHImage(np.asarray(whole.dataobj), whole.affine), source / f"other_T1w{end}")
    else:
        sitk.WriteImage(sitk.ReadImage(str(source / "sub-0_T1w.nii.gz")), str(source / f"other_T1w{end}"))
    shutil.copy(source / "sub-0_labels.nii.gz", source / "other_labels.nii.gz")
    store, _ = run(source, tmp_path / "store")
    assert store.record("other")["image_sha256"] != store.record("sub-0")["image_sha256"]
    assert store.persons["other"] == store.persons["sub-0"] and len(set(store.persons.values())) == 4
    assert "other, sub-0 are the same image (equal voxels)" in store.manifest["warnings"][0]
    # Another data set of other names: a model that has seen the one is not tested on the other.
    (tmp_path / "new").mkdir()
    for kind, ending in (("T1w", end), ("labels", ".nii.gz")):
        shutil.move(source / f"other_{kind}{ending}", tmp_path / "new" / f"new_{kind}{ending}")
    first, _ = run(source, tmp_path / "first")
    spec = SPEC.changed(name="unseen", split_group="unseen", train_count=0)
    unseen, _ = run(tmp_path / "new", tmp_path / "first", spec, test_fraction=1.0)
    seen = seen_of([(first, first.subjects())], {})
    assert seen_subjects(unseen, "test", seen) == ("new",)


def sides(store: Store) -> dict[str, str]:
    return {s: store.record(s)["split"] for s in store.subjects()}


def folds(store: Store, count: int, target: Store | None = None) -> dict[str, int]:
    """Person -> the fold that tests it."""
    cut = [take_fold(store, k, count, target) for k in range(count)]
    return {store.persons[s]: k for k, c in enumerate(cut) for s in c.subjects("test")}


def test_the_same_image_under_two_names_is_one_person_on_one_side(source: Path, tmp_path: Path) -> None:
    for name in ("copy", "sub-1_ses-2"):  # the copy of sub-0, and a repeat scan of sub-1
        write_scan(source, name, seed=0 if name == "copy" else 9)
    for seed in range(4):
        spec = SPEC.changed(name=f"of{seed}", split_group=f"of{seed}")
        store, _ = run(source, tmp_path / "store", spec, split_seed=seed, test_fraction=0.5)
        assert store.persons["copy"] == store.persons["sub-0"] == "copy"
        assert store.persons["sub-1_ses-2"] == store.persons["sub-1"] == "sub-1"
        for k in range(2):
            for cut in (store, take_fold(store, k, 2)):
                assert cut.record("copy")["split"] == cut.record("sub-0")["split"]
                assert cut.record("sub-1_ses-2")["split"] == cut.record("sub-1")["split"]
        same, repeats = store.manifest["warnings"]
        assert "copy, sub-0 are the same image (equal voxels)" in same
        assert "sub-1 (sub-1, sub-1_ses-2)" in repeats and "'person' column" in repeats
    rows = ["subject,image,label,split"]
    for s, side in (("sub-0", "train"), ("copy", "test")):
        rows.append(f"{s},{s}_T1w.nii.gz,{s}_labels.nii.gz,{side}")
    (source / "list.csv").write_text("\n".join(rows))
    with pytest.raises(InputError, match="Person copy has scans in both train and test"):
        run(source / "list.csv", tmp_path / "given")


def test_an_excluded_or_added_scan_moves_nobody_in_split_and_folds(source: Path, tmp_path: Path) -> None:
    for i in range(4, 8):
        write_scan(source, f"sub-{i}", seed=i)
    target, _ = run(source, tmp_path / "store", test_fraction=0.4)
    before, fold = sides(target), folds(target, 3)
    assert sorted(collections.Counter(fold.values()).values()) == [2, 3, 3]
    other = SPEC.changed(name="other")
    hidden = source / "hidden"
    hidden.mkdir()
    for gone in ("sub-0", "sub-3", "sub-5"):
        for kind in ("T1w", "labels"):
            (source / f"{gone}_{kind}.nii.gz").rename(hidden / f"{gone}_{kind}.nii.gz")
        write_scan(source, f"new-{gone}", seed=100 + int(gone[-1]))
        store, _ = run(source, tmp_path / "store", other, test_fraction=0.4)  # a pre-task without that scan
        assert all(before[s] == side for s, side in sides(store).items() if s in before)
        own = folds(store, 3, target)
        assert {p: k for p, k in own.items() if p in fold} == {p: fold[p] for p in own if p in fold}
        again, _ = run(source, tmp_path / "store", test_fraction=0.4)  # and the target without it
        assert all(before[s] == side for s, side in sides(again).items() if s in before)
        assert all(fold[p] == k for p, k in folds(again, 3).items() if p in fold)
        for kind in ("T1w", "labels"):
            (hidden / f"{gone}_{kind}.nii.gz").rename(source / f"{gone}_{kind}.nii.gz")
    back, _ = run(source, tmp_path / "store", test_fraction=0.4)
    assert {s: v for s, v in sides(back).items() if s in before} == before
    everyone = folds(back, len(back.subjects()))  # leaving out one at a time still can be done
    assert sorted(everyone.values()) == list(range(len(back.subjects())))
