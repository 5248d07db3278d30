"""What a store keeps of each subject beside its arrays: its record, or why it is excluded.

    STORE/hdt_c/subjects/sub-01.json             the record, and the files that it was made from
    STORE/hdt_c/subjects/sub-02.excluded.json    one sentence, and the files that it is about

A record is written after the arrays and taken away before they are replaced, so that wherever a process is killed a
record means whole arrays.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.preprocess.reading.formats import parts_of
from tlseg_jax.preprocess.reading.scan import ExclusionError, ScanFiles
from tlseg_jax.preprocess.store.provenance import checksums_of
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

_SOURCE = "source_files"
"""Key of a record's file, and of no manifest, for size, time and checksum of each of the subject's files."""

Records = dict[str, dict[str, Any]]
"""Subject -> what is kept of it."""

_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ENODEV, errno.ENXIO)


@dataclasses.dataclass(frozen=True)
class Job:
    """All that a worker needs for one subject.

    Attributes:
      files: where the subject's files are.
      source: size, time and SHA-256 of the files, by "image", "label" and "mask" (see `source_of`).
      fingerprint: of the checksums and of all settings; a record with the same one is up to date.
      settings: what may be chosen besides the spec; None where nothing may.
    """

    files: ScanFiles
    spec: DatasetSpec
    source: Mapping[str, Mapping[str, Any]]
    fingerprint: str
    folder: Path
    settings: Any = None


Reading = tuple[dict[str, Any], Callable[[Path], None]]
"""A subject's record, and what writes its arrays to a path."""


def origin(files: ScanFiles, *, mask: bool = True) -> dict[str, Any]:
    """Whose scan it is, where its files are, and what its label map marks where that is not all."""
    return {
        "person": files.person,
        "image": str(files.image),
        "label": str(files.label) if files.label else None,
        **({"mask": str(files.mask) if files.mask else None} if mask else {}),
        **({"marked": list(files.marked)} if files.marked else {}),
    }


