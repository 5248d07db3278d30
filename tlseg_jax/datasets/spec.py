"""What a data set is: the paper's Table 1 as frozen dataclasses, and a user's own as a TOML file."""

import dataclasses
import difflib
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from tlseg_jax.datasets.fields import check_folder_name, check_known, check_none_missing, is_label, is_number
from tlseg_jax.datasets.slice_spec import SLICE_SPECS, SliceSpec, slice_spec_from_dict
from tlseg_jax.errors import InputError

Shape3 = tuple[int, int, int]
Spacing3 = tuple[float, float, float]
Space = Literal["MNI305", "native"]
Normalise = Literal["volume", "mask"]
LabelValues = tuple[int | str, ...] | Literal["all"]

DIVISOR = 8
"""Patch sides divide by this: three 2x2x2 poolings (Weatheritt et al., section 3.1)."""


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """One row of Table 1 (Weatheritt et al. 2020, "Transfer Learning for Brain Segmentation").

    Attributes:
      name: short name, also the folder of the prepared store.
      structure: what label 1 is, in words.
      space: "MNI305" (every scan is registered to it) or "native" (the scan's own RAS axes).
      dimensions: voxels of the resampled volume, axes x (left to right), y (back to front), z (up).
      spacing: voxel size in mm; None keeps each scan's field of view, so that its spacing varies.
      patch_size: voxels of the patch that the network sees, same axes.
      skull_strip: whether everything outside the brain is set to zero before normalising.
      normalise: z-score over the whole volume (the paper) or within the brain or head mask.
      flip_left_right: augmentation: flip the x axis at random.
      random_patch: patches come from anywhere in the volume, not from the one fixed box.
      random_rotations: augmentation: random 90 degree rotations and flips.
      train_count: scans for training in the paper; with test_count it gives the test fraction.
      test_count: scans held out in the paper.
      split_group: data sets of one group share subjects, and so share one split.
      label_values: values of the label map that make the structure, or names of a `.seg.nrrd`'s segments; "all" takes
        every value above 0. Empty takes the one value that each map holds, and refuses a map of several.
    """

    kind: ClassVar[Literal["volumes"]] = "volumes"

    name: str
    structure: str
    space: Space
    dimensions: Shape3
    spacing: Spacing3 | None
    patch_size: Shape3
    skull_strip: bool = False
    normalise: Normalise = "volume"
    flip_left_right: bool = True
    random_patch: bool = False
    random_rotations: bool = False
    train_count: int = 0
    test_count: int = 0
    split_group: str = ""
    label_values: LabelValues = ()

    @property
    def test_fraction(self) -> float:
        """Share of the scans held out for test, from the paper's counts."""
        return self.test_count / (self.train_count + self.test_count)

    def at_spacing(self, spacing: float) -> "DatasetSpec":
        """The same field of view in isotropic voxels of `spacing` mm.

        Patch sides keep at least their length in mm and are rounded up to divide by 8. A spec
        whose spacing varies is taken as 1 mm.
        """
        if not 0.1 <= spacing <= 20:
            raise InputError(f"A spacing of {spacing} mm is not usable: give one between 0.1 and 20 mm.")
        old = self.spacing or (1.0, 1.0, 1.0)
        if old == (spacing,) * 3:
            return dataclasses.replace(self, spacing=old)
        dims = [round(d * s / spacing) for d, s in zip(self.dimensions, old, strict=True)]
        patch = [
            DIVISOR * math.ceil(round(p * s / spacing, 6) / DIVISOR)
            for p, s in zip(self.patch_size, old, strict=True)
        ]
        return dataclasses.replace(
            self,
            dimensions=(dims[0], dims[1], dims[2]),
            patch_size=(patch[0], patch[1], patch[2]),
            spacing=(spacing, spacing, spacing),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON and TOML hold them; `spec_from_dict` reads them back."""
        return {
            k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(self).items()
        }


_MNI305_DIMENSIONS = (172, 220, 156)
_MM = (1.0, 1.0, 1.0)

PAPER_SPECS: Mapping[str, DatasetSpec] = {
    s.name: s
    for s in (
        DatasetSpec(
            "hdt_c", "caudate", "MNI305", _MNI305_DIMENSIONS, _MM, (72, 112, 112),
            train_count=306, test_count=76, split_group="hdt",
        ),
        DatasetSpec(
            "mal_c", "caudate", "native", (192, 192, 160), None, (80, 112, 112),
            train_count=544, test_count=118, split_group="mal",
        ),
        DatasetSpec(
            "hdt_v", "lateral ventricle", "MNI305", _MNI305_DIMENSIONS, _MM, (96, 136, 112),
            train_count=306, test_count=76, split_group="hdt",
        ),
        DatasetSpec(
            "hdt_wb", "whole brain", "native", (256, 256, 192), (1.0, 1.0, 1.2), (64, 64, 64),
            random_patch=True, random_rotations=True, label_values="all",
            train_count=306, test_count=76, split_group="hdt",
        ),
        DatasetSpec(
            "oas_c", "caudate", "MNI305", _MNI305_DIMENSIONS, _MM, (72, 112, 112), skull_strip=True,
            flip_left_right=False, train_count=0, test_count=39, split_group="oas",
        ),
    )
}  # fmt: skip
"""The five data sets of Table 1. MAL-C's voxel spacing is "Various" there, hence None."""


AnySpec = DatasetSpec | SliceSpec
"""A data set of volumes for the 3D networks, or of slices for the 2D network."""


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
    from tlseg_jax.datasets import factors  # they are made of this file's specs

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
        given = get_spec(str(base), above).to_dict() | given
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
    check_folder_name(spec.name, where)
    if any(p % DIVISOR for p in spec.patch_size):
        raise InputError(f"{where}: patch_size {spec.patch_size} must divide by {DIVISOR} on every side.")
    if spec.train_count + spec.test_count <= 0:
        raise InputError(f"{where}: train_count and test_count give the split: at least one is above 0.")
    if not spec.split_group:
        spec = dataclasses.replace(spec, split_group=spec.name)
    return spec


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
    if key == "label_values":
        if value == "all":
            return value
        if not (isinstance(value, list | tuple) and all(is_label(v) for v in value)):
            raise fault('a list of whole numbers (or names of segments), or "all"')
        return tuple(value)
    if key in ("train_count", "test_count"):
        if not is_number(value, True) or value < 0:
            raise fault("a whole number, 0 or more")
        return value
    for literal_key, kind in (("space", Space), ("normalise", Normalise)):
        if key == literal_key and value not in get_args(kind):
            raise fault(f"one of {', '.join(get_args(kind))}")
    is_flag = key in ("skull_strip", "flip_left_right", "random_patch", "random_rotations")
    if is_flag != isinstance(value, bool) or not isinstance(value, bool | str):
        raise fault("true or false" if is_flag else "text")
    return value
