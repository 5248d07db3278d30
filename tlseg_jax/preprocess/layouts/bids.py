"""The BIDS layout: T1 scans in `sub-*/[ses-*/]anat`, label maps and brain masks in `derivatives`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from tlseg_jax.preprocess.layouts.found import Candidates, Exclusion, Found, assemble, images_in
from tlseg_jax.preprocess.reading.formats import stem_of
from tlseg_jax.runtime.errors import InputError

EXPECTED = "BIDS: sub-*/[ses-*/]anat/*_T1w.nii.gz with *_dseg.nii.gz or *_label-*_mask.nii.gz in derivatives"

_OWN_SPACE = ("", "orig", "T1w", "individual", "scanner")
"""Values of the `space` entity that mean the scan's own voxels; others belong to a template."""


_DERIVED = ("space", "desc", "label", "res", "den", "hemi", "seg", "atlas")
"""Entities that say how a derivative was made, and not of which scan."""


def _entities(stem: str) -> tuple[dict[str, str], str]:
    """`sub-01_run-2_T1w` -> ({"sub": "01", "run": "2"}, "t1w")."""
    *pairs, suffix = stem.split("_")
    return {k: v for k, _, v in (p.partition("-") for p in pairs) if v}, suffix.lower()


def _scan(entities: dict[str, str]) -> dict[str, str]:
    """The entities that tell of which scan a file is."""
    return {k: v for k, v in entities.items() if k not in _DERIVED}


def _key(entities: dict[str, str]) -> frozenset[tuple[str, str]]:
    """Two files with one key are of one scan: `run-01` is `run-1`."""
    return frozenset((k, str(int(v)) if k == "run" and v.isdecimal() else v) for k, v in _scan(entities).items())


def _subject(entities: dict[str, str]) -> str:
    return "_".join(f"{k}-{v}" for k, v in _scan(entities).items())


def _raw_images(source: Path) -> Iterator[Path]:
    for person in sorted(source.glob("sub-*")):
        for anat in (person / "anat", *sorted(person.glob("ses-*/anat"))):
            for path in images_in(anat):
                if _entities(stem_of(path) or "")[1] == "t1w":
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


def find_bids(source: Path, need_label: bool, desc: str = "") -> Found:
    """The T1 scans of a BIDS folder; repeat scans (`ses`, `acq`, `run` and the like) share the person `sub-XX`.

    Args:
      need_label: see `find_scans`.
      desc: of several segmentations (dseg) of a scan that of this `desc`; "none" is that without.

    Raises:
      InputError: a `desc` is asked for that no segmentation has.
    """
    images: dict[frozenset[tuple[str, str]], Candidates] = {}
    names: dict[frozenset[tuple[str, str]], str] = {}
    for path in _raw_images(source):
        entities, _ = _entities(stem_of(path) or "")
        c = images.setdefault(_key(entities), Candidates())
        names.setdefault(_key(entities), _subject(entities))
        c.images.append(path)
    stray: list[Exclusion] = []
    descs: dict[frozenset[tuple[str, str]], set[str]] = {}
    for path in _derived(source):
        stem = stem_of(path)
        entities, suffix = _entities(stem or "")
        role = _role(entities, suffix)
        if stem is None or role is None or (role == "label" and not need_label):
            continue  # derivatives hold much else
        key = _key(entities)
        if role == "label" and suffix == "dseg":
            descs.setdefault(key, set()).add(entities.get("desc", "none"))
            if desc and entities.get("desc", "none") != desc:
                continue
        if key in images:
            (images[key].labels if role == "label" else images[key].masks).append(path)
        elif role == "label":
            stray.append(Exclusion(_subject(entities), _near_miss(path, key, names)))
    there = sorted(set().union(*descs.values()))
    if desc and need_label and desc not in there:
        raise InputError(f"No dseg of {source} has the desc '{desc}' (there are {', '.join(there) or 'none'}).")
    for key in [k for k, c in images.items() if not desc and len(c.labels) > 1 and len(descs.get(k, ())) > 1]:
        c, which = images.pop(key), ", ".join(sorted(descs[key]))
        reason = f"{names[key]} has {len(c.labels)} label maps with the desc {which}: say which with `desc=NAME`."
        stray.append(Exclusion(names[key], reason))
    return assemble("bids", {names[k]: c for k, c in images.items()}, need_label, tuple(stray))


def _near_miss(path: Path, key: frozenset[tuple[str, str]], names: dict[frozenset[tuple[str, str]], str]) -> str:
    """Why a label map is of no scan, with the scan of the same person that is nearest to it."""
    person = [k for k in key if k[0] == "sub"]
    near = min((k for k in names if set(person) <= k), key=lambda k: (len(k ^ key), names[k]), default=None)
    if near is None:
        return f"{path} has no T1w scan of that subject in anat: add the scan or remove the label map."
    differ = ", ".join(sorted({k for k, _ in near ^ key}))
    return (
        f"{path} has no T1w scan of the same entities; {names[near]}_T1w comes nearest and differs in {differ}: rename "
        "one of them, or name both in a CSV list."
    )
