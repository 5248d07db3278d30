"""The files that a prepared scan came from, read again: the scan and its label on the scan's own voxels."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from nibabel.orientations import apply_orientation, io_orientation

from tlseg_jax.preprocess.reading.header import read_header
from tlseg_jax.preprocess.reading.label_codes import read_label_codes
from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.same_grid import read_others, turn_onto, turned
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan, ScanFiles
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError


def original_scan(store: Store, subject: str) -> Scan:
    """A subject's scan and label as its files hold them, in the files' own axes.

    Raises:
      InputError: a file is not there any more, is not the one that was prepared, or cannot be read.
    """
    try:
        return read_scan(_files(store, subject), store.spec.labels)
    except ExclusionError as e:
        raise InputError(str(e)) from None


def original_planes(store: SliceStore, subject: str) -> UInt8[np.ndarray, "samples x y"]:
    """Bits of a volume's samples on the scan's own pixels, as its label file holds them.

    Raises:
      InputError: a file is not there any more, is not the one that was prepared, or cannot be read.
    """
    files, r = _files(store, subject), store.record(subject)
    assert files.label is not None
    try:
        header = read_header(files.image, single_slice=True)
        of_label = read_others(files, header, single_slice=True)[0][files.label]
        codes = turned(read_label_codes(files.label, of_label, store.spec.labels).codes, turn_onto(header, of_label))
    except ExclusionError as e:
        raise InputError(str(e)) from None
    whole = apply_orientation(codes, io_orientation(header.affine))
    return np.stack([whole[:, :, r["planes"][p]] for p in r["samples"]])


def _files(store: AnyStore, subject: str) -> ScanFiles:
    """Where they are, checked."""
    r = store.record(subject)
    paths = {kind: Path(r.get(kind) or "") for kind in ("image", "label")}
    files = ScanFiles(subject, paths["image"], paths["label"])
    for kind, found in checksums_of(files).items():
        what = f"{paths[kind]}, the {kind} that {subject} of {store.spec.name} was prepared from,"
        if not paths[kind].exists():
            raise InputError(f"{what} is not there: put it back, or prepare the data set again from where it lies now.")
        if found != r.get(f"{kind}_sha256"):
            raise InputError(f"{what} is another file now (its checksum differs): prepare the data set again.")
    return files
