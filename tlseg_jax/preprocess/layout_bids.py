"""The BIDS layout: T1 scans in `sub-*/[ses-*/]anat`, label maps and brain masks in `derivatives`."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tlseg_jax.preprocess.found import Candidates, Found, assemble, images_in, stem_of

EXPECTED = "BIDS: sub-*/[ses-*/]anat/*_T1w.nii.gz with *_dseg.nii.gz or *_label-*_mask.nii.gz in derivatives"

_OWN_SPACE = ("", "orig", "T1w", "individual", "scanner")
"""Values of the `space` entity that mean the scan's own voxels; others belong to a template."""


def _entities(stem: str) -> tuple[dict[str, str], str]:
    """`sub-01_run-2_T1w` -> ({"sub": "01", "run": "2"}, "T1w")."""
    *pairs, suffix = stem.split("_")
    return {k: v for k, _, v in (p.partition("-") for p in pairs) if v}, suffix


def _subject(entities: dict[str, str]) -> str:
    return "_".join(f"{k}-{entities[k]}" for k in ("sub", "ses", "run") if k in entities)


def _raw_images(source: Path) -> Iterator[Path]:
    for person in sorted(source.glob("sub-*")):
        for anat in (person / "anat", *sorted(person.glob("ses-*/anat"))):
            for path in images_in(anat):
                if re.search(r"_T1w$", stem_of(path) or ""):
                    yield path


def looks_like_bids(source: Path) -> bool:
    """Whether there is a T1 scan where BIDS keeps one."""
    return next(_raw_images(source), None) is not None


def _derived(source: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(source / "derivatives"):
        folders.sort()
        for name in sorted(names):
            if name.startswith("sub-"):
                yield Path(folder) / name


def _role(entities: dict[str, str], suffix: str) -> Literal["label", "mask"] | None:
    if entities.get("space", "") not in _OWN_SPACE:
        return None
    if suffix == "dseg" or (suffix == "mask" and "label" in entities):
        return "label"
    if suffix == "mask" and entities.get("desc") == "brain":
        return "mask"
    return None


def find_bids(source: Path, need_label: bool) -> Found:
    """The T1 scans of a BIDS folder; repeat scans (`ses`, `run`) share the person `sub-XX`."""
    candidates: dict[str, Candidates] = {}
    for path in _raw_images(source):
        entities, _ = _entities(stem_of(path) or "")
        c = candidates.setdefault(_subject(entities), Candidates(person=f"sub-{entities.get('sub', '')}"))
        c.images.append(path)
    for path in _derived(source):
        stem = stem_of(path)
        entities, suffix = _entities(stem or "")
        role = _role(entities, suffix)
        subject = _subject(entities)
        if stem is None or role is None or (role == "mask" and subject not in candidates):
            continue  # derivatives hold much else
        c = candidates.setdefault(subject, Candidates())
        (c.labels if role == "label" else c.masks).append(path)
    return assemble("bids", candidates, need_label)
