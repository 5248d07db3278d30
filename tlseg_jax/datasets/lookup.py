"""Data sets by name or from a TOML file: the papers', those of the factor study, and the user's own."""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from tlseg_jax.datasets import factors
from tlseg_jax.datasets.fields import check_folder_name, check_known, check_none_missing, is_label, is_number
from tlseg_jax.datasets.slice_spec import MAX_STRUCTURES, SLICE_SPECS, SliceSpec, slice_spec_from_dict
from tlseg_jax.datasets.spec import DIVISOR, PAPER_SPECS, AnySpec, DatasetSpec, Normalise, Space
from tlseg_jax.datasets.structures import MAX_EXCLUSIVE, check_structures
from tlseg_jax.runtime.errors import InputError


def get_any_spec(name_or_path: str, above: tuple[Path, ...] = ()) -> AnySpec:
    """The spec of a name in the papers, or of a TOML file with the same fields (`kind = "slices"` for slices).

    Args:
      name_or_path: the name, that of a factor data set (`datasets.factors`), or a path that ends in ".toml".
      above: files whose `base` led here, to stop a circle.

    Raises:
      InputError: neither a known name (the nearest is suggested) nor a readable TOML file.
    """
    known: Mapping[str, AnySpec] = {**PAPER_SPECS, **SLICE_SPECS}
    if name_or_path in known:
        return known[name_or_path]
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        return any_spec_from_dict(_read_toml(path), str(path), (*above, path.resolve()))
    if factors.is_factor_name(name_or_path):
        return factors.factor_spec(factors.parse_name(name_or_path))
    near = difflib.get_close_matches(name_or_path.lower(), known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(known)}"
    raise InputError(f"There is no data set named '{name_or_path}': {hint} (or give a .toml file).")


def get_spec(name_or_path: str, above: tuple[Path, ...] = ()) -> DatasetSpec:
    """As `get_any_spec`, where only a data set of volumes will do.

    Raises:
      InputError: also for a data set of slices.
    """
    spec = get_any_spec(name_or_path, above)
    if isinstance(spec, SliceSpec):
        raise InputError(f"{name_or_path} is a data set of slices, and one of volumes is wanted here: name another.")
    return spec


def any_spec_from_dict(values: Mapping[str, Any], where: str, above: tuple[Path, ...] = ()) -> AnySpec:
    """A spec of either kind from plain values, by their `kind` ("volumes" where there is none) or `base`.

    Raises:
      InputError: see `spec_from_dict` and `slice_spec_from_dict`.
    """
    kind = values.get("kind", "slices" if str(values.get("base")) in SLICE_SPECS else "volumes")
    if kind == "slices":
        return slice_spec_from_dict(values, where)
    if kind != "volumes":
        raise InputError(f"{where}: kind = {kind!r} must be volumes or slices.")
    return spec_from_dict({k: v for k, v in values.items() if k != "kind"}, where, above)


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
      values: the fields of `DatasetSpec`.
      where: the file they came from, for messages.
      above: files whose `base` led here, to stop a circle.

    Raises:
      InputError: a circle of bases, or a field that is missing, unknown or of the wrong form.
    """
    given = dict(values)
    base = given.pop("base", None)
    if base is not None:
        if Path(str(base)).resolve() in above:
            raise InputError(f"{where}: base = {base!r} leads back to itself: start from another data set.")
        # A structure that is named takes the place of the base's, with its values.
        known = get_spec(str(base), above).to_dict()
        if {"structure", "structures"} & given.keys():
            known = {k: v for k, v in known.items() if k not in ("structures", "label_values")}
        given = known | given
    given = _structures(given, where)
    fields = {f.name: f for f in dataclasses.fields(DatasetSpec)}
    check_known(given, fields, where)
    missing = [k for k, f in fields.items() if f.default is dataclasses.MISSING and k not in given]
    if "spacing" in missing:  # TOML has no null: an absent spacing is a varying one
        given["spacing"] = None
        missing.remove("spacing")
    check_none_missing(missing, where)
    for key, value in given.items():
        given[key] = _checked(key, value, where)
    spec = DatasetSpec(**given)
    return check_spec(spec if spec.split_group else dataclasses.replace(spec, split_group=spec.name), where)


def check_spec(spec: DatasetSpec, where: str) -> DatasetSpec:
    """The spec, if its fields fit each other.

    Raises:
      InputError: they do not.
    """
    check_folder_name(spec.name, where)
    if any(p % DIVISOR for p in spec.patch_size):
        raise InputError(f"{where}: patch_size {spec.patch_size} must divide by {DIVISOR} on every side.")
    if spec.train_count + spec.test_count <= 0:
        raise InputError(f"{where}: train_count and test_count give the split: at least one is above 0.")
    check_structures(spec.structures, spec.label_values, spec.exclusive, _MOST[spec.exclusive], where)
    if spec.mirror_pairs and any(n not in spec.structures for two in spec.mirror_pairs for n in two):
        raise InputError(f"{where}: mirror_pairs {spec.mirror_pairs} must be pairs of {spec.shown}.")
    return spec


_MOST = {True: MAX_EXCLUSIVE, False: MAX_STRUCTURES}
"""Structures that one byte a voxel can tell apart, where they exclude each other and where not."""


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


def _checked(key: str, value: Any, where: str) -> Any:
    """`value` as the type that the field `key` has, or an InputError."""

    def fault(want: str) -> InputError:
        return InputError(f"{where}: {key} = {value!r} must be {want}.")

    if key in ("dimensions", "patch_size", "spacing"):
        if key == "spacing" and (value is None or value == "various"):
            return None
        whole = key != "spacing"
        if not (
            isinstance(value, list | tuple)
            and len(value) == 3
            and all(is_number(v, whole) and 0 < v < 10_000 for v in value)
        ):
            raise fault(f"three positive {'whole ' if whole else ''}numbers")
        return tuple(int(v) if whole else float(v) for v in value)
    if key == "structures":
        if not (isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)):
            raise fault("a list of names, or a table of names and label values")
        return tuple(value)
    if key == "label_values":
        if not (isinstance(value, list | tuple) and all(isinstance(v, list | tuple) for v in value)) or not all(
            is_label(v) for of in value for v in of
        ):
            raise fault('for each structure a list of whole numbers (or names of segments), or "all"')
        return tuple(tuple(of) for of in value)
    if key == "mirror_pairs":
        if not (isinstance(value, list | tuple) and all(isinstance(v, list | tuple) and len(v) == 2 for v in value)):
            raise fault('a list of pairs of structures, as in [["near", "far"]]')
        return tuple((str(a), str(b)) for a, b in value)
    if key == "unmarked_value":
        if value is not None and not is_number(value, True):
            raise fault("a whole number")
        return value
    if key in ("train_count", "test_count"):
        if not is_number(value, True) or value < 0:
            raise fault("a whole number, 0 or more")
        return value
    for literal_key, kind in (("space", Space), ("normalise", Normalise)):
        if key == literal_key and value not in get_args(kind):
            raise fault(f"one of {', '.join(get_args(kind))}")
    is_flag = key in ("skull_strip", "flip_left_right", "random_patch", "random_rotations", "exclusive")
    if is_flag != isinstance(value, bool) or not isinstance(value, bool | str):
        raise fault("true or false" if is_flag else "text")
    return value
