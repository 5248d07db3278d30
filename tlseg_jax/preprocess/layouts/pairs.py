"""The pairs layout: a folder with `sub-1000_T1w.nii.gz`, `sub-1000_labels.nii.gz`, and the like."""

import re
from pathlib import Path
from typing import Literal

from tlseg_jax.preprocess.layouts.found import Candidates, Found, assemble, images_in, misplaced_dicom
from tlseg_jax.preprocess.reading.formats import stem_of

FileRole = Literal["image", "label", "mask"]

EXPECTED = "pairs such as sub-1_T1w.nii.gz and sub-1_labels.nii.gz in one folder"

_ENDINGS: tuple[tuple[FileRole, str], ...] = (
    ("mask", r"(?:brain[-_]?mask|desc-brain_mask|mask)"),
    ("label", r"(?:labels?|seg|dseg|segmentation)"),
    ("image", r"(?:T1w?|image|img)"),
)
_BEGINNINGS: tuple[tuple[FileRole, str], ...] = (
    ("mask", r"(?:brain[-_]?mask|mask)"),
    ("label", r"(?:labels?|seg|segmentation)"),
    ("image", r"(?:image|img|volume)"),
)


def role_of(stem: str) -> tuple[str, FileRole]:
    """The subject and the role that a file's name gives.

    The role stands last (`7_seg`, `7_T1w`, `7_mask`) or first (`segmentation-7`, `volume-7`), in
    any case; a name with none is an image.
    """
    for role, word in _ENDINGS:
        if match := re.fullmatch(rf"(.+?)[_.-]{word}", stem, re.IGNORECASE):
            return match.group(1), role
    for role, word in _BEGINNINGS:
        if match := re.fullmatch(rf"{word}[_.-](.+)", stem, re.IGNORECASE):
            return match.group(1), role
    return stem, "image"


def looks_like_pairs(source: Path, need_label: bool) -> bool:
    """Whether the folder holds images and, where they are needed, label maps."""
    roles = {role_of(stem_of(p) or "")[1] for p in images_in(source)}
    return "image" in roles and (not need_label or "label" in roles)


def find_pairs(source: Path, need_label: bool) -> Found:
    """The pairs of a folder (its sub-folders are not searched)."""
    candidates: dict[str, Candidates] = {}
    for path in images_in(source):
        subject, role = role_of(stem_of(path) or "")
        c = candidates.setdefault(subject, Candidates())
        {"image": c.images, "label": c.labels, "mask": c.masks}[role].append(path)
    return assemble("pairs", candidates, need_label, misplaced_dicom(source))
