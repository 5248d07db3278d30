"""Label maps without scans, from which images are drawn."""

import dataclasses
from pathlib import Path

from tlseg_jax.preprocess.layouts.found import Candidates, Found, assemble, images_in
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.layouts.pairs import role_of
from tlseg_jax.preprocess.reading.formats import stem_of
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.runtime.errors import InputError


def find_maps(source: Path, layout: str = "auto", desc: str = "") -> Found:
    """The label maps of a source, each as the image and the label of its subject, all for training.

    Those of a folder of one kind of file, whatever their names; else those of the scans that a layout finds.

    Args:
      source: a folder or a list.
      layout: see `find_scans`.
      desc: likewise.

    Raises:
      InputError: there are none, or see `find_scans`.
    """
    files = images_in(source) if layout in ("auto", "pairs") and source.is_dir() else []
    roles = {role_of(stem_of(p) or "")[1] for p in files}
    if len(roles) == 1 and roles != {"mask"}:
        candidates: dict[str, Candidates] = {}
        for path in files:
            stem = stem_of(path) or ""
            # "seg_01" is the map of "01", but nothing is gained by a name that is only a number.
            candidates.setdefault(stem, Candidates()).images.append(path)
        found = assemble("maps", candidates, need_label=False)
    else:
        found = find_scans(source, layout, desc=desc)
        found = dataclasses.replace(found, scans=tuple(_of_label(f) for f in found.scans if f.label))
    scans = tuple(dataclasses.replace(f, label=f.image, mask=None, split="train") for f in found.scans)
    if not scans and not found.exclusions:
        raise InputError(f"There is no label map in {source}: check `source` and `layout`.")
    return dataclasses.replace(found, scans=scans)


def _of_label(files: ScanFiles) -> ScanFiles:
    assert files.label is not None
    return dataclasses.replace(files, image=files.label)
