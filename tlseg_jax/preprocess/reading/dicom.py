"""A DICOM series in a folder, as one volume: which files, in which order, and whether they are evenly spaced."""

import dataclasses
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from jaxtyping import Shaped
from numpy.typing import NDArray

from tlseg_jax.preprocess.reading.formats import dicom_files
from tlseg_jax.preprocess.reading.header_itk import ItkVolume, dtype_of, open_itk, ras_affine
from tlseg_jax.preprocess.reading.scan_file import fault

_IO = "GDCMImageIO"
_UNEVEN = 0.05
"""Part of a slice's distance by which slices may be off their even spacing: rounded positions are off by less."""

_NO_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a DICOM segmentation (SEG)",
    "1.2.840.10008.5.1.4.1.1.481.3": "a DICOM structure set (RTSTRUCT)",
}
_SOP_CLASS, _SERIES, _DESCRIPTION = "0008|0016", "0020|000e", "0008|103e"


@dataclasses.dataclass(frozen=True, eq=False)
class _Slice:
    path: Path
    reader: sitk.ImageFileReader

    def tag(self, key: str) -> str:
        return self.reader.GetMetaData(key).strip(" \0") if self.reader.HasMetaDataKey(key) else ""

    @property
    def origin(self) -> NDArray[np.float64]:
        return np.array(self.reader.GetOrigin(), float)

    @property
    def axes(self) -> NDArray[np.float64]:
        """(3, 3): steps along columns, rows and the normal, in LPS mm."""
        return np.array(self.reader.GetDirection(), float).reshape(3, 3) * np.array(self.reader.GetSpacing())


def read_series(path: Path) -> ItkVolume:
    """The series of a folder, or the one in its folder that a DICOM file belongs to.

    Raises:
      ExclusionError: the folder holds several series, files that are no images, or slices that do not make one evenly
        spaced volume.
    """
    folder = path if path.is_dir() else path.parent
    slices: list[_Slice] = []
    broken: list[tuple[Path, str]] = []
    for file in dicom_files(folder):
        try:
            one = _Slice(file, open_itk(file, _IO))
        except RuntimeError:
            broken.append((file, "cannot be read as a DICOM image"))
            continue
        if what := _NO_IMAGES.get(one.tag(_SOP_CLASS), ""):
            broken.append((file, f"is {what}, which is not read"))
        else:
            slices.append(one)
    for file, what in broken:
        if path.is_dir() or file == path:
            raise fault(file, what, "export it as .seg.nrrd, NRRD or NIfTI, or move it out of the folder")
    series: dict[str, list[_Slice]] = {}
    for one in slices:
        series.setdefault(one.tag(_SERIES), []).append(one)
    if not path.is_dir():
        series = {u: s for u, s in series.items() if any(one.path == path for one in s)}
    if len(series) > 1:
        named = "; ".join(
            f"{s[0].tag(_DESCRIPTION) or u} with {len(s)} file(s) such as {s[0].path.name}" for u, s in series.items()
        )
        raise fault(
            path,
            f"holds {len(series)} DICOM series ({named})",
            "put each into a folder of its own, or name a file of the one that is meant in place of the folder",
        )
    if not series:
        raise fault(path, "holds no DICOM image", "check the path")
    return _volume(path, next(iter(series.values())))


def _volume(path: Path, slices: list[_Slice]) -> ItkVolume:
    first = slices[0]
    for one in slices:
        if one.reader.GetSize()[2] != 1:
            raise fault(one.path, "is a DICOM file of many frames", "convert it to NIfTI, as dcm2niix does")
        if one.reader.GetNumberOfComponents() != 1:
            raise fault(one.path, "is a colour image", "give one number a voxel")
        same = one.reader.GetSize() == first.reader.GetSize()
        if not same or not np.allclose(one.axes[:, :2], first.axes[:, :2], atol=1e-3):
            raise fault(
                path,
                f"holds slices of different size, pixels or orientation ({first.path.name} and {one.path.name})",
                "leave out what is no slice of the volume, such as a localiser",
            )
    normal = np.cross(first.axes[:, 0], first.axes[:, 1])
    normal /= np.linalg.norm(normal)
    slices = sorted(slices, key=lambda s: float(s.origin @ normal))
    origins = np.array([s.origin for s in slices])
    step = first.axes[:, 2]
    if len(slices) > 1:
        step = (origins[-1] - origins[0]) / (len(slices) - 1)
        _check_even(path, slices, origins, normal, step)
    columns = np.stack([first.axes[:, 0], first.axes[:, 1], step], 1)
    size = first.reader.GetSize()
    return ItkVolume(
        tuple(s.path for s in slices),
        (int(size[0]), int(size[1]), len(slices)),
        ras_affine(origins[0], columns),
        np.result_type(*{dtype_of(s.reader) for s in slices}),
    )


def _check_even(
    path: Path,
    slices: list[_Slice],
    origins: NDArray[np.float64],
    normal: NDArray[np.float64],
    step: NDArray[np.float64],
) -> None:
    apart = np.diff(origins @ normal)
    usual = float(np.median(apart))
    worst = int(np.argmax(np.abs(apart - usual)))
    between = f"between {slices[worst].path.name} and {slices[worst + 1].path.name}"
    remedy = "fetch the whole series again, or leave the scan out"
    if (apart < 1e-3).any():
        worst = int(np.argmin(apart))
        twins = f"{slices[worst].path.name} and {slices[worst + 1].path.name}"
        raise fault(path, f"holds several slices at one place ({twins})", "keep one volume of the series in the folder")
    if abs(apart[worst] - usual) > _UNEVEN * usual:
        what = "lacks slices" if apart[worst] > 1.5 * usual else "is unevenly spaced"
        raise fault(path, f"{what}: {between} are {apart[worst]:.3g} mm where others are {usual:.3g} mm apart", remedy)
    line = origins[0] + np.arange(len(slices))[:, None] * step
    if np.linalg.norm(origins - line, axis=1).max() > _UNEVEN * max(usual, *np.linalg.norm(slices[0].axes, axis=0)[:2]):
        raise fault(path, "has slices that are not in one line", remedy)


def read_slice(path: Path) -> Shaped[np.ndarray, "columns rows"]:
    """The pixels of one slice, rescaled.

    Raises:
      RuntimeError: they cannot be decoded.
    """
    return np.asarray(sitk.GetArrayFromImage(open_itk(path, _IO).Execute())[0].T)
