"""Data sets by name or from a TOML file: the papers', those of the factor study, and the user's own."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from tlseg_jax.datasets import factors
from tlseg_jax.datasets.fields import check_folder_name, check_known, check_none_missing, is_label, value_as
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid, VolumeGrid
from tlseg_jax.datasets.structures import MAX_EXCLUSIVE, MAX_STRUCTURES, check_structures, structures_from
from tlseg_jax.runtime.errors import InputError

_GRIDS = {g.kind: g for g in (VolumeGrid, PlaneGrid)}
_MOST = {True: MAX_EXCLUSIVE, False: MAX_STRUCTURES}
"""Structures that one byte a voxel can tell apart, where they exclude each other and where not."""

BUILT_IN = Path(__file__).parent / "files"
"""TOML files of further data sets that are known by name."""


def get_spec(name_or_path: str, above: tuple[Path, ...] = ()) -> DatasetSpec:
    """The spec of a name in the papers or of `BUILT_IN`, or of a TOML file with the same fields (and `kind`).

    Args:
      name_or_path: the name, that of a factor data set (`datasets.factors`), or a path that ends in ".toml".
      above: files whose `base` led here, to stop a circle.

    Raises:
      InputError: neither a known name (the nearest is suggested) nor a readable TOML file.
    """
    if name_or_path in PAPERS:
        return PAPERS[name_or_path]
    known = {p.stem: p for p in sorted(BUILT_IN.glob("*.toml"))}
    if name_or_path in known or name_or_path.endswith(".toml"):
        path = known.get(name_or_path, Path(name_or_path))
        return spec_from_dict(_read_toml(path), str(path), (*above, path.resolve()))
    if factors.is_factor_name(name_or_path):
        return factors.factor_spec(factors.parse_name(name_or_path))
    names = [*PAPERS, *known]
    near = difflib.get_close_matches(name_or_path.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(names)}"
    raise InputError(f"There is no data set named '{name_or_path}': {hint} (or give a .toml file).")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"The data set file {path} does not exist: check the path.") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as e:
        raise InputError(f"The data set file {path} cannot be read as TOML ({e}): correct it.") from None


def spec_from_dict(values: Mapping[str, Any], where: str, above: tuple[Path, ...] = ()) -> DatasetSpec:
    """A spec from plain values; `base = "hdt_c"` starts from that data set's values.

    Args:
      values: the fields of `DatasetSpec` and of its grid, which is that of their `kind`, or else of the base's, or else
        of volumes.
      where: the file they came from, for messages.
      above: files whose `base` led here, to stop a circle.

    Raises:
      InputError: a circle of bases, or a field that is missing, unknown or of the wrong form.
    """
    given = dict(values)
    base = given.pop("base", None)
    of_base = None
    if base is not None:
        if not isinstance(base, str):
            raise InputError(f"{where}: base = {base!r} must be the name of a data set, or a .toml file.")
        if Path(base).resolve() in above:
            raise InputError(f"{where}: base = {base!r} leads back to itself: start from another data set.")
        of_base = get_spec(base, above)
    kind = given.pop("kind", of_base.kind if of_base else "volumes")
    if not isinstance(kind, str) or kind not in _GRIDS:
        raise InputError(f"{where}: kind = {kind!r} must be {' or '.join(_GRIDS)}.")
    if of_base:
        if of_base.kind != kind:
            raise InputError(
                f"{where}: base = {base!r} is a data set of {of_base.kind}, not of {kind}: start from another data set."
            )
        # A structure of volumes that is named takes the base's place, with its values; so does any table of them.
        of_volumes = kind == "volumes" and {"structure", "structures"} & given.keys()
        named = of_volumes or isinstance(given.get("structures"), dict)
        replaced = ("kind", "structures", "label_values") if named else ("kind",)
        given = {k: v for k, v in of_base.to_dict().items() if k not in replaced} | given
    given = _structures(given, where)
    if given.get("spacing") == "various" or (kind == "volumes" and "spacing" not in given):
        given["spacing"] = None  # TOML has no null: an absent spacing is a varying one
    grid = _GRIDS[kind]
    fields = {f.name: f for of in (DatasetSpec, grid) for f in dataclasses.fields(of) if f.name != "grid"}
    hints = get_type_hints(grid, include_extras=True) | get_type_hints(DatasetSpec, include_extras=True)
    check_known(given, fields, where)
    check_none_missing([k for k, f in fields.items() if f.default is dataclasses.MISSING and k not in given], where)
    given = {k: value_as(hints[k], v, f"{where}: {k} = {v!r}") for k, v in given.items()}
    of_grid = {f.name for f in dataclasses.fields(grid)}
    own = {k: v for k, v in given.items() if k not in of_grid}
    made = grid(**{k: v for k, v in given.items() if k in of_grid})  # type: ignore[arg-type]
    own = {"exclusive": grid.exclusive} | own | {"split_group": given.get("split_group") or given["name"]}
    return check_spec(DatasetSpec(grid=made, **own), where)


def check_spec(spec: DatasetSpec, where: str) -> DatasetSpec:
    """The spec, if its fields fit each other.

    Raises:
      InputError: they do not.
    """
    check_folder_name(spec.name, where)
    check_structures(spec.structures, spec.label_values, spec.exclusive, _MOST[spec.exclusive], where)
    if fault := spec.grid.fault():
        raise InputError(f"{where}: {fault}")
    if spec.kind == "slices" and not all(spec.label_values):  # whose planes are read one by one, none of which has all
        raise InputError(f"{where}: label_values must give the values of each of {spec.shown}.")
    if spec.kind == "slices" and spec.grid.flip_left_right and spec.mirrored is None:
        raise InputError(f"{where}: flip_left_right needs each of {spec.shown} with its partner of the other side.")
    if spec.unmarked_value is not None and not spec.exclusive and len(spec.structures) == MAX_STRUCTURES:
        raise InputError(f"{where}: no byte is left for unmarked_value beside {MAX_STRUCTURES} structures: name fewer.")
    if spec.mirror_pairs and any(n not in spec.structures for two in spec.mirror_pairs for n in two):
        raise InputError(f"{where}: mirror_pairs {spec.mirror_pairs} must be pairs of {spec.shown}.")
    return spec


def changed_spec(spec: DatasetSpec, given: Mapping[str, Any], structures: str | None, where: str) -> DatasetSpec:
    """The data set with what is given, and with what follows from that.

    Args:
      spec: the data set.
      given: field -> value.
      structures: they and their label values, see `structures_from`; None keeps them.
      where: what asks for it, for messages.

    Raises:
      InputError: the structures cannot be read, or the values do not fit each other.
    """
    changes = dict(given)
    if structures is not None:
        names, values = structures_from(structures)
        changes |= {"structures": names, "label_values": values}
        if isinstance(spec.grid, PlaneGrid):
            changes["other_values"] = "background"
    if "window" in given:
        changes["scaling"] = "window"
    if "test_volumes" in given:
        changes["test_slices"] = 0  # the rule that was asked for is the one that counts
    spec = spec.changed(**changes)
    if "pixel_mm" in given and spec.planes.resize != "spacing":
        raise InputError(
            f"`pixel_mm` is for `resize=spacing`, and it is {spec.planes.resize}: give that, or leave it out."
        )
    return check_spec(spec, where)


def _structures(given: dict[str, Any], where: str) -> dict[str, Any]:
    """The fields with `structures` and `label_values` as lists.

    A file may have a table `[structures]` of names and values, or one `structure` with its `label_values`, as all had
    once.
    """
    given = dict(given)
    if "structure" in given:
        if "structures" in given:
            raise InputError(f"{where} has structure and structures: keep the second.")
        given["structures"] = [given.pop("structure")]
    if isinstance(given.get("structures"), dict):
        if "label_values" in given:
            raise InputError(f"{where} has label_values beside a table of structures, which has them: leave them out.")
        table = given["structures"]
        given["structures"] = list(table)
        given["label_values"] = [v if isinstance(v, list | tuple) else [v] for v in table.values()]
    values = given.get("label_values")
    if values == "all" or (isinstance(values, list | tuple) and all(map(is_label, values))):
        given["label_values"] = [["all"] if values == "all" else values]
    return given
