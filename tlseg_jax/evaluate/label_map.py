"""A segmentation written as a label map that overlays on its scan in viewers: NIfTI, MGH, NRRD or MetaImage."""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from jaxtyping import Bool, Float32, Int, UInt8
from numpy.typing import NDArray

from tlseg_jax.geometry import Affine
from tlseg_jax.preprocess.reading.formats import META, MGH, NIFTI, NRRD, PAIR, extension_of, pair_of, parts_of
from tlseg_jax.preprocess.reading.header import nifti_class
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.reading.scan_file import open_plain
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import full_disk, make_folder

SUFFIXES = (*NIFTI, *MGH, ".nrrd", ".mha")
"""What a label map is written as: formats of one file, so that it is there whole or not at all."""

SAME = (
    {"": ".nii.gz"}
    | {e: e for e in SUFFIXES}
    | dict.fromkeys(NRRD, ".nrrd")
    | dict.fromkeys(META, ".mha")
    | dict.fromkeys(PAIR, ".nii.gz")
)
"""Ending of a scan -> that of a label map of its format, or NIfTI where it is a pair's or DICOM's."""

_GEOMETRY = (
    *("qform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("sform_code", "srow_x", "srow_y", "srow_z"),
    "xyzt_units",
)
_SCANNER = 1
"""NIfTI code for scanner coordinates, which is what an MGH file's own affine gives."""


def check_output(files: ScanFiles, path: Path) -> str:
    """Check where a label map is to go, which is best done before the work.

    Returns:
      The suffix of the name, one of `SUFFIXES`.

    Raises:
      InputError: the name is not one of a label map, or is one of the scan's own files.
    """
    for own in (files.image, files.label, files.mask):
        if own is not None and any(same_file(path, part) for part in (own, *parts_of(own))):
            raise InputError(
                f"The output {path} is a file of the input, which is never overwritten: choose another name."
            )
    for suffix in SUFFIXES:
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return suffix
    raise InputError(f"The output {path} is not named as a label map: end it with {', '.join(SUFFIXES)}.")


def save_label_map(
    label: Bool[np.ndarray, "x y z"] | Int[np.ndarray, "x y z"] | UInt8[np.ndarray, "x y z"],
    affine: Affine,
    files: ScanFiles,
    path: Path,
    before: Callable[[Path], None] = lambda _: None,
) -> None:
    """Write `label` with the geometry of the scan it belongs to, whole or not at all.

    From one NIfTI file to another, the affine's two forms, their codes and the units are copied
    bit for bit. Nothing else of the scan's header is: its free text and extensions may name a patient.

    Args:
      label: bool, written as 0 and 1, or values from 0, in the scan's own axes.
      affine: (4, 4) voxel -> RAS mm of the scan.
      files: the scan.
      path: the output; its folder is made if it is missing.
      before: called with the whole file before it takes its name.

    Raises:
      InputError: see `check_output`, or the folder cannot be made or written to.
    """
    largest = int(label.max(initial=0))
    kind = np.uint8 if largest < 256 else np.int16 if largest < 32768 else np.int32
    _save(label.astype(kind), affine, files, path, before)


def probabilities_path(path: Path) -> Path:
    """Where the probabilities of a label map at `path` go: NIfTI, beside it."""
    return structure_path(path, "probabilities", ".nii.gz")


def doubt_path(path: Path) -> Path:
    """Where the doubt of a label map at `path` goes, in per cent of the passes: NIfTI, beside it."""
    return structure_path(path, "doubt", ".nii.gz")


def structure_path(path: Path, structure: str, ending: str = "") -> Path:
    """Where a structure goes that the label map at `path` cannot tell: beside it, in its format or with an ending."""
    suffix = next(s for s in SUFFIXES if path.name.lower().endswith(s))
    return path.with_name(f"{path.name[: -len(suffix)]}_{structure}{ending or suffix}")


def save_probabilities(
    probability: Float32[np.ndarray, "x y z structures"],
    affine: Affine,
    files: ScanFiles,
    path: Path,
    before: Callable[[Path], None] = lambda _: None,
) -> None:
    """As `save_label_map`, for the structures' probabilities: a NIfTI file of four dimensions.

    Raises:
      InputError: see `save_label_map`.
    """
    _save(probability, affine, files, path, before)


def _save(voxels: NDArray[Any], affine: Affine, files: ScanFiles, path: Path, before: Callable[[Path], None]) -> None:
    suffix = check_output(files, path)
    make_folder(path.parent)
    beside = path.with_name(f".tmp.{os.getpid()}.{path.name[: -len(suffix)]}{suffix}")  # libraries go by the suffix
    try:
        if suffix in NIFTI:
            nib.save(_nifti(voxels, affine, files.image), beside)
        elif suffix in MGH:
            nib.save(nib.MGHImage(voxels, affine), beside)
        else:
            sitk.WriteImage(_itk(voxels, affine), str(beside), useCompression=True)
        with beside.open("rb+") as f:
            os.fsync(f.fileno())
        before(beside)
        beside.replace(path)
    except OSError as e:
        if full_disk(e):
            raise
        raise InputError(f"{path} cannot be written ({e.strerror}): choose another `output`.") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def same_file(a: Path, b: Path) -> bool:
    """Whether two paths are one file, through links too; a file that does not exist is no other's."""
    return a.resolve() == b.resolve() or (a.exists() and b.exists() and a.samefile(b))


def _nifti(voxels: NDArray[Any], affine: Affine, scan: Path) -> Any:
    # Others than NIfTI have nothing to copy: the affine says it all.
    source: Any = None
    extension = extension_of(scan)
    if extension in NIFTI + PAIR:
        with open_plain(pair_of(scan)[0] if extension in PAIR else scan) as f:  # nibabel opens no .Nii
            start = f.read(nib.Nifti2Header.sizeof_hdr)
        kind = nifti_class(start)
        source = kind and kind(start[: kind.sizeof_hdr], check=False)
    large = isinstance(source, nib.Nifti2Header) or max(voxels.shape) > 32767
    image = (nib.Nifti2Image if large else nib.Nifti1Image)(voxels, affine)
    image.header["cal_max"] = max(1, int(voxels.max()))
    image.header["descrip"] = b"tlseg_jax segmentation" if voxels.ndim == 3 else b"tlseg_jax probabilities"
    if source is None:
        image.set_qform(affine, _SCANNER)
        image.set_sform(affine, _SCANNER)
        image.header.set_xyzt_units("mm")
    else:
        for field in _GEOMETRY:
            image.header[field] = source[field]
        image.header["pixdim"][:4] = source["pixdim"][:4]
    return image


def _itk(voxels: NDArray[Any], affine: Affine) -> Any:
    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image
