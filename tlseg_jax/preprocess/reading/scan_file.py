"""Opening a scan's file, and the one sentence that says why it cannot be used."""

import contextlib
import gzip
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import SimpleITK as sitk
from nibabel import imageglobals
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer.mghformat import MGHError
from nibabel.spatialimages import HeaderDataError, HeaderTypeError

from tlseg_jax.preprocess.reading.scan import ExclusionError

AGAIN = "copy it again from its source"
"""The remedy for a damaged file."""


def fault(path: Path, what: str, remedy: str) -> ExclusionError:
    """The one sentence: which file, what is wrong with it, and what to do."""
    return ExclusionError(f"{path} {what}: {remedy}.")


@contextlib.contextmanager
def one_sentence(path: Path) -> Iterator[None]:
    """Turn whatever reading `path` raises into one `ExclusionError`, and keep the libraries quiet."""
    logger = imageglobals.logger
    was = logger.disabled
    logger.disabled = True
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            yield
    except ExclusionError:
        raise
    except FileNotFoundError:
        if path.is_symlink():
            raise fault(path, "is a link to a file that is not there", "fetch the file it names") from None
        raise fault(path, "does not exist", "check the path") from None
    except PermissionError:
        raise fault(path, "may not be read by this user", "change its permissions") from None
    except IsADirectoryError:
        raise fault(path, "is a folder, not a scan", "name the file in it") from None
    except EOFError:
        raise fault(path, "is cut short (its gzip data end too early)", AGAIN) from None
    except (zlib.error, gzip.BadGzipFile) as e:
        raise fault(path, f"is damaged, its gzip data do not decompress ({_brief(e)})", AGAIN) from None
    except MemoryError:
        raise fault(path, "does not fit in memory", "use a machine with more memory or resample it") from None
    except (
        ImageFileError,
        HeaderDataError,
        HeaderTypeError,
        MGHError,
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
        TypeError,
        KeyError,
    ) as e:
        raise fault(path, f"cannot be read ({_brief(e)})", "export the scan again as NIfTI") from None
    finally:
        logger.disabled = was
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)


def _brief(error: BaseException) -> str:
    """The telling line of a library's message, without a full stop: SimpleITK's last one, another's first."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    line = lines[-1].rpartition("]")[2].strip() if "SimpleITK" in lines[0] else lines[0]
    return line[:160].rstrip(".")


def is_gzipped(path: Path) -> bool:
    """Whether the name says that the file is gzipped."""
    return path.name.lower().endswith((".gz", ".mgz"))


def open_plain(path: Path) -> BinaryIO:
    """The file's bytes, decompressed where the name says that it is gzipped."""
    return gzip.open(path, "rb") if is_gzipped(path) else path.open("rb")  # type: ignore[return-value]
