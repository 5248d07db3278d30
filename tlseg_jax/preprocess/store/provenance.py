"""Where a prepared data set comes from: checksums and versions."""

import datetime
import hashlib
import importlib.metadata
import platform
from pathlib import Path
from typing import Any

from tlseg_jax.phantoms.cohort_folder import COHORT_FILE
from tlseg_jax.preprocess.reading.formats import parts_of
from tlseg_jax.preprocess.reading.scan import ScanFiles
from tlseg_jax.preprocess.store.store import FORMAT
from tlseg_jax.runtime.files import write_json
from tlseg_jax.runtime.written import file_digest

PACKAGES = ("numpy", "scipy", "SimpleITK", "nibabel", "nilearn", "tensorstore", "tlseg-jax")


def checksums_of(files: ScanFiles) -> dict[str, str]:
    """SHA-256 of a subject's files, by "image", "label" and "mask"."""
    return {k: _sha256(p) for k, p in files.paths.items()}


def _sha256(path: Path) -> str:
    """The image's checksum; one that cannot be read is left for the reader to explain."""
    parts = parts_of(path)
    if len(parts) > 1:
        return hashlib.sha256(" ".join(f"{p.name} {_of_file(p)}" for p in parts).encode()).hexdigest()
    return _of_file(path)


def _of_file(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError as e:
        return f"unreadable: {e.strerror}"


def is_synthetic(source: Path) -> bool:
    """Whether the scans were drawn by us, by the file beside them: they must never pass for real ones."""
    return (source if source.is_dir() else source.parent).joinpath(COHORT_FILE).exists()


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a prepared volume."""
    out = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            out[name.replace("-", "_")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            out[name.replace("-", "_")] = "not installed as a package"
    return out


def write_manifest(folder: Path, **fields: Any) -> None:
    """Write manifest.json, which makes a folder a prepared data set: the fields, the format, versions and the time."""
    written = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = {"format": FORMAT, **fields, "versions": library_versions(), "written": written}
    write_json(folder / "manifest.json", manifest)
