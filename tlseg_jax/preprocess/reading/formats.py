"""Which names are images, and which files make one: the one place that knows the endings.

An image is a file, a pair of files (`.hdr` and `.img`), a header with its data beside it (`.mhd`, `.nhdr`), or a folder
that holds a DICOM series. Endings are compared in lower case.
"""

import contextlib
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

NIFTI = (".nii.gz", ".nii")
MGH = (".mgz", ".mgh")
PAIR = (".hdr", ".img")
NRRD = (".nrrd", ".nhdr")
META = (".mha", ".mhd")
DICOM = (".dcm", ".ima")
"""A DICOM file need not be named as one: see `is_dicom`."""

EXTENSIONS = NIFTI + MGH + NRRD + META + PAIR
"""Names of files that are read, each as one image; besides these, folders with a DICOM series are."""

NOT_READ = {
    ".mnc": "MINC",
    ".mnc.gz": "MINC",
    ".par": "Philips PAR/REC",
    ".gipl": "GIPL",
    ".gipl.gz": "GIPL",
    ".vtk": "VTK",
    ".vti": "VTK",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".lsm": "LSM",
    ".head": "AFNI",
    ".nii.bz2": "bzip2",
    ".nii.xz": "xz",
    ".nii.zst": "Zstandard",
    ".nii.zip": "zip",
    ".hdr.gz": "a gzipped .hdr",
    ".img.gz": "a gzipped .img",
    ".nrrd.gz": "a gzipped NRRD",
    ".mha.gz": "a gzipped MHA",
}
"""Endings of images that are not read -> what they are. They are found, so that none is left out unsaid."""

_DATA_FILE = re.compile(rb"^(?:ElementDataFile\s*=|data file\s*:)\s*(.+?)\s*$", re.IGNORECASE | re.MULTILINE)
_MAGIC = slice(128, 132)


def extension_of(path: Path) -> str:
    """The ending of a file that is named as an image, in lower case, the longest that fits; else empty."""
    name = path.name.lower()
    fits = [e for e in (*EXTENSIONS, *NOT_READ) if name.endswith(e) and len(name) > len(e)]
    return max(fits, key=len, default="")


def stem_of(path: Path) -> str | None:
    """The image's name without its ending, or None if it is neither named as one nor a folder of DICOM files.

    Hidden files are none: archives made on a Mac hold a `._name.nii.gz` beside every `name.nii.gz`. Nor is an `.img`
    with its `.hdr` beside it.
    """
    name, extension = path.name, extension_of(path)
    if name.startswith("."):
        return None
    if not extension:
        return plain_name(name) if is_dicom_folder(path) else None
    if extension in (".img", ".img.gz") and _beside(path, extension.replace("img", "hdr")):
        return None
    return plain_name(name[: -len(extension)])


def plain_name(name: str) -> str:
    """A file's name as text in one form: accents composed (NFC), and bytes that are not UTF-8 read as Latin-1.

    A Mac decomposes "é", so image, label map and list may spell one name in two ways.
    """
    raw = name.encode("utf-8", "surrogateescape")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return unicodedata.normalize("NFC", text)


def is_read(path: Path) -> bool:
    """Whether an image is of a format that is read."""
    return extension_of(path) not in NOT_READ


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM, by its name or its magic bytes; the list that a DICOMDIR is counts as none."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR" or extension_of(path) or not path.is_file():
        return False
    if path.name.lower().endswith(DICOM):
        return True
    with contextlib.suppress(OSError), path.open("rb") as f:
        return f.read(_MAGIC.stop)[_MAGIC] == b"DICM"
    return False


def dicom_files(folder: Path) -> Iterator[Path]:
    """The DICOM files of a folder, sorted by name."""
    return (p for p in sorted(folder.iterdir()) if is_dicom(p))


def is_dicom_folder(path: Path) -> bool:
    """Whether a folder is an image by itself: it holds DICOM files, and no file that is named as an image."""
    try:
        return (
            path.is_dir()
            and not any(extension_of(p) and not p.name.startswith(".") for p in path.iterdir())
            and any(dicom_files(path))
        )
    except OSError:
        return False


def pair_of(path: Path) -> tuple[Path, Path]:
    """Header and data of an image in two files, given either; the same letter case is tried first."""
    head = path if extension_of(path) == ".hdr" else _beside(path, ".hdr") or path.with_suffix(".hdr")
    return head, _beside(head, ".img") or head.with_suffix(".img")


def _beside(path: Path, extension: str) -> Path | None:
    stem = path.name[: -len(extension)]
    tries = (path.with_name(stem + e) for e in (extension, extension.upper(), extension.lower()))
    return next((p for p in tries if p.exists()), None)


def parts_of(path: Path) -> tuple[Path, ...]:
    """All files that an image is made of: what a checksum must cover and an output must not touch."""
    extension = extension_of(path)
    if extension in PAIR:
        return pair_of(path)
    with contextlib.suppress(OSError):
        if path.is_dir():
            return tuple(dicom_files(path)) or (path,)
        if is_dicom(path):
            return tuple(dicom_files(path.parent))
        if extension in (".mhd", ".nhdr") and (data := data_file(path)) is not None:
            return (path, data)
    return (path,)


def data_file(path: Path) -> Path | None:
    """The file with the voxels that a `.mhd` or `.nhdr` header names, if it is one file of its own."""
    with path.open("rb") as f:
        found = _DATA_FILE.search(f.read(1 << 16))
    name = found.group(1).decode("utf-8", "replace") if found else ""
    return None if not name or name.split()[0] in ("LOCAL", "LIST") or "%" in name else path.parent / name
