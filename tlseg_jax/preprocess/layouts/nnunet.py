"""The nnU-Net and Decathlon layouts: `imagesTr` and `labelsTr`, `imagesTs` and `labelsTs`, `dataset.json`.

nnU-Net names a case's channels CASE_0000.nii.gz, CASE_0001.nii.gz, ... and its label map CASE.nii.gz;
the Decathlon gives image and label map the same name.
"""

import json
import re
from pathlib import Path
from typing import Any

from tlseg_jax.preprocess.layouts.found import Candidates, Found, assemble, images_in
from tlseg_jax.preprocess.reading.formats import EXTENSIONS, stem_of
from tlseg_jax.runtime.errors import InputError

EXPECTED = "nnU-Net or Decathlon: imagesTr, labelsTr and dataset.json"

_CHANNEL = re.compile(r"(.+)_(\d{4})")


def looks_like_nnunet(source: Path) -> bool:
    """Whether the folder has `imagesTr`."""
    return (source / "imagesTr").is_dir()


def find_nnunet(source: Path, need_label: bool) -> Found:
    """The cases of an nnU-Net or Decathlon folder.

    Where `labelsTs` has label maps, their cases are the test split and `imagesTr` the training
    split; else `imagesTs` is left alone and the split is open. Without labels, all images are taken.

    Raises:
      InputError: no `imagesTr`, an unreadable `dataset.json`, files of another format, or several
        channels.
    """
    if not looks_like_nnunet(source):
        raise InputError(f"{source} has no imagesTr: expected {EXPECTED}.")
    about = _read_dataset_json(source / "dataset.json")
    has_test = need_label and bool(images_in(source / "labelsTs"))
    parts = [("Tr", "train" if has_test else "")]
    if has_test or not need_label:
        parts.append(("Ts", "test" if has_test else ""))
    candidates: dict[str, Candidates] = {}
    for part, split in parts:
        images = images_in(source / f"images{part}")
        labels = images_in(source / f"labels{part}")
        stems = {stem_of(p) or "" for p in labels}
        for path, case in _cases(source, images, stems, about):
            c = candidates.setdefault(case, Candidates(split=split))
            c.images.append(path)
        for path in labels:
            candidates.setdefault(stem_of(path) or "", Candidates(split=split)).labels.append(path)
    return assemble("nnunet", candidates, need_label)


def _read_dataset_json(path: Path) -> dict[str, Any]:
    """The description, checked for what would make the files unusable; empty if there is none."""
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as e:
        raise InputError(f"{path} cannot be read as JSON ({e}): correct it or restore it.") from None
    if not isinstance(about, dict):
        raise InputError(f"{path} must hold a JSON object: restore it from the data set.")
    channels = about.get("channel_names", about.get("modality", {}))
    if isinstance(channels, dict | list) and len(channels) > 1:
        names = ", ".join(map(str, channels.values() if isinstance(channels, dict) else channels))
        raise InputError(
            f"{path} lists {len(channels)} channels ({names}) and one is used: make a data set of one "
            "channel, or name its files in a CSV list."
        )
    ending = about.get("file_ending", ".nii.gz")
    if str(ending).lower() not in EXTENSIONS:
        raise InputError(
            f"{path} says that the files end in '{ending}': convert them to one of {', '.join(EXTENSIONS)}."
        )
    return about


def _cases(source: Path, images: list[Path], label_stems: set[str], about: dict[str, Any]) -> list[tuple[Path, str]]:
    """(image, case); the naming is judged by all files together, not file by file."""
    named = [(p, stem_of(p) or "") for p in images]
    matches = [(p, _CHANNEL.fullmatch(stem)) for p, stem in named]
    same_name = any(stem in label_stems for _, stem in named)
    numbered = [(p, m) for p, m in matches if m is not None]
    if same_name or len(numbered) < len(named):
        return named
    # With nothing to compare with, case_0007 could be the Decathlon's seventh case.
    is_nnunet = (
        "channel_names" in about
        or any(m.group(1) in label_stems for _, m in numbered)
        or all(m.group(2) == "0000" for _, m in numbered)
    )
    if not is_nnunet:
        return named
    others = [p.name for p, m in numbered if m.group(2) != "0000"]
    if others:
        raise InputError(
            f"{source} has several channels a case (such as {others[0]}) and one is used: make a data set "
            "of one channel, or name its files in a CSV list."
        )
    return [(p, m.group(1)) for p, m in numbered]
