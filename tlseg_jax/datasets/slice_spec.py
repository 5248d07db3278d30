"""What a data set of slices is: the liver report's two as frozen dataclasses, and a user's own as a TOML file."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from tlseg_jax.datasets.fields import check_folder_name, check_known, check_none_missing, is_label, is_number
from tlseg_jax.datasets.structures import LabelValues, check_structures
from tlseg_jax.runtime.bounds import Bound, Count
from tlseg_jax.runtime.errors import InputError

Modality = Literal["CT", "MR"]
Resize = Literal["pad", "fit", "spacing"]
Scaling = Literal["window", "zscore"]
OtherValues = Literal["refuse", "background"]

MAX_STRUCTURES = 8
"""Labels are stored as one byte a pixel, a bit a structure."""

ABDOMEN_WINDOW = (-160.0, 240.0)
"""HU: level 40, width 400, the usual soft-tissue window of the abdomen. It holds fat (-100), the liver with and
without contrast (40 to 130) and its tumours, and spends no grey level on air and bone."""


@dataclasses.dataclass(frozen=True)
class SliceSpec:
    """A data set of axial slices for the 2D network (Wang & Tang 2020, sections 1.1 and 3.2).

    Attributes:
      name: short name, also the folder of the prepared store.
      modality: "CT" (Hounsfield units are expected) or "MR".
      structures: what the label shows, one output of the network each, in order; the last is the target.
      label_values: for each structure the values of the label map, or names of a `.seg.nrrd`'s segments, that make
        it; a value may serve several, as a tumour is also liver.
      pixels: of a prepared slice: x (left to right), y (back to front), as in 512,512.
      resize: how a slice comes to its pixels: pad keeps them and crops or pads about the middle; fit resamples its
        field of view; spacing resamples to pixel_mm, then crops or pads.
      pixel_mm: side of a pixel in mm, for resize=spacing.
      other_values: whether a label value that no structure names excludes the volume or is background.
      scaling: "window" clips to `window` and scales it to -1 to 1; "zscore" clips to the 0.5 and 99.5
        percentiles of the volume and standardises it.
      window: lowest and highest value (HU for CT), as in -160,240.
      with_structure: of a volume that show a structure, evenly spaced; 0 takes every slice of it.
      without_structure: of a volume, nearest to those, that show none.
      max_slices: of the whole data set, in the volumes' order; 0 has no limit.
      neighbours: on each side of a sample that are stored with it, for 2.5D input.
      test_slices: the last slices in order are for test; rounded to whole volumes.
      test_volumes: so many of the last volumes are for test, in place of the last slices.
      split_group: data sets of one group share subjects.
    """

    kind: ClassVar[Literal["slices"]] = "slices"
    exclusive: ClassVar[bool] = False

    name: str
    modality: Modality
    structures: tuple[str, ...]
    label_values: tuple[LabelValues, ...]
    pixels: tuple[int, int]
    resize: Resize = "pad"
    pixel_mm: float | None = None
    other_values: OtherValues = "refuse"
    scaling: Scaling = "zscore"
    window: tuple[float, float] | None = None
    with_structure: Count = 0
    without_structure: Count = 0
    max_slices: Count = 0
    neighbours: Annotated[int, Bound(0, 16)] = 1
    test_slices: Count = 0
    test_volumes: Count = 0
    split_group: str = ""

    @property
    def shown(self) -> str:
        """The structures in words."""
        return ", ".join(self.structures)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Channels of a network's head."""
        return self.structures

    @property
    def target(self) -> str:
        """The structure that the study is about."""
        return self.structures[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with `kind`; `slice_spec_from_dict` reads them back."""

        def plain(v: Any) -> Any:
            return [plain(i) for i in v] if isinstance(v, tuple) else v

        return {"kind": self.kind} | {k: plain(v) for k, v in dataclasses.asdict(self).items()}


SLICE_SPECS: Mapping[str, SliceSpec] = {
    s.name: s
    for s in (
        # Section 3.2.1: 30 slices with liver and the adjacent 20 without from each volume, the first
        # 1,100 in all, the last 100 of them for test. A tumour lies in the liver, so value 2 is both.
        SliceSpec(
            "lits",
            "CT",
            ("liver", "tumour"),
            ((1, 2), (2,)),
            (512, 512),
            scaling="window",
            window=ABDOMEN_WINDOW,
            with_structure=30,
            without_structure=20,
            max_slices=1100,
            test_slices=100,
            split_group="lits",
        ),
        # Sections 1.1 and 3.2.3: every slice of 36 volumes, the last four volumes for test.
        SliceSpec("mri_artery", "MR", ("tumour",), ((1,),), (320, 260), test_volumes=4, split_group="mri_artery"),
    )
}
"""The two data sets of the liver report."""


def slice_spec_from_dict(values: Mapping[str, Any], where: str) -> SliceSpec:
    """A spec from plain values; `base = "lits"` starts from that data set's values.

    Args:
      values: the fields of `SliceSpec`; `kind` is "slices" or absent.
      where: the file they came from, for messages.

    Raises:
      InputError: a field is missing, unknown or of the wrong form.
    """
    given = dict(values)
    given.pop("kind", None)
    base = given.pop("base", None)
    if base is not None:
        if not isinstance(base, str) or base not in SLICE_SPECS:
            raise InputError(f"{where}: base = {base!r} is no data set of slices: choose {' or '.join(SLICE_SPECS)}.")
        given = SLICE_SPECS[base].to_dict() | given
        given.pop("kind")
    fields = {f.name: f for f in dataclasses.fields(SliceSpec)}
    check_known(given, fields, where)
    missing = [k for k, f in fields.items() if f.default is dataclasses.MISSING and k not in given]
    check_none_missing(missing, where)
    spec = SliceSpec(**{k: _checked(k, v, where) for k, v in given.items()})
    return check_slice_spec(spec if spec.split_group else dataclasses.replace(spec, split_group=spec.name), where)


def check_slice_spec(spec: SliceSpec, where: str) -> SliceSpec:
    """The spec, if its fields fit each other.

    Raises:
      InputError: they do not.
    """
    check_folder_name(spec.name, where)
    check_structures(spec.structures, spec.label_values, False, MAX_STRUCTURES, where)
    if not all(spec.label_values):
        raise InputError(f"{where}: label_values must give the values of each of {spec.shown}.")
    if spec.scaling == "window" and (spec.window is None or spec.window[0] >= spec.window[1]):
        raise InputError(f"{where}: the window {spec.window} must be two values, the lower one first.")
    if spec.resize == "spacing" and not spec.pixel_mm:
        raise InputError(f"{where}: resize = 'spacing' needs pixel_mm, the side of a pixel in mm.")
    if min(spec.pixels) < 16:
        raise InputError(f"{where}: slices of {spec.pixels[0]}x{spec.pixels[1]} pixels are too small: give 16 or more.")
    return spec


def _checked(key: str, value: Any, where: str) -> Any:
    """`value` as the type that the field `key` has, or an InputError."""

    def fault(want: str) -> InputError:
        return InputError(f"{where}: {key} = {value!r} must be {want}.")

    def numbers(v: Any, whole: bool, count: int | None = None) -> bool:
        right = isinstance(v, list | tuple) and (count is None or len(v) == count)
        return right and all(is_number(i, whole) for i in v)

    def labels(v: Any) -> bool:
        return isinstance(v, list | tuple) and all(map(is_label, v))

    choices = {"modality": Modality, "resize": Resize, "scaling": Scaling, "other_values": OtherValues}
    if key in choices:
        if value not in get_args(choices[key]):
            raise fault(f"one of {', '.join(get_args(choices[key]))}")
        return value
    if key == "structures":
        if not (isinstance(value, list | tuple) and all(isinstance(v, str) and v for v in value)):
            raise fault("a list of names")
        return tuple(value)
    if key == "label_values":
        if not (isinstance(value, list | tuple) and all(labels(v) for v in value)):
            raise fault("a list of whole numbers (or names of segments) for each structure, as in [[1, 2], [2]]")
        return tuple(tuple(v) for v in value)
    if key == "pixels":
        if not numbers(value, True, 2):
            raise fault("two whole numbers, as in [512, 512]")
        return tuple(value)
    if key == "window":
        if value is not None and not (numbers(value, False, 2) and all(map(math.isfinite, value))):
            raise fault("two numbers, as in [-160, 240]")
        return None if value is None else (float(value[0]), float(value[1]))
    if key == "pixel_mm":
        if value is not None and not (is_number(value, False) and 0.05 <= value <= 20):
            raise fault("a number of mm between 0.05 and 20")
        return value
    if key in ("name", "split_group"):
        if not isinstance(value, str):
            raise fault("text")
        return value
    if not is_number(value, True) or value < 0:
        raise fault("a whole number, 0 or more")
    return value
