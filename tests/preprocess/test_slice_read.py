"""Volumes into slices against nibabel and NumPy: any orientation, any stored type, every kind of bad input."""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform

from tests.preprocess.slice_volumes import AFFINE, anatomy, write_pair
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.preprocess.reading import slice_scale
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.preprocess.reading.slice_read import planes_to_scan, read_volume

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CT = DatasetSpec(
    "ct",
    ("liver", "tumour"),
    PlaneGrid("CT", (24, 20), scaling="window", window=(-160.0, 240.0), neighbours=1),
    "ct",
    ((1, 2), (2,)),
    exclusive=False,
)
MR = CT.changed(name="mr", modality="MR", scaling="zscore", window=None)
ALL_AXES = [
    "".join(c) for order in itertools.permutations(("LR", "PA", "IS")) for c in itertools.product(*order)
]  # the 48 orientations that an array may have


def files(folder: Path, name: str = "1", end: str = ".nii.gz") -> ScanFiles:
    return ScanFiles(name, folder / f"volume-{name}{end}", folder / f"segmentation-{name}{end}")


def test_every_slice_is_the_canonical_array_scaled(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", image, label)
    v = read_volume(files(tmp_path), CT)
    assert v.label is not None
    np.testing.assert_allclose(v.image, np.moveaxis(np.clip(image, -160, 240) - 40, 2, 0) / 200, atol=1e-6)
    liver, tumour = np.moveaxis(label > 0, 2, 0), np.moveaxis(label == 2, 2, 0)
    np.testing.assert_array_equal(v.label, liver + 2 * tumour)
    assert v.z == v.samples == tuple(range(16)) and v.warnings == ()
    np.testing.assert_allclose(v.affine, AFFINE, atol=1e-6)
    ml = 0.8 * 0.9 * 2.5 / 1000
    assert v.label_ml == pytest.approx({"liver": (label > 0).sum() * ml, "tumour": (label == 2).sum() * ml})
    assert v.label_slices == {"liver": 8, "tumour": 1}
    assert set(v.seconds) == {"read"}


@pytest.mark.parametrize("axes", ALL_AXES)
def test_the_affine_and_not_the_array_says_what_is_axial(axes: str, tmp_path: Path) -> None:
    image, label = anatomy(seed=1)
    tilt = AFFINE @ np.array([[1, 0.1, 0.05, 0], [-0.1, 1, 0.2, 0], [0, -0.2, 1, 0], [0, 0, 0, 1]])  # oblique
    turn = ornt_transform(io_orientation(tilt), axcodes2ornt(axes))
    affine = tilt @ inv_ornt_aff(turn, image.shape)
    assert "".join(nib.aff2axcodes(affine)) == axes
    write_pair(tmp_path, "1", apply_orientation(image, turn), apply_orientation(label, turn), affine, ".nii")
    spec = CT.changed(with_structure=3, without_structure=2, pixels=(17, 26))
    v = read_volume(files(tmp_path, end=".nii"), spec)
    write_pair(tmp_path / "plain", "1", image, label, tilt, ".nii")
    plain = read_volume(files(tmp_path / "plain", end=".nii"), spec)
    assert v.label is not None and plain.label is not None
    np.testing.assert_array_equal(v.image, plain.image)
    np.testing.assert_array_equal(v.label, plain.label)
    assert (v.z, v.samples, v.label_slices) == (plain.z, plain.samples, plain.label_slices)
    np.testing.assert_allclose(v.affine, plain.affine, atol=1e-4)
    # nibabel's own way to the nearest axes
    closest = nib.as_closest_canonical(nib.load(tmp_path / "volume-1.nii"))
    np.testing.assert_array_equal(np.asarray(closest.dataobj), image)
    back = planes_to_scan(plain.label.astype(np.float32), v)
    assert back.shape == apply_orientation(image, turn).shape


@pytest.mark.parametrize("dtype", ["int16", ">i2", "uint16", "int32", "float32", "float64", "int64"])
@pytest.mark.parametrize("scaled", [False, True])
def test_any_stored_type_gives_the_same(dtype: str, scaled: bool, tmp_path: Path) -> None:
    image, label = anatomy()
    order = ">" if dtype[0] == ">" else "<"
    for kind, array in (("volume", image + 1024 * (dtype == "uint16")), ("segmentation", label)):
        header = nib.Nifti1Header(endianness=order)
        header.set_data_dtype(np.dtype(dtype))
        nii = nib.Nifti1Image(array.astype(np.dtype(dtype)), AFFINE, header)
        nii.to_filename(tmp_path / f"{kind}-1.nii")
        if scaled:  # nibabel resets the scale factors of an array, so they are written into the file
            content = bytearray((tmp_path / f"{kind}-1.nii").read_bytes())
            inter = 0.0 if kind == "segmentation" or dtype != "uint16" else -1024.0
            content[112:120] = np.array([1, inter], order + "f4").tobytes()
            (tmp_path / f"{kind}-1.nii").write_bytes(bytes(content))
    if dtype == "uint16" and not scaled:
        v = read_volume(files(tmp_path, end=".nii"), CT.changed(window=(864.0, 1264.0)))
    else:
        v = read_volume(files(tmp_path, end=".nii"), CT)
    np.testing.assert_allclose(v.image, np.moveaxis(np.clip(image, -160, 240) - 40, 2, 0) / 200, atol=1e-6)
    assert v.label is not None and v.label_slices == {"liver": 8, "tumour": 1}


def test_zscore_is_of_the_whole_volume_after_clipping(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", image, label)
    v = read_volume(files(tmp_path), MR.changed(with_structure=4, pixels=(40, 16)))
    low, high = np.percentile(image, (0.5, 99.5))
    clipped = np.clip(image.astype(float), low, high)
    expected = (clipped - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(v.image[0][8:32], expected[:, 2:18, v.z[0]], atol=1e-4)
    np.testing.assert_allclose(v.image[0][:8], expected.min(), atol=1e-4)


def test_statistics_of_a_large_volume_come_from_an_even_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slice_scale, "SAMPLE", 20_000)
    rng = np.random.default_rng(0)
    volume = rng.gamma(2.0, 100.0, (60, 50, 70)) * np.linspace(0.5, 1.5, 70) + np.arange(60)[:, None, None]
    statistics = slice_scale.Statistics(volume.shape)
    for k in range(70):
        statistics.add(volume[:, :, k])
    assert 10_000 < len(statistics.sample) <= 20_000
    scaling = slice_scale.scaling_of(Path("x"), statistics, MR)
    ranks = [(volume < v).mean() for v in (scaling.low, scaling.high)]
    np.testing.assert_allclose(ranks, [0.005, 0.995], atol=3 * np.sqrt(0.005 * 0.995 / 10_000))
    clipped = np.clip(volume, scaling.low, scaling.high)
    assert scaling.centre == pytest.approx(clipped.mean(), rel=0.02)
    assert scaling.width == pytest.approx(clipped.std(), rel=0.02)
    assert (statistics.minimum, statistics.maximum) == (volume.min(), volume.max())


@pytest.mark.parametrize("resize", ["pad", "fit", "spacing"])
def test_labels_come_back_to_the_scan(resize: str, tmp_path: Path) -> None:
    x, y, z = np.indices((60, 50, 12))
    label = (((x - 30) / 18) ** 2 + ((y - 22) / 14) ** 2 + ((z - 6) / 4) ** 2 < 1).astype(np.uint8)
    turn = ornt_transform(io_orientation(AFFINE), axcodes2ornt("PIL"))
    affine = AFFINE @ inv_ornt_aff(turn, label.shape)
    image = anatomy(label.shape)[0]
    write_pair(tmp_path, "1", apply_orientation(image, turn), apply_orientation(label, turn), affine)
    spec = CT.changed(pixels=(48, 44), resize=resize, pixel_mm=1.0 if resize == "spacing" else None)  # type: ignore[arg-type]
    v = read_volume(files(tmp_path), spec, every_slice=True)
    assert v.label is not None
    back = planes_to_scan((v.label & 1).astype(np.float32), v)
    truth = apply_orientation(label, turn)
    assert back.shape == truth.shape and back.dtype == np.float32 and back.min() >= 0 and back.max() <= 1 + 1e-6
    dice = 2 * ((back > 0.5) & (truth > 0)).sum() / ((back > 0.5).sum() + truth.sum())
    assert dice == 1 if resize == "pad" else dice > 0.97


def test_what_was_not_predicted_is_zero(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", image, label)
    v = read_volume(files(tmp_path), CT.changed(with_structure=2, neighbours=0, pixels=(16, 16)))
    back = planes_to_scan(np.ones((2, 16, 16), np.float32), v)
    assert sorted(np.flatnonzero(back.any((0, 1)))) == list(v.z) == [4, 11]
    assert back[4:20, 2:18, 4].min() == 1 and back.sum() == 2 * 256


def test_prediction_needs_no_label(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", image, label)
    alone = ScanFiles("1", tmp_path / "volume-1.nii.gz")
    v = read_volume(alone, PAPERS["lits"], every_slice=True)
    assert v.label is None and len(v.image) == len(v.samples) == 16 and v.label_ml == {}
    with pytest.raises(ExclusionError, match="has no label map"):
        read_volume(alone, CT)


def test_a_single_slice_is_a_volume(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", image[:, :, 5:6], label[:, :, 5:6])
    v = read_volume(files(tmp_path), CT)
    assert v.image.shape == (1, 24, 20) and v.z == (0,) and v.label_slices["liver"] == 1
    write_pair(tmp_path, "2", image[5:6], label[5:6])
    with pytest.raises(ExclusionError, match="single line of pixels"):
        read_volume(files(tmp_path, "2"), CT)


def test_fewer_slices_than_asked_is_a_warning_with_the_numbers(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", image, label)
    v = read_volume(files(tmp_path), CT.changed(with_structure=30, without_structure=20))
    (warning,) = v.warnings
    assert "volume-1.nii.gz has 8 slice(s) with a structure and 30 were asked for and 8 slice(s) without one" in warning
    assert v.samples == tuple(range(16))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_other_label_values_are_refused_or_background(dtype: str, tmp_path: Path) -> None:
    image, label = anatomy()
    label = label.astype(dtype)
    label[0, 0, :3] = 3
    label[0, 1, 0] = 99 if dtype == "uint8" else -5
    write_pair(tmp_path, "1", image, label)
    other = "3, 99" if dtype == "uint8" else "-5, 3"
    with pytest.raises(ExclusionError, match=rf"segmentation-1.*label values {other}, beyond.*`structures`"):
        read_volume(files(tmp_path), CT)
    v = read_volume(files(tmp_path), CT.changed(other_values="background"))
    assert v.label is not None and not v.label[:, 0].any() and v.label_slices["liver"] == 8


@pytest.mark.parametrize("every", [0, 3])
def test_no_structure_anywhere_is_excluded(every: int, tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", image, 0 * label)
    with pytest.raises(
        ExclusionError, match=r"segmentation-1\.nii\.gz has no slice that shows liver or tumour: .*`structures`"
    ):
        read_volume(files(tmp_path), CT.changed(with_structure=every))


def test_a_ct_that_is_not_in_hu_is_a_warning(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "hu", image, label)
    write_pair(tmp_path, "byte", np.clip((image.astype(int) + 160) * 255 // 400, 0, 255).astype(np.uint8), label)
    write_pair(tmp_path, "raw", image + 1024, label)
    assert not read_volume(files(tmp_path, "hu"), CT).doubts
    for name in ("byte", "raw"):  # padding outside the body makes no HU of them
        padded = np.asarray(nib.load(files(tmp_path, name).image).dataobj).astype(np.int16)
        padded[:4] = -2048
        write_pair(tmp_path, f"{name}-padded", padded, label)
    for name, values in (("byte", "its values are 0 to "), ("raw", ""), ("byte-padded", "-2048"), ("raw-padded", "")):
        (warning,) = read_volume(files(tmp_path, name), CT).doubts.values()
        assert f"volume-{name}.nii.gz does not seem to be in Hounsfield units" in warning
        assert values in warning and "`window=LOW,HIGH`" in warning
        assert not read_volume(files(tmp_path, name), MR).doubts
    assert read_volume(files(tmp_path, "byte"), CT.changed(window=(0.0, 255.0))).warnings == ()


def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    image, label = anatomy()
    for bad in (np.nan, np.inf, 1e300):
        wrong = image.astype(np.float64)
        wrong[3, 3, 12] = bad
        write_pair(tmp_path, "1", wrong, label)
        with pytest.raises(ExclusionError, match=r"volume-1\.nii\.gz is NaN or infinite in 1 of"):
            read_volume(files(tmp_path), CT)


def test_a_label_map_in_a_volumes_place_is_refused(tmp_path: Path) -> None:
    _, label = anatomy()
    write_pair(tmp_path, "1", label, label)
    with pytest.raises(ExclusionError, match=r"volume-1\.nii\.gz looks like a label map, not a scan"):
        read_volume(files(tmp_path), CT)


def test_nothing_to_scale_is_refused(tmp_path: Path) -> None:
    image, label = anatomy()
    write_pair(tmp_path, "1", 0 * image + 7, label)
    with pytest.raises(ExclusionError, match=r"is constant \(every voxel is 7\)"):
        read_volume(files(tmp_path), CT)
    speck = 0 * image
    speck[0, 0, 0] = -9
    write_pair(tmp_path, "1", speck, label)
    with pytest.raises(ExclusionError, match="cannot be standardised"):
        read_volume(files(tmp_path), MR)


def test_a_real_mr_keeps_its_liver_at_every_size() -> None:
    folder = DATA / "abdomen_mr_chaos"
    if not folder.exists():
        pytest.skip("no real scans here")
    scan = ScanFiles("1", folder / "image_1.nii.gz", folder / "label_1.nii.gz")
    with pytest.raises(ExclusionError, match=r"label values 2, 3, 4, beyond those of mri_artery \(tumour 1\)"):
        read_volume(scan, PAPERS["mri_artery"])
    spec = MR.changed(structures=("liver",), label_values=((1,),), other_values="background")
    reference = nib.as_closest_canonical(nib.load(folder / "label_1.nii.gz"))
    truth = np.asarray(reference.dataobj) == 1
    for resize, pixels in (("fit", (128, 128)), ("pad", (320, 260)), ("spacing", (200, 200))):
        v = read_volume(scan, spec.changed(resize=resize, pixels=pixels, pixel_mm=1.6))  # type: ignore[arg-type]
        assert v.label is not None
        mm = np.linalg.norm(v.affine[:3, :3], axis=0)
        assert v.label.sum() * mm.prod() / 1000 == pytest.approx(v.label_ml["liver"], rel=0.02)  # halves count
        assert v.label_ml["liver"] == pytest.approx(
            truth.sum() * np.prod(reference.header.get_zooms()) / 1000, rel=1e-5
        )
        where = np.argwhere(v.label)[:, [1, 2, 0]].mean(0)
        expected = reference.affine @ [*np.argwhere(truth).mean(0), 1]
        np.testing.assert_allclose(v.affine @ [*where, 1], expected, atol=0.5)
    np.testing.assert_array_equal(v.label.any((1, 2)), truth.any((0, 1)))


@pytest.mark.parametrize(
    ("folder", "name", "liver", "kinds"),
    [
        ("abdomen_ct_msd", "volume-10.nii.gz segmentation-10.nii.gz", 1, ["seem not to be in Hounsfield units"]),
        ("abdomen_ct_lits117", "volume-117.nii.gz segmentation-117.nii.gz", 1, ["have no geometry"]),
        ("abdomen_ct_mr_totalseg", "example_ct_sm.nii.gz example_seg.nii.gz", 5, []),
    ],
)
def test_what_is_doubtful_of_real_cts_is_told(
    folder: str, name: str, liver: int, kinds: list[str], tmp_path: Path
) -> None:
    image, label = (DATA / folder / n for n in name.split())
    if not image.exists():
        pytest.skip("no real scans here")
    spec = CT.changed(structures=("liver",), label_values=((liver,),), other_values="background", pixels=(64, 64))
    assert list(read_volume(ScanFiles("s", image, label), spec).doubts) == kinds
    voxels = np.asarray(nib.load(image).dataobj, np.float32)
    padded = np.pad(voxels, ((30, 30), (30, 30), (0, 0)), constant_values=-3000)
    nib.Nifti1Image(padded, nib.load(image).affine).to_filename(tmp_path / "padded.nii.gz")
    alone = read_volume(ScanFiles("s", tmp_path / "padded.nii.gz"), spec, every_slice=True)
    assert list(alone.doubts) == kinds
