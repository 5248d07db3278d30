"""Folders of volumes to a store of slices and back: order, cap, split, resume, exclusions, memory, the command."""

import gzip
import itertools
import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.preprocess.slice_volumes import AFFINE, anatomy, write_pair
from tests.processes import python
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.phantoms.cohort_folder import COHORT_FILE
from tlseg_jax.preprocess.prepare_slices import prepare_slices
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.summary import summary
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import shown

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
SPEC = PAPERS["lits"].changed(
    name="few", pixels=(24, 20), with_structure=4, without_structure=2, max_slices=0, test_slices=0, test_volumes=1
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    for i in (0, 1, 2, 10):  # LiTS naming, gzipped or not, mixed
        write_pair(folder, str(i), *anatomy(liver=(4, 8 + i % 4), seed=i), end=".nii" if i == 1 else ".nii.gz")
    nii = nib.load(folder / "segmentation-2.nii.gz")
    nii.to_filename(folder / "segmentation-2.nii")
    (folder / "segmentation-2.nii.gz").unlink()
    return folder


def run(source: Path, root: Path, spec: DatasetSpec = SPEC, **options: Any) -> tuple[SliceStore, list[str]]:
    lines: list[str] = []
    with shown(lines.append):
        return prepare_slices(spec, source, root, **{"workers": 1, "progress": False} | options), lines


def test_a_folder_as_lits_has_it(source: Path, tmp_path: Path) -> None:
    store, lines = run(source, tmp_path / "store")
    assert lines[-1] == "few: 0 reused, 4 prepared, 0 excluded, 0 not needed."
    m = store.manifest
    assert m["kind"] == "slices" and m["layout"] == "pairs" and m["parameters"] == {} and m["unused"] == []
    assert not m["synthetic"] and m["warnings"] == [] and m["versions"]["numpy"] == np.__version__
    assert sorted(m["subjects"], key=lambda s: m["subjects"][s]["order"]) == ["0", "1", "2", "10"]
    assert store.subjects("test") == ("10",)  # the last in natural order
    for s in store.subjects():
        r = store.record(s)
        image, label = anatomy(liver=(4, 8 + int(s) % 4), seed=int(s))
        assert len(r["samples"]) == 6 and r["shape"] == [len(r["planes"]), 24, 20]
        assert r["label_slices"] == {"liver": 5 + int(s) % 4, "tumour": 1}
        for sample in store.samples([s]):
            z = r["planes"][sample.position]
            np.testing.assert_allclose(
                store.image(s, sample.position)[..., 0], (np.clip(image[:, :, z], -160, 240) - 40) / 200, atol=1e-3
            )
            stored = store.label(s, sample.position)
            np.testing.assert_array_equal(stored, (label[:, :, z] > 0) + 2 * (label[:, :, z] == 2))
            assert sample.bits == np.bitwise_or.reduce(stored, axis=None)
        store.volume_image(s, 3)  # neighbours are there
        assert set(r["seconds"]) == {"read", "write"}
        assert {"split", "person", "image", "label", "image_sha256", "label_sha256", "fingerprint"} <= set(r)
        assert r["scan_shape"] == [24, 20, 16]
        np.testing.assert_allclose(r["scan_affine"], AFFINE, atol=1e-6)


def test_only_as_many_volumes_are_read_as_the_cap_needs(source: Path, tmp_path: Path) -> None:
    (source / "segmentation-10.nii.gz").write_bytes(b"never opened")
    (source / "volume-10.nii.gz").write_bytes(b"never opened")
    spec = SPEC.changed(max_slices=15, test_slices=4, test_volumes=0)
    store, lines = run(source, tmp_path / "store", spec)
    assert [len(store.samples([s])) for s in ("0", "1", "2")] == [6, 6, 3]
    assert store.manifest["unused"] == ["10"] and store.manifest["exclusions"] == []
    assert lines[-1].endswith("1 not needed as 15 slices were asked for.")
    # The last 4 of 15 slices are volume 2's three and one of volume 1's.
    assert store.subjects("train") == ("0",) and store.subjects("test") == ("1", "2")
    (warning,) = store.manifest["warnings"]
    assert "cut through volume 1" in warning
    pixels = store.record("2")["details"]["label_pixels"]["liver"]
    assert pixels == [int(np.count_nonzero(plane & 1)) for plane in store.codes("2")]


def test_the_cap_goes_on_past_what_is_excluded_and_short(source: Path, tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(source, "0", image, 0 * label)
    write_pair(source, "1", image, label * (np.arange(16) == 7), end=".nii")
    store, _ = run(source, tmp_path / "store", SPEC.changed(max_slices=12))
    assert [len(store.samples([s])) for s in ("1", "2", "10")] == [3, 6, 3]
    assert [e["subject"] for e in store.manifest["exclusions"]] == ["0"]
    every = SPEC.changed(name="every", with_structure=0, max_slices=20)
    store, _ = run(source, tmp_path / "store", every)
    assert [len(store.samples([s])) for s in ("1", "2")] == [16, 4] and store.manifest["unused"] == ["10"]
    assert store.contiguous("1")


def test_only_what_shapes_the_arrays_has_them_redone(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "store")
    # What does not shape the arrays may change.
    third, lines = run(source, tmp_path / "store", SPEC.changed(test_volumes=2, max_slices=20))
    assert lines[-1].startswith("few: 4 reused, 0 prepared") and third.subjects("test") == ("10", "2")
    with pytest.raises(InputError, match=r"prepared with other settings \(window was .*`overwrite`"):
        run(source, tmp_path / "store", SPEC.changed(window=(0.0, 100.0)))
    _, lines = run(source, tmp_path / "store", SPEC.changed(window=(0.0, 100.0)), overwrite=True)
    assert lines[-1].startswith("few: 0 reused, 4 prepared")


def test_every_bad_volume_is_named_and_the_others_are_prepared(source: Path, tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(source, "20", image, 0 * label)
    write_pair(source, "21", image, label + 3 * (label == 2).astype(np.uint8))
    write_pair(source, "22", image, label[:-1])
    write_pair(source, "23", image, label)
    (source / "segmentation-23.nii.gz").unlink()
    write_pair(source, "24", image, label)
    (source / "volume-24.nii.gz").write_bytes((source / "volume-24.nii.gz").read_bytes()[:500])
    write_pair(source, "25", image + 1024, label)
    write_pair(source, "26", image + 1, label * (np.arange(16) < 6))
    store, _ = run(source, tmp_path / "store")
    reasons = {e["subject"]: e["reason"] for e in store.manifest["exclusions"]}
    assert list(reasons) == ["23", "20", "21", "22", "24"]
    for s, words in {
        "20": "no slice that shows liver or tumour",
        "21": "label value 5",
        "22": "its image has",
        "23": "no label map",
        "24": "cut short",
    }.items():
        assert words in reasons[s] and f"-{s}.nii" in reasons[s] and "\n" not in reasons[s]
    hu, fewer = store.manifest["warnings"]
    assert "volume-25" in hu and "Hounsfield" in hu and "volume-26" in fewer and "2 slice(s) with" in fewer
    text = summary(store)
    assert all(r in text for r in reasons.values()) and hu in text


def test_a_folder_a_case_as_the_report_has_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    image, label = anatomy()
    for i, end in ((1, ".nii"), (5, ".nii"), (12, ".nii.gz"), (16, ".nii"), (39, ".nii")):
        case = source / f"FZMC{i}"
        case.mkdir(parents=True)
        nib.Nifti1Image(anatomy(seed=i)[0], AFFINE).to_filename(case / f"artery{end}")  # persons differ
        if i != 39:
            nib.Nifti1Image(label[: 23 if i == 16 else 24], AFFINE).to_filename(case / f"label{end}")
    (source / "notes").mkdir()
    (source / "FZMC40").mkdir()
    nib.Nifti1Image(image, AFFINE).to_filename(source / "FZMC40" / "scan.nii")
    spec = PAPERS["mri_artery"].changed(
        label_values=((2,),), other_values="background", test_volumes=1, pixels=(24, 20)
    )
    for layout in ("auto", "cases"):
        store, _ = run(source, tmp_path / layout, spec, layout=layout)
        assert store.manifest["layout"] == "cases"
        assert store.subjects("train") == ("FZMC1", "FZMC5") and store.subjects("test") == ("FZMC12",)
        reasons = {e["subject"]: e["reason"] for e in store.manifest["exclusions"]}
        assert set(reasons) == {"FZMC16", "FZMC39", "FZMC40"}
        assert "its image has 24x20x16" in reasons["FZMC16"] and "no label map" in reasons["FZMC39"]
        assert len(store.samples(["FZMC1"])) == 16 and store.contiguous("FZMC1")


def test_a_list_gives_split_and_person(source: Path, tmp_path: Path) -> None:
    rows = ["subject,image,label,split,person"]
    for i, split, person in ((0, "test", "a"), (1, "", "b"), (2, "", "c"), (10, "", "b")):
        (image,), (label,) = source.glob(f"volume-{i}.*"), source.glob(f"segmentation-{i}.*")
        rows.append(f"{i},{image.name},{label.name},{split},{person}")
    (source / "list.csv").write_text("\n".join(rows))
    store, _ = run(source, tmp_path / "store")
    assert store.subjects("test") == ("0", "1", "10") and store.subjects("train") == ("2",)
    assert "volumes of b: 1 would train and 10 test" in store.manifest["warnings"][0]


def test_drawn_volumes_are_marked_and_a_data_set_of_the_group_keeps_its_sides(source: Path, tmp_path: Path) -> None:
    (source / COHORT_FILE).write_text("{}")
    store, _ = run(source, tmp_path / "store")
    assert store.manifest["synthetic"] and store.manifest["warnings"] == []
    other, _ = run(source, tmp_path / "store", SPEC.changed(name="other", test_volumes=2))
    assert other.subjects("test") == store.subjects("test") == ("10",)
    assert "4 person(s) keep the side that they have in" in other.manifest["warnings"][0]
    lone = SPEC.changed(name="lone", test_volumes=2, split_group="lone")
    assert run(source, tmp_path / "store", lone)[0].subjects("test") == ("10", "2")


def test_sources_with_nothing_usable_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        run(tmp_path / "nowhere", tmp_path / "store")
    image, label = anatomy()
    write_pair(tmp_path / "source", "1", image, 0 * label)
    with pytest.raises(InputError, match=r"No scan of .* can be used.*no slice that shows"):
        run(tmp_path / "source", tmp_path / "store")
    write_pair(tmp_path / "source", "1", image, label)
    with pytest.raises(InputError, match="No volume is left for training"):
        run(tmp_path / "source", tmp_path / "store", SPEC.changed(test_slices=100))
    with pytest.raises(InputError, match="test fraction"):
        run(tmp_path / "source", tmp_path / "store", test_fraction=1.5)


def test_real_ct_slices_that_are_not_hu(tmp_path: Path) -> None:
    folder = DATA / "abdomen_ct_lits117"
    if not folder.exists():
        pytest.skip("no real scans here")
    spec = SPEC.changed(pixels=(64, 64), resize="fit", with_structure=0, test_volumes=0)
    store, _ = run(folder, tmp_path / "store", spec)
    (warning,) = store.manifest["warnings"]
    assert "identity" in warning and "no volume in ml" in warning and store.subjects("train") == ("117",)
    truth = np.asarray(nib.load(folder / "segmentation-117.nii.gz").dataobj)
    assert store.record("117")["label_ml"] == {"liver": (truth > 0).sum() / 1000, "tumour": (truth == 2).sum() / 1000}
    share = (truth > 0).reshape(64, 2, 64, 2, 128).mean((1, 3))
    np.testing.assert_array_equal(store.codes("117") & 1, np.moveaxis(share >= 0.5, 2, 0))
    if not (DATA / "abdomen_ct_msd").exists():
        pytest.skip("no real 8-bit slices here")
    some = tmp_path / "msd"
    some.mkdir()
    for kind, i in itertools.product(("volume", "segmentation"), range(1, 9)):
        (some / f"{kind}-{i}.nii.gz").symlink_to(DATA / "abdomen_ct_msd" / f"{kind}-{i}.nii.gz")
    store, _ = run(some, tmp_path / "store", spec.changed(name="msd"))
    first = summary(store).split("warning: ")[1]  # one line for all, before any other and never behind "more"
    assert "8 scans seem not to be in Hounsfield units (1, 2, 3, 4, 5, 6, 7, 8)" in first


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return python("-m", "experiments.prepare", *arguments)


def test_the_command(source: Path, tmp_path: Path) -> None:
    where = [f"--source={source}", f"--store={tmp_path / 'store'}", "--workers=1"]
    wanted = [
        "--dataset=lits",
        "--name=mine",
        "--structures=tumour:2",
        "--window=-100,200",
        "--pixels=32,16",
        "--resize=spacing",
        "--pixel_mm=1",
        "--with_structure=1",
        "--without_structure=2",
        "--neighbours=2",
        "--max_slices=10",
        "--test_volumes=1",
        *where,
    ]
    dry = command(*wanted, "--dry_run")
    assert dry.returncode == 0, dry.stderr
    assert (
        "4 look usable" in dry.stdout and "Nothing was written" in dry.stdout and "at most 4 to prepare" in dry.stdout
    )
    assert not (tmp_path / "store").exists()
    done = command(*wanted)
    assert done.returncode == 0, done.stderr
    store = SliceStore(tmp_path / "store" / "mine")
    assert store.spec == PAPERS["lits"].changed(
        name="mine",
        structures=("tumour",),
        label_values=((2,),),
        other_values="background",
        window=(-100.0, 200.0),
        pixels=(32, 16),
        resize="spacing",
        pixel_mm=1.0,
        with_structure=1,
        without_structure=2,
        neighbours=2,
        max_slices=10,
        test_slices=0,
        test_volumes=1,
    )
    assert "mine: 3 volumes (9 slices) for training, 1 volumes (1 slices) for test" in done.stdout
    assert "tumour: in 3 of 10 slices (30.0%)" in done.stdout and "seconds a scan: read" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dataset=lits", "--spacing=2"], "--spacing cannot be used with --dataset=lits"),
        (["--dataset=hdt_c", "--window=0,1"], "--window cannot be used with --dataset=hdt_c"),
        (["--dataset=lits", "--structures=liver"], "--structures=liver cannot be read at 'liver'"),
        (["--dataset=lits", "--window=200,100"], "the lower one first"),
        (["--dataset=lits", "--pixel_mm=1"], "--pixel_mm is for --resize=spacing"),
        (["--dataset=lits", "--test_volumes=1", "--test_fraction=0.5"], "give one of them"),
    ],
)
def test_flags_that_do_not_fit_are_one_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = command(*arguments, f"--source={tmp_path}", f"--store={tmp_path / 's'}")
    assert done.returncode == 2 and words in done.stderr and done.stderr.count("\n") == 1


MEASURE = """
import json, sys
from pathlib import Path
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.preprocess.prepare_slices import prepare_slices
root = Path(sys.argv[1])
spec = PAPERS["lits"].changed(name="big", test_slices=0, max_slices=0)
if sys.argv[2] == "every":
    spec = spec.changed(with_structure=0, scaling="zscore")
store = prepare_slices(spec, root, root / "store", workers=1, progress=False)
# Not getrusage: a process starts with the peak of the one that it was forked from.
status = Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps({"peak": peak, "samples": len(store.samples(["4"])), "record": store.record("4")}))
"""


def write_large(folder: Path, depth: int = 841) -> None:
    """The report's volume-4: 512x512x841 int16, its label float64 (a gzip member a plane: quick to write)."""
    rng = np.random.default_rng(0)
    x, y = np.indices((512, 512)) - 256
    body = np.where(x**2 + y**2 < 200**2, 40 + rng.normal(0, 20, (512, 512)), -1000)
    liver = ((x + 80) ** 2 + y**2 < 90**2).astype(float)
    affine = np.diag([-0.7, 0.7, 1, 1])
    for name, dtype, plain, inside in (("volume", "i2", body, body + 9), ("segmentation", "f8", 0 * liver, liver)):
        header = nib.Nifti1Header()
        header.set_data_dtype(dtype)
        header.set_data_shape((512, 512, depth))
        header.set_sform(affine, 1)
        header["vox_offset"], header["magic"] = 352, b"n+1"
        planes = [gzip.compress(p.astype(dtype).tobytes(order="F"), 1) for p in (plain, inside)]
        with (folder / f"{name}-4.nii.gz").open("wb") as f:
            f.write(gzip.compress(header.binaryblock + bytes(4)))
            f.writelines(planes[346 <= k <= 595] for k in range(depth))


@pytest.mark.slow
@pytest.mark.parametrize("which", ["report", "every"])
def test_a_volume_of_841_slices_stays_under_2_gb(which: str, tmp_path: Path) -> None:
    write_large(tmp_path)
    done = python("-c", MEASURE, str(tmp_path), which)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out["samples"] == (50 if which == "report" else 841)
    assert out["record"]["label_slices"] == {"liver": 250, "tumour": 0}
    assert out["record"]["planes"][0] == (335 if which == "report" else 0)  # ten below the liver, and a neighbour
    assert out["peak"] < 2e9
