"""The models that come with the package, each an exported folder (`export.model_folder`)."""

from pathlib import Path

from tlseg_jax.runtime.errors import InputError

FOLDER = Path(__file__).parents[1] / "shipped"


def shipped_names() -> tuple[str, ...]:
    """The names of all of them."""
    return tuple(sorted(folder.name for folder in FOLDER.iterdir() if folder.is_dir()))


def shipped_model(name: str) -> Path:
    """The folder of a model by name.

    Raises:
      InputError: no model of that name comes with the package.
    """
    if name not in shipped_names():
        raise InputError(f"No model named '{name}' comes with tlseg_jax: choose from {', '.join(shipped_names())}.")
    return FOLDER / name
