"""The files that a prepared scan came from, read again: the scan and its label on the scan's own voxels."""

from pathlib import Path

from tlseg_jax.preprocess.reading.read import read_scan
from tlseg_jax.preprocess.reading.scan import ExclusionError, Scan, ScanFiles
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError


def original_scan(store: Store, subject: str) -> Scan:
    """A subject's scan and label as its files hold them, in the files' own axes.

    Raises:
      InputError: a file is not there any more, is not the one that was prepared, or cannot be read.
    """
    r = store.record(subject)
    paths = {kind: Path(r.get(kind) or "") for kind in ("image", "label")}
    files = ScanFiles(subject, paths["image"], paths["label"])
    for kind, found in checksums_of(files).items():
        what = f"{paths[kind]}, the {kind} that {subject} of {store.spec.name} was prepared from,"
        if not paths[kind].exists():
            raise InputError(f"{what} is not there: put it back, or prepare the data set again from where it lies now.")
        if found != r.get(f"{kind}_sha256"):
            raise InputError(f"{what} is another file now (its checksum differs): prepare the data set again.")
    try:
        return read_scan(files, store.spec.label_values)
    except ExclusionError as e:
        raise InputError(str(e)) from None
