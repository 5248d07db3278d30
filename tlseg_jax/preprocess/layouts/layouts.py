"""Which files are whose: finds the scans of a source, whatever its layout, without opening one."""

from pathlib import Path
from typing import Literal, get_args

from tlseg_jax.preprocess.layouts import bids, cases, csv_list, nnunet, pairs
from tlseg_jax.preprocess.layouts.found import Candidates, Found, assemble, check_any, misplaced_dicom
from tlseg_jax.preprocess.reading.formats import EXTENSIONS, is_dicom, is_dicom_folder, stem_of
from tlseg_jax.runtime.errors import InputError

Layout = Literal["auto", "pairs", "cases", "csv", "bids", "nnunet"]

LAYOUTS: tuple[Layout, ...] = get_args(Layout)

_OF = {"pairs": pairs, "cases": cases, "csv": csv_list, "bids": bids, "nnunet": nnunet}


def find_scans(source: Path, layout: str = "auto", need_label: bool = True, desc: str = "") -> Found:
    """The scans of a folder, a CSV list or, for prediction, a single image.

    Args:
      source: a folder, a .csv file, or an image if no label is needed.
      layout: one of `LAYOUTS`. "auto" looks: a CSV list wins, being explicit; else the one of
        nnU-Net, BIDS, cases and pairs that fits.
      need_label: exclude the images that have no label map; if false, label maps are ignored.
      desc: of BIDS, which of several segmentations (see `find_bids`).

    Returns:
      Scans and exclusions; the scans are none if every subject is excluded (see `check_any`).

    Raises:
      InputError: the source does not exist, fits no layout or several, or is faulty as a whole.
    """
    if layout not in LAYOUTS:
        raise InputError(f"There is no layout '{layout}': choose from {', '.join(LAYOUTS)}.")
    try:
        is_folder, is_there = source.is_dir(), source.exists()
    except OSError as e:
        raise InputError(f"The source {source} cannot be read ({e.strerror}): check the path.") from None
    if not is_there:
        raise InputError(f"The source {source} does not exist: check the path.")
    if not is_folder or (is_dicom_folder(source) and not need_label):
        return _one_file(source, layout, need_label)
    try:
        if layout == "auto":
            layout = _look(source, need_label)
        if desc and layout != "bids":
            raise InputError(f"`desc={desc}` chooses among the label maps of BIDS, and {source} is '{layout}'.")
        return _find(source, layout, need_label, desc)
    except PermissionError as e:
        what = e.filename or source
        raise InputError(f"{what} may not be read by this user: change its permissions.") from None


def _find(source: Path, layout: str, need_label: bool, desc: str) -> Found:
    if layout == "csv":
        found = csv_list.find_csv(source, need_label)
    elif layout == "nnunet":
        found = nnunet.find_nnunet(source, need_label)
    elif layout == "cases":
        found = cases.find_cases(source, need_label)
    elif layout == "bids":
        found = bids.find_bids(source, need_label, desc)
    else:
        found = pairs.find_pairs(source, need_label)
    if not found.scans and not found.exclusions:
        raise InputError(f"{source} holds no scans of the layout '{layout}': expected {_OF[layout].EXPECTED}.")
    return found


def _one_file(source: Path, layout: str, need_label: bool) -> Found:
    if source.suffix.lower() in csv_list.LISTS and layout in ("auto", "csv"):
        return csv_list.find_csv(source, need_label)
    stem = source.stem if is_dicom(source) else stem_of(source)
    if stem is None or layout not in ("auto", "pairs"):
        raise InputError(
            f"The source {source} is neither folder, .csv list nor image (DICOM or {', '.join(EXTENSIONS)}): "
            "check the path and `layout`."
        )
    if need_label:
        raise InputError(f"The source {source} is a single image: give the folder with its label map.")
    return assemble("file", {pairs.role_of(stem)[0]: Candidates(images=[source])}, need_label)


def _look(source: Path, need_label: bool) -> str:
    """The layout that fits."""
    lists = csv_list.lists_in(source)
    if lists:
        return "csv"
    fits = {
        "nnunet": nnunet.looks_like_nnunet(source),
        "bids": bids.looks_like_bids(source),
        "cases": cases.looks_like_cases(source),
        "pairs": pairs.looks_like_pairs(source, need_label),
    }
    names = [name for name, fit in fits.items() if fit]
    if len(names) > 1:
        raise InputError(f"{source} could be {' or '.join(names)}: say which with `layout`.")
    if names:
        return names[0]
    if pairs.looks_like_pairs(source, need_label=False):
        return "pairs"  # images without label maps: each is excluded with that reason
    if deep := misplaced_dicom(source):
        check_any(0, deep, source)
    if not need_label:
        raise InputError(
            f"{source} holds no image that can be read: give a folder with scans in it, of the formats "
            f"{', '.join(EXTENSIONS)}, or each a folder of one DICOM series."
        )
    raise InputError(f"{source} holds no scans: looked for {'; '.join(of.EXPECTED for of in _OF.values())}.")
