"""The folder of a built-in cohort: whole or not there, reused where it is the very same, never overwritten."""

import contextlib
import gzip
import json
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from numpy.typing import NDArray
from tqdm import tqdm

from tlseg_jax.geometry import Affine
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

T = TypeVar("T")

SEED = 0
"""Of all built-in cohorts, which share their persons."""

COHORT_FILE = "cohort.json"
"""Marks a folder of drawn scans, and holds the parameters that they were drawn from."""


def holds_cohort(folder: Path, parameters: dict[str, Any]) -> bool:
    """Whether `folder` already is this very cohort; False where there is nothing yet.

    Raises:
      InputError: something else is there.
    """
    if not folder.exists():
        return False
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder for the built-in cohort.")
    if not any(folder.iterdir()):
        return False
    try:
        found = json.loads((folder / COHORT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{folder} holds other files: name an empty or a new folder for the cohort.") from None
    except (OSError, ValueError) as e:
        raise InputError(f"{folder / COHORT_FILE} cannot be read ({e}): remove {folder}.") from None
    if found == parameters:
        return True
    differs = [k for k in parameters if not isinstance(found, dict) or found.get(k) != parameters[k]]
    raise InputError(
        f"{folder} holds another built-in cohort (different: {', '.join(differs) or 'extra fields'}): "
        "remove it, or name another folder."
    )


@contextlib.contextmanager
def filling_cohort(folder: Path, parameters: dict[str, Any], note: str) -> Iterator[Path]:
    """A folder to fill beside `folder`, which takes its place at the end with cohort.json and README.txt added.

    Where the body fails, nothing is left.

    Args:
      folder: absolute; absent or empty.

    Raises:
      InputError: nothing can be written there.
    """
    beside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        try:
            beside.mkdir(parents=True)
        except (PermissionError, FileExistsError, NotADirectoryError) as e:
            raise InputError(
                f"The built-in cohort cannot be written to {folder} ({e.strerror}): name another folder."
            ) from None
        yield beside
        with (beside / "README.txt").open("w", encoding="utf-8") as f:
            f.write(note)
            flush_file(f)
        write_json(beside / COHORT_FILE, parameters)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def drawn(draw: Callable[[int], T], numbers: range, workers: int, title: str, unit: str, progress: bool) -> Iterator[T]:
    """What `draw` gives of each number, in order, in threads and with a bar."""
    # Threads are enough: NumPy, SciPy and zlib let go of the interpreter while they work.
    pool = ThreadPoolExecutor(max(workers, 1))
    try:
        yield from tqdm(pool.map(draw, numbers), title, len(numbers), unit=unit, disable=not progress)
    finally:
        pool.shutdown(cancel_futures=True)


def write_nifti(path: Path, volume: NDArray[Any], affine: Affine, code: Literal["scanner", "aligned"]) -> None:
    """One NIfTI-1 file: fast compression, no time stamp, flushed to the disk."""
    import nibabel as nib  # training reads this module, and needs none

    image = nib.Nifti1Image(volume, affine)
    image.set_sform(affine, code)
    image.set_qform(affine, code)
    image.header.set_xyzt_units("mm")
    with path.open("wb") as raw:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=raw, mtime=0) as f:
            image.to_stream(f)
        flush_file(raw)


def flush_file(f: Any) -> None:
    """Bring an open file to the disk."""
    f.flush()
    os.fsync(f.fileno())