def doubts_of(records: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What makes the numbers of subjects doubtful, a sentence a kind with all that it is true of."""
    kinds: dict[str, dict[str, str]] = {}
    for subject, record in records.items():
        for kind, sentence in record.get("details", {}).get("doubts", {}).items():
            kinds.setdefault(kind, {})[subject] = sentence
    return [
        next(iter(of.values()))
        if len(of) == 1
        else f"{len(of)} scans {kind} ({', '.join(of)}). {next(iter(of.values()))}"
        for kind, of in kinds.items()
    ]


def images_of(record: Mapping[str, Any]) -> set[str]:
    """What a subject's image is known by: its file's checksum, and its voxels', which other files may hold as well."""
    return {v for k in ("image_sha256", "image_voxels") if (v := record.get(k))}


def json_key(value: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json_if_any(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None where there is none that can be read."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def settings_that_differ_from(folder: Path, ours: Mapping[str, Any]) -> str:
    """In which settings what is prepared in `folder` differs from `ours`, in words; empty if in none."""
    theirs = read_json_if_any(folder / "settings.json")
    if theirs is None:
        return ""
    return "; ".join(
        f"{k} was {theirs.get(k)!r} and is now {ours.get(k)!r}"
        for k in sorted(ours.keys() | theirs.keys())
        if ours.get(k) != theirs.get(k)
    )


def check_kept(folder: Path, ours: Mapping[str, Any], overwrite: bool) -> None:
    """Note our settings, before the first subject is written.

    Raises:
      InputError: the folder was prepared with others, and is not to be overwritten.
    """
    differ = settings_that_differ_from(folder, ours)
    if differ and not overwrite:
        raise InputError(
            f"{folder} was prepared with other settings ({differ}): choose another `store` or `name`, or "
            "prepare it anew with `overwrite`."
        )
    if differ:  # it would describe volumes that are about to be replaced
        (folder / "manifest.json").unlink(missing_ok=True)
    write_json(folder / "settings.json", dict(ours))


def stamps_of(files: ScanFiles) -> dict[str, dict[str, int]]:
    """Size in bytes and time of change of a subject's files, by "image", "label" and "mask".

    Where neither has changed, the checksum is taken to be what it was; a file that cannot be looked at has no stamp.
    """
    stamps = {}
    for name, path in files.paths.items():
        with contextlib.suppress(OSError):
            seen = [part.stat() for part in parts_of(path)]
            stamps[name] = {"bytes": sum(s.st_size for s in seen), "changed_ns": max(s.st_mtime_ns for s in seen)}
    return stamps


def source_of(stamps: Mapping[str, Mapping[str, int]], checksums: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Stamps and checksums together, as a record's file holds them. The stamps are from before the checksums."""
    return {name: dict(stamps.get(name, {})) | {"sha256": sha} for name, sha in checksums.items()}


def kept_record(folder: Path, subject: str, fingerprint: str) -> dict[str, Any] | None:
    """A subject's record as the manifest has it, if its arrays are there and of this fingerprint; else None."""
    record = read_json_if_any(_record(folder, subject))
    if record is None or record.get("fingerprint") != fingerprint or not _group(folder, subject).exists():
        return None
    return {k: v for k, v in record.items() if k != _SOURCE}


def keep_exclusion(job: Job, reason: str) -> str:
    """Write why a subject is excluded, for whoever merges, and return it."""
    _check_there(job.folder)
    kept = {"subject": job.files.subject, "reason": reason, "fingerprint": job.fingerprint, _SOURCE: job.source}
    write_json(_excluded(job.folder, job.files.subject), kept)
    return reason


def keep(job: Job, read: Callable[[Job], Reading]) -> dict[str, Any] | str:
    """Read one subject, write its arrays and keep its record.

    Returns:
      The record, or one sentence that says why the subject is excluded.

    Raises:
      OSError: or what the libraries make of it: the result cannot be written, as on a full disk.
    """
    try:
        record, write = read(job)
    except ExclusionError as e:
        return keep_exclusion(job, str(e))
    except Exception as e:  # one scan that trips a library must not end the others' work
        return keep_exclusion(
            job, f"{job.files.image} failed with an unexpected {type(e).__name__} ({e}): please report this."
        )
    start = time.perf_counter()
    _check_there(job.folder)
    for path in (_record(job.folder, job.files.subject), _excluded(job.folder, job.files.subject)):
        path.unlink(missing_ok=True)  # what is kept of arrays that are about to be replaced
    write(_group(job.folder, job.files.subject).parent)
    record["seconds"]["write"] = round(time.perf_counter() - start, 3)
    write_json(_record(job.folder, job.files.subject), record | {_SOURCE: job.source})
    return record


def _check_there(folder: Path) -> None:
    """Raise FileNotFoundError where the folder has disappeared: none is made anew under an empty mount point."""
    if not (folder / "subjects").is_dir():
        raise FileNotFoundError(errno.ENOENT, "no such folder any more", str(folder / "subjects"))


def outcome(
    folder: Path, files: ScanFiles, fingerprint: Callable[[Mapping[str, str]], str]
) -> dict[str, Any] | str | None:
    """What is kept of a subject: its record, the reason why it is excluded, or None if neither is up to date.

    Its files are read only where their stamps are not those of what is kept.

    Args:
      fingerprint: from the files' checksums, under the settings of now.
    """
    kept = read_json_if_any(_record(folder, files.subject)), read_json_if_any(_excluded(folder, files.subject))
    stamps = stamps_of(files)
    known: dict[str, str] = {}
    for record in kept:
        known = known or _unchanged((record or {}).get(_SOURCE), stamps)
    wanted = fingerprint(known or checksums_of(files)) if any(kept) else ""
    record = kept_record(folder, files.subject, wanted)
    if record is not None:
        return record
    excluded = kept[1]
    return str(excluded["reason"]) if excluded and excluded.get("fingerprint") == wanted else None


def _unchanged(source: Any, stamps: Mapping[str, Mapping[str, int]]) -> dict[str, str]:
    """The kept checksums, if all files are what they were; else none."""
    if not isinstance(source, dict) or source.keys() != stamps.keys():
        return {}
    same = all({k: v for k, v in source[n].items() if k != "sha256"} == stamps[n] for n in stamps)
    return {n: str(source[n]["sha256"]) for n in source} if same else {}


def clear_leftovers(folder: Path, subjects: Iterable[str]) -> None:
    """Remove what a killed process left half written of these subjects; nobody may be at work on them."""
    names = tuple(f".{s}.{end}." for s in subjects for end in ("zarr", "json", "excluded.json"))
    for path in sorted((folder / "subjects").glob(".*.tmp")):
        if path.name.startswith(names):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a store that cannot be written any more into one sentence; a full disk is left for the command to tell.

    Raises:
      InputError: what is written may not be, or the store has disappeared.
    """
    try:
        yield
    except OSError as e:
        where = e.filename or folder
        if e.errno in _NOT_WRITABLE:
            raise InputError(
                f"{where} cannot be written ({e.strerror}): make {folder} writable, or choose another `store`; "
                "what is done is kept."
            ) from None
        if e.errno in _GONE:
            raise InputError(
                f"{folder} disappeared while it was being written ({where}: {e.strerror}): see that its disk is "
                "there and run the same command again, which goes on from what is done."
            ) from None
        raise


def _record(folder: Path, subject: str) -> Path:
    return folder / "subjects" / f"{subject}.json"


def _excluded(folder: Path, subject: str) -> Path:
    return folder / "subjects" / f"{subject}.excluded.json"


def _group(folder: Path, subject: str) -> Path:
    return folder / "subjects" / f"{subject}.zarr" / "zarr.json"
