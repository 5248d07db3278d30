"""The folders that paths, addresses in buckets and names of models stand for, as users give them."""

import contextlib
import dataclasses
from pathlib import Path

from tlseg_jax.checkpoints.shipped import shipped_model, shipped_names
from tlseg_jax.remote import entry
from tlseg_jax.remote.address import parse_address
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.studies.ensemble import NAME as ENSEMBLE
from tlseg_jax.studies.ensemble import runs_of

workdir, store = entry.work_folder, entry.read_folder
"""The folder that a path, an s3:// or a gs:// address stands for: to work in, and to read prepared data from."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A run and data that are there.

    Attributes:
      run: folder of a run that has trained.
      dataset: a data set's name or a TOML file.
      store: folder of the prepared data sets.
    """

    run: str
    dataset: str
    store: str


def entered() -> contextlib.AbstractContextManager[None]:
    """Have the body keep the folders that stand for addresses up to date (`remote`)."""
    return elsewhere.using(entry.Buckets())


def is_address(text: str) -> bool:
    """Whether a text is an address in a bucket. Raises InputError: it is one that is not usable."""
    return parse_address(text) is not None


def find_run(text: str) -> Path:
    """The run, or the model made from one, that a text names: fetched where it is in a bucket.

    A name of a model that comes with the package is that model, unless there is such a folder here.

    Raises:
      InputError: see `workdir`; or there is nothing in the bucket.
    """
    if text in shipped_names() and not Path(text).exists():
        return shipped_model(text)
    above, _, name = text.rpartition("/")
    folder = workdir(above, "") / name if name.endswith(".stablehlo") and above else workdir(text, "")
    if "://" in text and not folder.exists():
        raise InputError(f"There is nothing at {text}: give the address of a run that has trained.")
    return folder


def run_folders(text: str) -> list[Path]:
    """The runs or models that predict together: a list with commas, or the ensemble.json that a sweep wrote.

    Raises:
      InputError: see `find_run` and `ensemble.runs_of`.
    """
    if text.endswith(ENSEMBLE) and Path(text).is_file():
        return runs_of(Path(text))
    return [find_run(one) for one in text.split(",")]


def local(text: str, name: str) -> Path:
    """The path of a setting `name`, to be written here. Raises InputError: it is an address."""
    if is_address(text):
        raise InputError(f"`{name}={text}` is in a bucket: give a local folder, and copy that there.")
    return Path(text)
