"""Models by name: those that come with the package, each an exported folder (`export.model_folder`), and all others."""

from pathlib import Path

from tlseg_jax.checkpoints.exported import CARD
from tlseg_jax.remote.entry import work_folder
from tlseg_jax.runtime.errors import InputError

FOLDER = Path(__file__).parents[1] / "shipped"


def shipped_names() -> tuple[str, ...]:
    """The names of all of them."""
    return tuple(sorted(card.parent.name for card in FOLDER.glob(f"*/{CARD}")))


def shipped_model(name: str) -> Path:
    """The folder of a model by name.

    Raises:
      InputError: no model of that name comes with the package.
    """
    if name not in shipped_names():
        raise InputError(f"No model named '{name}' comes with tlseg_jax: choose from {', '.join(shipped_names())}.")
    return FOLDER / name


def find_run(text: str) -> Path:
    """The run, or the model made from one, that a text names: fetched where it is in a bucket.

    A name of a model that comes with the package is that model, unless there is such a folder here.

    Raises:
      InputError: see `work_folder`; or there is nothing in the bucket.
    """
    if text in shipped_names() and not Path(text).exists():
        return shipped_model(text)
    above, _, name = text.rpartition("/")
    folder = work_folder(above, "") / name if name.endswith(".stablehlo") and above else work_folder(text, "")
    if "://" in text and not folder.exists():
        raise InputError(f"There is nothing at {text}: give the address of a run that has trained.")
    return folder
