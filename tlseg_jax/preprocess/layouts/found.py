"""What a search for scans gives, and the rules that every layout shares.

A layout only collects candidates: which files claim to be whose. `assemble` decides who is usable.
"""

import dataclasses
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from tlseg_jax.preprocess.reading.formats import dicom_files, is_dicom, is_dicom_folder, is_read, plain_name, stem_of
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.errors import InputError

_SAFE = re.compile(r"\w[\w.+=@ -]{0,118}[\w+=@-]|\w")  # a folder name on every file system
_LONGEST = 200  # bytes: file systems take 255, and a name gets an ending and, while it is written, another


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """A subject that is left out.

    Attributes:
      subject: its name, or where its row stands if it has none.
      reason: one sentence with the fault and the remedy.
    """

    subject: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Found:
    """The scans of a source.

    Attributes:
      layout: how the source is laid out: "pairs", "cases", "csv", "bids", "nnunet", or "file" for one image.
      scans: usable so far (no file was opened), sorted by subject.
      exclusions: what looked like a subject and cannot be used, sorted by subject.
    """

    layout: str
    scans: tuple[ScanFiles, ...]
    exclusions: tuple[Exclusion, ...] = ()


@dataclasses.dataclass
class Candidates:
    """The files that claim to be one subject's, as a layout collects them."""

    images: list[Path] = dataclasses.field(default_factory=list)
    labels: list[Path] = dataclasses.field(default_factory=list)
    masks: list[Path] = dataclasses.field(default_factory=list)
    split: str = ""
    person: str = ""
    marked: tuple[str, ...] = ()


def check_any(usable: int, exclusions: Sequence[Exclusion], source: Path) -> None:
    """Check that a scan is left.

    Raises:
      InputError: none is; it names the first reasons.
    """
    if usable:
        return
    if not exclusions:
        raise InputError(f"There is no scan in {source}: check `source` and `layout`.")
    first = " | ".join(f"{e.subject}: {e.reason}" for e in exclusions[:3])
    more = f" | and {len(exclusions) - 3} more" if len(exclusions) > 3 else ""
    raise InputError(f"No scan of {source} can be used. {first}{more}")


def images_in(folder: Path) -> list[Path]:
    """The images of a folder, sorted: files of their names and folders of DICOM files; none if it is no folder.

    Raises:
      InputError: the folder may not be read.
    """
    try:
        return sorted(p for p in folder.iterdir() if stem_of(p) is not None and (not p.is_dir() or is_dicom_folder(p)))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as e:
        raise InputError(f"The folder {folder} cannot be read ({e.strerror}): check its rights.") from None


def misplaced_dicom(source: Path) -> tuple[Exclusion, ...]:
    """An exclusion for DICOM files among the source's other images, and for each sub-folder with some deeper down."""
    out = []
    if not is_dicom_folder(source) and (first := next(dicom_files(source), None)):
        why = f"{source} holds DICOM files among other images, such as {first.name}: give each series its folder."
        out.append(Exclusion(source.name, why))
    for folder in sorted(p for p in source.iterdir() if p.is_dir() and not p.name.startswith(".")):
        if next(dicom_files(folder), None):
            continue
        for where, _, names in os.walk(folder):
            if names and is_dicom(Path(where) / min(names)):  # one a folder: a tree may hold many thousands of files
                why = f"{where} holds DICOM files: move that folder up into {source}, or list it in a CSV."
                out.append(Exclusion(folder.name, why))
    return tuple(out)


REPEATS = re.compile(r"(?<=.)(?:[_-]MR\d+|[_-](?:ses|session|run|visit)(?:-[A-Za-z0-9]+|[_-]?\d+))+$", re.IGNORECASE)
"""Endings of the names of one person's repeat scans: of OASIS, of BIDS, and as people write them."""


