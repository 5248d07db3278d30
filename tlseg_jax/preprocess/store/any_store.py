"""A prepared data set of either kind, by what its manifest says."""

from pathlib import Path

from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store, is_prepared, read_manifest
from tlseg_jax.runtime import elsewhere
from tlseg_jax.runtime.errors import InputError

AnyStore = Store | SliceStore
"""A prepared data set of volumes or of slices."""


def open_any_store(given: Path | str) -> AnyStore:
    """Open a data set's folder, or the one that a record names.

    Raises:
      InputError: there is no manifest, or not one of ours; or there is no way to where it is kept.
    """
    place = elsewhere.current()
    folder = place.find(given) if isinstance(given, str) else given
    place.fetch(folder)
    manifest = read_manifest(folder)
    return (SliceStore if manifest.get("kind") == SliceStore.kind else Store)(folder, manifest)


def check_prepared(root: Path, name: str) -> None:
    """Check that a folder of prepared data sets holds that of a name or a TOML file, without opening it.

    Raises:
      InputError: it does not, where those that it holds are named if the name is no known one's; or see `get_spec`.
    """
    if is_prepared(root / name):
        return
    where = elsewhere.current().name(root)
    try:
        spec = get_spec(name)
    except InputError:
        held = sorted(p.name for p in root.iterdir() if is_prepared(p)) if root.is_dir() else []
        if not held or name.endswith(".toml"):
            raise
        raise InputError(
            f"{where} holds no prepared data set '{name}', but {', '.join(held)}: name one of these, or prepare it "
            "first."
        ) from None
    if not is_prepared(root / spec.name):
        raise not_prepared(where, spec.name)


def not_prepared(where: str, name: str) -> InputError:
    """The error for a folder of prepared data sets that lacks one."""
    return InputError(
        f"{where} holds no prepared data set '{name}': run 'tlseg prepare --dataset={name} --source=... "
        f"--store={where}' first."
    )


def open_named_store(root: Path, name: str) -> AnyStore:
    """Open the data set of a name or a TOML file in a folder of prepared ones.

    A store may have been prepared under another name (`prepare --name`): that folder's name works too.

    Raises:
      InputError: see `open_any_store` and `get_spec`.
    """
    return open_any_store(root / (name if is_prepared(root / name) else get_spec(name).name))
