"""Scans and label maps of every format read as the same scan in NIfTI does; what cannot be read is named."""

import locale
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid, VolumeGrid
from tlseg_jax.datasets.structures import Labels
from tlseg_jax.preprocess.dry_run import check_source
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.pipeline import PrepareSettings
from tlseg_jax.preprocess.prepare import prepare_dataset
from tlseg_jax.preprocess.reading.read import read_header, read_scan
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan, ScanFiles
from tlseg_jax.preprocess.reading.slice_read import read_volume
from tlseg_jax.runtime.errors import InputError

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
SPEC = DatasetSpec(
    "small",
    ("caudate",),
    VolumeGrid("native", (24, 24, 24), (3.0, 3.0, 3.0), (16, 16, 16), train_count=1),
    "small",
    ((36, 37),),
)
SETTINGS = PrepareSettings(registration="skip", bias_correction=False, order=1)
SLICES = DatasetSpec(
    "small",
    ("right", "left"),
    PlaneGrid("MR", (64, 64), other_values="background"),
    "small",
    ((36,), (37,)),
    exclusive=False,
)


def turned(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """The affine of a head that lies obliquely."""
    a, b = 0.3, -0.2
    x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    return np.asarray(nib.affines.from_matvec(z @ x, (3.5, -2.25, 7.0)) @ affine)


@pytest.fixture(autouse=True)
def same_locale() -> Iterator[None]:
    """GDCM's writer, which is used by these tests alone, leaves the process in the C locale."""
    before = locale.setlocale(locale.LC_ALL)
    yield
    locale.setlocale(locale.LC_ALL, before)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A part of a real head about the caudates, with its labels, turned obliquely: a_T1w and a_labels as .nii.gz."""
    source = DATA / "brain_oasis"
    if not source.is_dir():
        pytest.skip("no real scans here")
    folder = tmp_path_factory.mktemp("real")
    label = nib.load(source / "sub-1000_labels.nii.gz")
    at = np.argwhere(np.isin(np.asarray(label.dataobj), (36, 37)))
    low = (at.min(0) + at.max(0)) // 2 - (28, 32, 24)
    for kind in ("T1w", "labels"):
        image = nib.load(source / f"sub-1000_{kind}.nii.gz")
        part = np.asarray(image.dataobj)[tuple(slice(a, a + n) for a, n in zip(low, (56, 64, 48), strict=True))]
        shifted = image.affine @ nib.affines.from_matvec(np.diag([1.0, 1.25, 1.5]), low)
        nib.save(nib.Nifti1Image(part.astype(np.int16), turned(shifted)), folder / f"a_{kind}.nii.gz")
    return folder


def itk(path: Path) -> sitk.Image:
    """A NIfTI file as SimpleITK has it, with voxels and affine by nibabel: not by the reader that is tested."""
    image = nib.load(path)
    out = sitk.GetImageFromArray(np.asarray(image.dataobj).transpose(2, 1, 0))
    lps = TO_LPS @ image.affine
    mm = np.linalg.norm(lps[:3, :3], axis=0)
    out.SetOrigin(lps[:3, 3].tolist())
    out.SetSpacing(mm.tolist())
    out.SetDirection((lps[:3, :3] / mm).ravel().tolist())
    return out


def write_dicom(image: sitk.Image, folder: Path, uid: str = "1.2.3.4", what: str = "T1", prefix: str = "") -> Path:
    """A series, a file a slice, whose names are not in the order of the slices."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    d = image.GetDirection()
    for k in range(image.GetDepth()):
        one = image[:, :, k]
        place = image.TransformIndexToPhysicalPoint((0, 0, k))
        tags = {
            "0008|0060": "MR",
            "0008|103e": what,
            "0020|000d": "1.2.3",
            "0020|000e": uid,
            "0020|0013": str(k),
            "0020|0032": "\\".join(f"{v:.9f}" for v in place),
            "0020|0037": "\\".join(f"{v:.12f}" for v in (d[0], d[3], d[6], d[1], d[4], d[7])),
        }
        for key, value in tags.items():
            one.SetMetaData(key, value)
        writer.SetFileName(str(folder / f"{prefix}{k * 29 % 101:03d}"))
        writer.Execute(one)
    return folder


def through_itk(end: str, zipped: bool = False) -> Callable[[Path, Path], Path]:
    def convert(source: Path, stem: Path) -> Path:
        sitk.WriteImage(itk(source), f"{stem}{end}", useCompression=zipped)
        return Path(f"{stem}{end}")

    return convert


def nifti_pair(source: Path, stem: Path) -> Path:
    image = nib.load(source)
    nib.save(nib.Nifti1Pair(np.asarray(image.dataobj), image.affine), f"{stem}.hdr")
    return Path(f"{stem}.hdr")


def dicom(source: Path, stem: Path) -> Path:
    return write_dicom(itk(source), stem)


def upper(source: Path, stem: Path) -> Path:
    return through_itk(".nrrd")(source, stem).rename(f"{stem}.NRRD")


def ras_nrrd(source: Path, stem: Path) -> Path:
    """NRRD by hand, in RAS, as other programs than ITK may write it."""
    image = nib.load(source)
    axes = " ".join("(" + ",".join(f"{v:.12g}" for v in image.affine[:3, i]) + ")" for i in range(3))
    origin = ",".join(f"{v:.12g}" for v in image.affine[:3, 3])
    sizes = " ".join(map(str, image.shape))
    head = (
        f"NRRD0004\ntype: short\ndimension: 3\nspace: right-anterior-superior\nsizes: {sizes}\n"
        f"space directions: {axes}\nkinds: domain domain domain\nendian: little\nencoding: raw\n"
        f"space origin: ({origin})\n\n"
    )
    voxels = np.asarray(image.dataobj).astype("<i2").tobytes(order="F")
    Path(f"{stem}.nrrd").write_bytes(head.encode() + voxels)
    return Path(f"{stem}.nrrd")


FORMATS = {
    "nrrd": through_itk(".nrrd"),
    "nrrd_gzip": through_itk(".nrrd", True),
    "nhdr": through_itk(".nhdr"),
    "mha": through_itk(".mha"),
    "mha_zlib": through_itk(".mha", True),
    "mhd": through_itk(".mhd"),
    "mhd_zlib": through_itk(".mhd", True),
    "ras_nrrd": ras_nrrd,
    "pair": nifti_pair,
    "dicom": dicom,
    "upper": upper,
}


def canonical(scan: Scan, volume: NDArray[Any] | None) -> Any:
    assert volume is not None
    return nib.as_closest_canonical(nib.Nifti1Image(volume.astype(np.float32), scan.affine))


@pytest.mark.parametrize("name", FORMATS)
def test_a_real_scan_and_its_labels_are_in_each_format_what_they_are_in_nifti(
    real: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    want = read_scan(ScanFiles("a", real / "a_T1w.nii.gz", real / "a_labels.nii.gz"), Labels.of(36, 37))
    image = FORMATS[name](real / "a_T1w.nii.gz", tmp_path / "image")
    label = FORMATS[name](real / "a_labels.nii.gz", tmp_path / "label")
    capfd.readouterr()
    got = read_scan(ScanFiles("a", image, label, mask=image), Labels.of(36, 37))
    assert capfd.readouterr() == ("", "") and got.warnings == ()
    for volume, reference in ((got.image, want.image), (got.label, want.label), (got.mask, want.image > 0)):
        a, b = canonical(got, volume), canonical(want, reference)
        np.testing.assert_array_equal(np.asarray(a.dataobj), np.asarray(b.dataobj))
        np.testing.assert_allclose(a.affine, b.affine, atol=2e-4)
    slices = [
        read_volume(ScanFiles("a", i, la), SLICES)
        for i, la in ((image, label), (real / "a_T1w.nii.gz", real / "a_labels.nii.gz"))
    ]
    np.testing.assert_array_equal(slices[0].image, slices[1].image)
    np.testing.assert_array_equal(slices[0].label, slices[1].label)
    np.testing.assert_allclose(slices[0].affine, slices[1].affine, atol=2e-4)


def test_a_series_is_prepared_again_when_one_of_its_slices_changes(real: Path, tmp_path: Path, said: list[str]) -> None:
    source = tmp_path / "source"
    source.mkdir()
    folder = dicom(real / "a_T1w.nii.gz", source / "a_T1w")
    dicom(real / "a_labels.nii.gz", source / "a_labels")

    def prepare() -> str:
        prepare_dataset(SPEC, source, tmp_path / "store", SETTINGS, workers=1, progress=False, test_fraction=0.0)
        return said[-1]

    assert "1 prepared" in prepare() and "1 reused" in prepare()
    one = next(folder.iterdir())
    image = sitk.ReadImage(str(one))
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.SetFileName(str(one))
    changed = image + 1
    for key in image.GetMetaDataKeys():
        changed.SetMetaData(key, image.GetMetaData(key))
    writer.Execute(changed)
    assert "1 prepared" in prepare()


# what is wrong with files


def cut(path: Path, by: int = 5000) -> Path:
    path.write_bytes(path.read_bytes()[:-by])
    return path


def flip(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[-len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))
    return path


def many(tmp: Path, shape: tuple[int, ...], end: str = ".nrrd", vector: bool = False) -> Path:
    array = np.random.default_rng(0).integers(0, 9, shape).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(array, isVector=vector), str(tmp / f"x{end}"))
    return tmp / f"x{end}"


def without(path: Path) -> Path:
    path.unlink()
    return path.with_suffix(".hdr") if path.suffix == ".img" else path.with_suffix(".mhd")


def claims(path: Path) -> Path:
    path.write_bytes(path.read_bytes().replace(b"DimSize = 56 64 48", b"DimSize = 9000 9000 9000"))
    return path


BROKEN: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "cut nrrd": (lambda r, t: cut(through_itk(".nrrd")(r, t / "x")), "cannot be read"),
    "cut gzipped nrrd": (lambda r, t: cut(through_itk(".nrrd", True)(r, t / "x")), "cannot be read"),
    "damaged gzipped nrrd": (lambda r, t: flip(through_itk(".nrrd", True)(r, t / "x")), "cannot be read"),
    "cut mha": (lambda r, t: cut(through_itk(".mha")(r, t / "x")), "is cut short"),
    "cut zipped mha": (lambda r, t: cut(through_itk(".mha", True)(r, t / "x")), "is cut short"),
    "damaged zipped mha": (lambda r, t: flip(through_itk(".mha", True)(r, t / "x")), "damaged"),
    "huge mha": (lambda r, t: claims(through_itk(".mha")(r, t / "x")), "GiB"),
    "mhd without raw": (lambda r, t: without(through_itk(".mhd")(r, t / "x").with_suffix(".raw")), "not beside it"),
    "hdr without img": (lambda r, t: without(nifti_pair(r, t / "x").with_suffix(".img")), "no voxels' file"),
    "img without hdr": (lambda r, t: nifti_pair(r, t / "x").rename(t / "y.hdr").parent / "x.img", "no header"),
    "cut img": (lambda r, t: cut(nifti_pair(r, t / "x").with_suffix(".img")), "is cut short"),
    "4D nrrd": (lambda r, t: many(t, (3, 6, 7, 8)), "4D series"),
    "2D mha": (lambda r, t: many(t, (7, 8), ".mha"), "2D image"),
    "colour nrrd": (lambda r, t: many(t, (6, 7, 8, 3), vector=True), "3 numbers a voxel"),
    "text": (lambda r, t: Path(shutil.copy(__file__, t / "x.nrrd")), "cannot be read"),
    "minc": (lambda r, t: shutil.copy(r, t / "x.mnc"), "not read (MINC)"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_of_each_format_is_refused_with_one_sentence(
    real: Path, tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    make, words = BROKEN[name]
    path = make(real / "a_T1w.nii.gz", tmp_path)
    capfd.readouterr()
    with pytest.raises(ExclusionError) as caught:
        read_scan(ScanFiles("x", path))
    text = str(caught.value)
    assert words in text and text.startswith(str(tmp_path)) and text.endswith(".") and "\n" not in text
    assert "ITK" not in text and capfd.readouterr() == ("", "")


def test_analyze_is_read_as_spm_does_with_a_warning_that_sides_are_by_custom(real: Path, tmp_path: Path) -> None:
    image = nib.load(real / "a_T1w.nii.gz")
    voxels = np.asarray(image.dataobj)
    plain = nib.Spm2AnalyzeImage(voxels, None)
    plain.header.set_zooms((1.0, 1.25, 1.5))
    plain.to_filename(tmp_path / "x.hdr")
    (tmp_path / "x.mat").unlink(missing_ok=True)
    for name in ("x.hdr", "x.img"):
        scan = read_scan(ScanFiles("x", tmp_path / name))
        np.testing.assert_array_equal(scan.image, voxels)
        np.testing.assert_allclose(scan.affine, nib.load(tmp_path / "x.hdr").affine)
        (warning,) = scan.warnings
        assert "does not say which side is left" in warning and "LAS" in warning
    content = bytearray((tmp_path / "x.hdr").read_bytes())
    content[252] = 2
    (tmp_path / "x.hdr").write_bytes(bytes(content))
    sagittal = read_header(tmp_path / "x.hdr")
    assert sagittal.axcodes == "ASL" and sagittal.grid.spacing == (1.0, 1.25, 1.5)
    np.testing.assert_allclose(sagittal.affine @ [27.5, 31.5, 23.5, 1], [0, 0, 0, 1], atol=1e-5)
    content[252] = 5
    (tmp_path / "x.hdr").write_bytes(bytes(content))
    with pytest.raises(ExclusionError, match="orient 5"):
        read_header(tmp_path / "x.hdr")


def some_slices(real: Path, folder: Path, count: int = 6, **named: str) -> Path:
    return write_dicom(itk(real / "a_T1w.nii.gz")[:, :, :count], folder, **named)


def test_a_series_with_a_fault_is_refused_by_name(real: Path, tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(ExclusionError) as caught:
            read_header(path)
        return str(caught.value)

    gap = some_slices(real, tmp_path / "gap")
    (gap / f"{3 * 29 % 101:03d}").unlink()
    assert "lacks slices: between 015 and 058 are 3 mm where others are 1.5 mm apart" in refusal(gap)
    two = some_slices(real, some_slices(real, tmp_path / "two"), uid="1.2.3.5", what="T2", prefix="t2_")
    text = refusal(two)
    assert "holds 2 DICOM series (T1 with 6 file(s) such as 000; T2 with 6 file(s) such as t2_000)" in text
    assert "name a file of the one that is meant" in text
    assert read_header(two / "t2_029").shape == (56, 64, 6) == read_header(two / "000").shape
    twice = some_slices(real, some_slices(real, tmp_path / "twice"), prefix="b")
    assert "several slices at one place" in refusal(twice)
    mixed = some_slices(real, tmp_path / "mixed")
    other = itk(real / "a_T1w.nii.gz")[:40, :, :1]
    write_dicom(other, mixed, prefix="z")
    assert "different size" in refusal(mixed)
    broken = some_slices(real, tmp_path / "broken")
    cut(broken / "029", 3000)
    with pytest.raises(ExclusionError, match=r"029|broken"):
        read_scan(ScanFiles("x", broken))
    (tmp_path / "empty").mkdir()
    assert "is a folder, not a scan" in refusal(tmp_path / "empty")


# segments


def seg_nrrd(path: Path, layers: NDArray[np.uint8], segments: list[tuple[str, int, int]], affine: Any) -> Path:
    """A .seg.nrrd as 3D Slicer writes it; (layers, x, y, z), segments of (name, value, layer)."""
    lps = TO_LPS @ affine
    axes = " ".join("(" + ",".join(f"{v:.12g}" for v in lps[:3, i]) + ")" for i in range(3))
    several = len(layers) > 1
    head = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {4 if several else 3}",
        "space: left-posterior-superior",
        f"sizes: {f'{len(layers)} ' * several}{' '.join(map(str, layers.shape[1:]))}",
        f"space directions: {'none ' * several}{axes}",
        f"kinds: {'list ' * several}domain domain domain",
        "encoding: raw",
        "space origin: (" + ",".join(f"{v:.12g}" for v in lps[:3, 3]) + ")",
    ]
    for i, (name, value, layer) in enumerate(segments):
        head += [f"Segment{i}_Name:={name}", f"Segment{i}_LabelValue:={value}", f"Segment{i}_Layer:={layer}"]
    voxels = layers if several else layers[0]
    path.write_bytes(("\n".join(head) + "\n\n").encode() + voxels.tobytes(order="F"))
    return path


def test_segments_go_by_name_also_where_they_overlap(real: Path, tmp_path: Path) -> None:
    image, label = nib.load(real / "a_T1w.nii.gz"), np.asarray(nib.load(real / "a_labels.nii.gz").dataobj)
    right, left = (label == v for v in (36, 37))
    both = (right | left).astype(np.uint8)
    one = seg_nrrd(
        tmp_path / "one.seg.nrrd",
        (right * 1 + left * 2).astype(np.uint8)[None],
        [("Right caudate", 1, 0), ("Left caudate", 2, 0)],
        image.affine,
    )
    several = seg_nrrd(
        tmp_path / "several.seg.nrrd",
        np.stack([(right * 1 + left * 2).astype(np.uint8), both]),
        [("Right caudate", 1, 0), ("Left caudate", 2, 0), ("Caudate", 1, 1)],
        image.affine,
    )

    def read(path: Path, *values: int | str) -> NDArray[np.bool_]:
        found = read_scan(ScanFiles("a", real / "a_T1w.nii.gz", path), Labels.of(*values)).label
        assert found is not None
        return found

    for path in (one, several):
        np.testing.assert_array_equal(read(path, "Right caudate"), right)
        np.testing.assert_array_equal(read(path, "left CAUDATE", 1 if path == one else "Caudate"), right | left)
        np.testing.assert_array_equal(
            read_scan(ScanFiles("a", real / "a_T1w.nii.gz", path), Labels.of("all")).label, right | left
        )
        with pytest.raises(ExclusionError, match=r"none is named.*'Right caudate' 1, 'Left caudate' 2"):
            read(path)
        with pytest.raises(ExclusionError, match=r"named 'Liver' \(it has 'Right caudate' 1, 'Left caudate' 2"):
            read(path, "Liver")
        spec = DatasetSpec(
            "s",
            ("right", "all"),
            PlaneGrid("MR", (64, 64), other_values="background" if path == several else "refuse"),
            "s",
            (("Right caudate",), ("Right caudate", "Left caudate")),
            exclusive=False,
        )
        bits = read_volume(ScanFiles("a", real / "a_T1w.nii.gz", path), spec)
        values = spec.changed(label_values=((36,), (36, 37)), other_values="background")
        want = read_volume(ScanFiles("a", real / "a_T1w.nii.gz", real / "a_labels.nii.gz"), values)
        np.testing.assert_array_equal(bits.label, want.label)
        assert bits.label_ml == want.label_ml
    np.testing.assert_array_equal(read(several, "Caudate"), right | left)
    with pytest.raises(ExclusionError, match=r"overlapping segments of the value 1 .'Right caudate' and 'Caudate'"):
        read(several, 1)
    with pytest.raises(ExclusionError, match="names no segments, so 'Caudate' is not found"):
        read(real / "a_labels.nii.gz", "Caudate")
    with pytest.raises(ExclusionError, match=r"value 9 .it has 1 .'Right caudate'., 2 .'Left caudate'"):
        read(one, 9)


# label maps with a scan's header, and grids that are nearly the scan's


def slope_labels(real: Path, tmp_path: Path) -> tuple[Path, NDArray[Any]]:
    """The real labels as nibabel saves them under the scan's int16 header, 0 to 207 in steps of 0.003."""
    scan, labels = nib.load(real / "a_T1w.nii.gz"), np.asarray(nib.load(real / "a_labels.nii.gz").dataobj)
    labels = labels.copy()
    labels[0, 0, 0] = 207
    path = tmp_path / "a_labels.nii.gz"
    nib.save(nib.Nifti1Image(labels.astype(np.float64), scan.affine, scan.header), path)
    stored = nib.load(path)
    assert stored.get_data_dtype() == np.int16 and 0.0031 < stored.dataobj.slope < 0.0032
    assert np.abs(np.asarray(stored.dataobj) - labels).max() > 1e-3  # what a fixed tolerance of 0.001 refuses
    return path, labels


def test_a_label_map_with_a_scans_header_gives_the_whole_numbers_back_in_both_readers(
    real: Path, tmp_path: Path
) -> None:
    path, labels = slope_labels(real, tmp_path)
    for value in np.unique(labels)[1:]:
        got = read_scan(ScanFiles("a", real / "a_T1w.nii.gz", path), Labels.of(int(value))).label
        np.testing.assert_array_equal(got, labels == value)
    np.testing.assert_array_equal(
        read_scan(ScanFiles("a", real / "a_T1w.nii.gz", path), Labels.of("all")).label, labels > 0
    )
    by_slice, plain = (
        read_volume(ScanFiles("a", real / "a_T1w.nii.gz", p), SLICES) for p in (path, real / "a_labels.nii.gz")
    )
    np.testing.assert_array_equal(by_slice.label, plain.label)
    # As a mask, where background that is half a step above 0 is background still.
    mask = read_scan(ScanFiles("a", real / "a_T1w.nii.gz", mask=path)).mask
    np.testing.assert_array_equal(mask, labels > 0)


@pytest.mark.parametrize("slope", [0.003, 0.25, 1.28])
def test_values_further_from_whole_numbers_than_half_a_slope_are_refused_in_both_readers(
    real: Path, tmp_path: Path, slope: float
) -> None:
    scan = nib.load(real / "a_T1w.nii.gz")
    image = nib.Nifti1Image(np.full(scan.shape, 1000 if slope == 0.003 else 1, np.int16), scan.affine)
    image.header.set_slope_inter(slope, 0.4 if slope == 0.003 else 0.0 if slope > 1 else 0.2)
    nib.save(image, tmp_path / "a.nii")
    files = ScanFiles("a", real / "a_T1w.nii.gz", tmp_path / "a.nii")
    for read in (lambda: read_scan(files), lambda: read_volume(files, SLICES)):
        with pytest.raises(ExclusionError, match="not a whole number"):
            read()


def test_a_grid_a_little_off_is_taken_with_a_warning_and_one_further_off_is_refused(real: Path, tmp_path: Path) -> None:
    label = nib.load(real / "a_labels.nii.gz")
    want = read_scan(ScanFiles("a", real / "a_T1w.nii.gz", real / "a_labels.nii.gz"), Labels.of(36, 37)).label
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(real / "a_T1w.nii.gz", source)
    files = ScanFiles("a", source / "a_T1w.nii.gz", source / "a_labels.nii.gz")

    def shifted(voxels: float) -> None:
        moved = label.affine @ nib.affines.from_matvec(np.eye(3), (0, voxels, 0))  # voxels of 1.25 mm
        nib.save(nib.Nifti1Image(np.asarray(label.dataobj), moved), source / "a_labels.nii.gz")

    shifted(0.04)
    scan = read_scan(files, Labels.of(36, 37))
    np.testing.assert_array_equal(scan.label, want)
    assert len(scan.warnings) == 1 and "0.05 mm away from its image, 4.00% of a voxel" in scan.warnings[0]
    assert read_volume(files, SLICES).warnings[0] == scan.warnings[0]
    (row,) = check_source(find_scans(source))
    assert row.warning == scan.warnings[0] and not row.problem
    store = prepare_dataset(SPEC, source, tmp_path / "store", SETTINGS, workers=1, progress=False, test_fraction=0.0)
    assert scan.warnings[0] in store.manifest["warnings"]
    shifted(0.06)
    for read in (lambda: read_scan(files, Labels.of(36, 37)), lambda: read_volume(files, SLICES)):
        with pytest.raises(ExclusionError, match=r"0\.075 mm away from its image \(another affine\)"):
            read()


# which images are found


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def series(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or ("1", "2"):
        (folder / name).write_bytes(bytes(128) + b"DICM")


def test_every_layout_finds_every_format(tmp_path: Path) -> None:
    pairs = touch(
        tmp_path / "pairs",
        "a_T1w.NRRD",
        "a.seg.nrrd",
        "b.mha",
        "b_seg.mhd",
        "b_seg.raw",
        "c.HDR",
        "c.IMG",
        "c_seg.nii.gz",
        "d_seg.nrrd",
    )
    series(pairs / "d")
    found = find_scans(pairs)
    assert [(s.image.name, s.label and s.label.name) for s in found.scans] == [
        ("a_T1w.NRRD", "a.seg.nrrd"),
        ("b.mha", "b_seg.mhd"),
        ("c.HDR", "c_seg.nii.gz"),
        ("d", "d_seg.nrrd"),
    ]
    assert not found.exclusions
    cases = touch(tmp_path / "cases", "1/artery.mha", "1/label.nrrd", "2/label.nii")
    series(cases / "2", "IM1.dcm", "IM2.dcm")
    found = find_scans(cases)
    assert found.layout == "cases" and [s.image for s in found.scans] == [cases / "1" / "artery.mha", cases / "2"]
    bids = touch(tmp_path / "bids", "sub-1/anat/sub-1_T1w.nrrd", "derivatives/x/sub-1_dseg.seg.nrrd")
    touch(bids, "derivatives/x/sub-1_dseg.nrrd")
    assert find_scans(bids, "bids").scans[0].image.name == "sub-1_T1w.nrrd"
    nnunet = touch(tmp_path / "nnunet", "imagesTr/c_0000.nrrd", "labelsTr/c.nrrd")
    (nnunet / "dataset.json").write_text('{"channel_names": {"0": "MR"}, "file_ending": ".nrrd"}')
    assert [s.subject for s in find_scans(nnunet).scans] == ["c"]
    listed = tmp_path / "list.csv"
    listed.write_text("subject,image,label\nd,pairs/d,pairs/d_seg.nrrd\n")
    assert find_scans(listed).scans[0].image == pairs / "d"


def test_a_folder_of_one_series_is_one_image_to_predict(tmp_path: Path) -> None:
    series(tmp_path / "scan")
    touch(tmp_path / "scan", "DICOMDIR", "notes.txt")
    found = find_scans(tmp_path / "scan", need_label=False)
    assert [(s.subject, s.image) for s in found.scans] == [("scan", tmp_path / "scan")]
    assert [s.subject for s in find_scans(tmp_path, need_label=False).scans] == ["scan"]


def test_what_is_not_read_is_found_and_named(tmp_path: Path) -> None:
    touch(tmp_path, "a.nii.gz", "b.mnc", "c.par", "d.nii.bz2", "e.nii.gz", "e.mnc", "notes.txt", "figure.png")
    series(tmp_path / "deep" / "study" / "series")
    series(tmp_path, "loose.dcm")
    found = find_scans(tmp_path, need_label=False)
    assert [s.subject for s in found.scans] == ["a", "b", "c", "d", "e"]
    reasons = {e.subject: e.reason for e in found.exclusions}
    assert reasons.keys() == {"e.mnc", "deep", tmp_path.name}
    assert "e.nii.gz is taken" in reasons["e.mnc"] and "series holds DICOM files" in reasons["deep"]
    rows = {r.subject: r.problem for r in check_source(found)}
    assert "(MINC)" in rows["b"] and "(Philips PAR/REC)" in rows["c"] and "(bzip2)" in rows["d"]
    only = tmp_path / "only"
    series(only / "deep" / "series")
    with pytest.raises(InputError, match="series holds DICOM files: move that folder up"):
        find_scans(only, need_label=False)
