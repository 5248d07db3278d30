"""Compiled programs kept on the disk from one start to the next: bounded, private, and never in the way."""

import contextlib
import os
import re
import tempfile
import warnings
import zlib
from collections.abc import Mapping
from pathlib import Path

import jax

from tlseg_jax.runtime import allocator
from tlseg_jax.runtime.files import cache_folder

OFF = "off"
"""In place of a folder: nothing is kept."""

MAX_BYTES = 2 * 2**30
"""What the folder may grow to: some thousand programs."""

UNKEEPABLE = r"Error writing persistent compilation cache entry for .*std::bad_alloc"
"""What JAX says of a program with a oneDNN call (`models.lowering.onednn` says why)."""

_PROGRAM = re.compile(r".+-[0-9a-f]{64}-(cache|atime)")
"""JAX's name of a program: all else in a folder that the user has named may be the user's."""

_TUNING = "xla_gpu_"
"""Begins the names of XLA's own files and folders beside them."""

CHECKED = ".checked"
"""A file of the cache whose time says which programs have been read through already."""


def default_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """Where programs are kept unless the user says otherwise. Raises RuntimeError: the user has no home folder."""
    return cache_folder(environment) / "xla"


def set_up_jax(folder: str | None) -> str | None:
    """Before anything is computed: where programs run, and where they are kept (see `use_compilation_cache`)."""
    allocator.compute_in_caller()
    return use_compilation_cache(folder)


def use_compilation_cache(folder: str | None = None, *, max_bytes: int = MAX_BYTES) -> str | None:
    """Have JAX keep every program that it compiles from now on, and take from the folder what is there.

    A program's key covers its code, the compiler's version and flags, and the machine. JAX runs what it
    finds in the folder, so that nobody else should be able to write there; the default folder is made
    for its owner only.

    Args:
      folder: where, on a disk or, as in gs://..., in a bucket; "off" keeps nothing; None takes the default,
        or leaves all as it is where the environment's JAX_COMPILATION_CACHE_DIR names a folder.
      max_bytes: programs that were not used for longest are removed until the rest is no larger.

    Returns:
      A sentence for the user where programs cannot be kept; None otherwise. It is never an error: all
      works without the cache, only slower.
    """
    warnings.filterwarnings("ignore", UNKEEPABLE, UserWarning)
    if folder == OFF:
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    if folder is None and jax.config.values["jax_compilation_cache_dir"]:
        return None
    if folder and "://" in folder:  # JAX writes to buckets too; those have bounds of their own
        jax.config.update("jax_compilation_cache_dir", folder)
        return None
    try:
        kept = Path(folder).expanduser() if folder else default_folder()
        kept.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=kept):
            pass
        drop_broken(kept)
        drop_oldest(kept, max_bytes)
    except (OSError, RuntimeError) as e:
        reason = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        return (
            f"note: compiled programs cannot be kept in {folder or 'the cache folder of your account'} ({reason}), so "
            f"each start compiles them again: give `compilation_cache=DIR`, or {OFF} in its place."
        )
    jax.config.update("jax_compilation_cache_dir", str(kept))
    # By default JAX keeps only what took a second or more; a start has many smaller programs.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return None


def drop_oldest(folder: Path, max_bytes: int) -> None:
    """Remove JAX's files that were not used for longest until the rest take no more than `max_bytes`.

    JAX's own bound (`jax_compilation_cache_max_size`) wants one more package, and looks through the
    whole folder at each program that it writes. Where the file system keeps no times of reading, the
    time of writing counts.
    """
    found = []
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process may be doing the same
            status = path.stat()
            own = _PROGRAM.fullmatch(path.name) or path.relative_to(folder).parts[0].startswith(_TUNING)
            if own and path.is_file():
                found.append((max(status.st_atime, status.st_mtime), status.st_size, path))
    total = sum(size for _, size, _ in found)
    for _, size, path in sorted(found):
        if total <= max_bytes:
            return
        path.unlink(missing_ok=True)
        total -= size


def drop_broken(folder: Path) -> None:
    """Remove programs that a process was killed in the middle of writing.

    JAX writes them in place, refuses a torn one with a warning, and would never write it again. Files
    are read through once: those that are older than the last look are known to be whole. A program
    that another process is writing at this moment may be lost, which costs compiling it once more.
    """
    stamp = folder / CHECKED
    last = stamp.stat().st_mtime_ns if stamp.exists() else 0
    stamp.touch()
    for path in folder.glob("*-cache"):
        with contextlib.suppress(FileNotFoundError):
            if _PROGRAM.fullmatch(path.name) and path.stat().st_mtime_ns >= last and not _whole(path.read_bytes()):
                path.unlink(missing_ok=True)


def _whole(content: bytes) -> bool:
    """Whether compressed bytes are complete; those of another method than zlib's are taken to be."""
    if content[:1] != b"\x78":
        return bool(content)
    reader = zlib.decompressobj()
    try:
        reader.decompress(content)
    except zlib.error:
        return False
    return reader.eof
