"""The cases layout: a folder a case, with `artery.nii` and `label.nii` (Wang & Tang 2020, section 1.1)."""

from pathlib import Path

from tlseg_jax.preprocess.layouts.found import Candidates, Exclusion, Found, assemble, images_in
from tlseg_jax.preprocess.reading.formats import dicom_files, plain_name, stem_of

EXPECTED = "a folder a case with artery.nii (or DICOM files) and label.nii"

IMAGE_NAMES = ("artery", "image", "volume")
LABEL_NAMES = ("label", "labels", "seg", "segmentation")


def _folders(source: Path) -> list[Path]:
    return sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith("."))


def _named(folder: Path, names: tuple[str, ...]) -> list[Path]:
    return [p for p in images_in(folder) if (stem_of(p) or "").lower() in names]


def _images(folder: Path) -> list[Path]:
    """The image of a case, or the folder itself where it holds DICOM files beside files of these names."""
    loose = [folder] if _named(folder, LABEL_NAMES + IMAGE_NAMES) and any(dicom_files(folder)) else []
    return _named(folder, IMAGE_NAMES) + loose


def looks_like_cases(source: Path) -> bool:
    """Whether a sub-folder holds an image of one of the names, or DICOM files and a label map."""
    return any(_images(folder) for folder in _folders(source))


def find_cases(source: Path, need_label: bool) -> Found:
    """The cases of a folder: the sub-folder's name is the subject.

    A sub-folder with images of other names alone is excluded and named; one with no image is no case.
    """
    candidates: dict[str, Candidates] = {}
    early: list[Exclusion] = []
    for folder in _folders(source):
        images, labels = _images(folder), _named(folder, LABEL_NAMES)
        others = images_in(folder)
        if images or labels:
            candidates[plain_name(folder.name)] = Candidates(images=images, labels=labels)
        elif others:
            reason = f"{folder} holds neither artery.nii nor label.nii, only {others[0].name}: rename its files."
            early.append(Exclusion(folder.name, reason))
    return assemble("cases", candidates, need_label, tuple(early))