def person_of(subject: str) -> str:
    """Who was scanned, by the scan's name, in every layout that does not say it: the name without its repeat's ending.

    `OAS1_0001` of `OAS1_0001_MR2`, `pat3` of `pat3_ses-2_run-1`, and `sub-01` of whatever begins with `sub-01_`, as
    BIDS has it; else the subject.
    """
    if match := re.match(r"sub-[^_]+(?=_)", subject):
        subject = match.group()
    return REPEATS.sub("", subject)


def unsafe_name(subject: str) -> str:
    """What is wrong with a subject's name, which becomes a folder's; empty if nothing is."""
    # Vowel signs and combining accents (categories Mn, Mc) are parts of letters, which \w does not know.
    letters = "".join("a" if unicodedata.category(c)[0] == "M" else c for c in subject)
    if _SAFE.fullmatch(letters) and len(subject.encode("utf-8", "surrogateescape")) <= _LONGEST:
        return ""
    return (
        f"the subject name {subject!r} cannot name a folder: use at most 120 letters, digits, '-', '_', '.' (and "
        f"{_LONGEST} bytes), beginning with a letter or digit"
    )


def as_spelled(path: Path) -> Path:
    """The path that is there, if need be under another spelling of its names (see `plain_name`); else `path`."""
    if path.exists() or path.parent == path:
        return path
    folder = as_spelled(path.parent)
    try:
        return next((p for p in folder.iterdir() if plain_name(p.name) == plain_name(path.name)), path)
    except OSError:
        return path


def assemble(
    layout: str, candidates: Mapping[str, Candidates], need_label: bool, early: tuple[Exclusion, ...] = ()
) -> Found:
    """One `ScanFiles` for each subject that has one image and one label map; the others with reasons.

    Args:
      candidates: subject -> its files.
      need_label: whether a subject without a label map is excluded; if not, label maps are ignored.
      early: exclusions that the layout itself found.
    """
    scans: list[ScanFiles] = []
    exclusions = list(early)
    for subject, c in candidates.items():
        if not need_label and not c.images:
            continue  # a stray label map is of no concern where only images are wanted
        labels = c.labels if need_label else []
        if len(c.images) > 1:
            unread = [p for p in c.images if not is_read(p)]
            c.images = [p for p in c.images if is_read(p)] or unread[:1]
            for path in unread:
                if path not in c.images:
                    why = f"{path} is not read, and {c.images[0].name} is taken: remove it, or give it another name."
                    exclusions.append(Exclusion(path.name, why))
        reason = _fault(subject, c, labels, need_label)
        if reason:
            exclusions.append(Exclusion(subject, reason))
            continue
        label = labels[0] if labels else None
        mask = c.masks[0] if c.masks else None
        person = c.person or person_of(subject)
        scans.append(ScanFiles(subject, c.images[0], label, mask, c.split, person, c.marked))
    scans.sort(key=lambda s: s.subject)
    exclusions.sort(key=lambda e: e.subject)
    return Found(layout, tuple(scans), tuple(exclusions))


def _fault(subject: str, c: Candidates, labels: list[Path], need_label: bool) -> str:
    for kind, files in (("images", c.images), ("label maps", labels), ("brain masks", c.masks)):
        if len(files) > 1:
            names = " and ".join(str(p) for p in files[:4])
            more = f" and {len(files) - 4} more" if len(files) > 4 else ""
            return f"{subject} has {len(files)} {kind}, {names}{more}: keep one, or name it in a CSV list."
    if not c.images:
        return f"{subject} has no image, only {[*labels, *c.masks][0]}: add the scan or remove that file."
    if need_label and not labels:
        hint = f" ({c.masks[0].name} is taken as its brain mask)" if c.masks else ""
        return f"{c.images[0]} has no label map{hint}: add one, or leave the scan out."
    if labels and labels[0] == c.images[0]:
        return f"{c.images[0]} is both image and label map of {subject}: name two files."
    unsafe = unsafe_name(subject)
    return f"{c.images[0]}: {unsafe}." if unsafe else ""
