"""Label maps without scans, from which images are drawn."""

import dataclasses
from pathlib import Path

from tlseg_jax.preprocess.layouts.csv_list import lists_in, lists_without
from tlseg_jax.preprocess.layouts.found import Candidates, Found, assemble, images_in
from tlseg_jax.preprocess.layouts.layouts import find_scans
from tlseg_jax.preprocess.layouts.pairs import role_of
from tlseg_jax.preprocess.reading.formats import stem_of
from tlseg_jax.runtime.errors import InputError


def find_maps(source: Path, layout: str = "auto", desc: str = "") -> Found:
    """The label maps of a source, each as the image and the label of its subject.

    Those of a folder of one kind of file, whatever their names, or of a list's column "image" where it has none of
    labels; else those of the scans that a layout finds.

    For the arguments see `find_scans`.

    Raises:
      InputError: there are none, or see `find_scans`.
    """
    plain = source.is_dir() and (layout == "pairs" or (layout == "auto" and not lists_in(source)))
    files = [p for p in images_in(source) if role_of(stem_of(p) or "")[1] != "mask"] if plain else []
    if len({role_of(stem_of(p) or "")[1] for p in files}) == 1:
        candidates: dict[str, Candidates] = {}
        for path in files:
            candidates.setdefault(stem_of(path) or "", Candidates()).images.append(path)
        found = assemble("maps", candidates, need_label=False)
    elif layout in ("auto", "csv") and lists_without(source, "label"):
        found = find_scans(source, "csv", need_label=False)
    else:
        found = find_scans(source, layout, desc=desc)
        found = dataclasses.replace(
            found, scans=tuple(dataclasses.replace(f, image=f.paths["label"]) for f in found.scans)
        )
    scans = tuple(dataclasses.replace(f, label=f.image, mask=None) for f in found.scans)
    if not scans and not found.exclusions:
        raise InputError(f"There is no label map in {source}: check `source` and `layout`.")
    return dataclasses.replace(found, scans=scans)
