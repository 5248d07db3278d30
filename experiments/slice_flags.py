"""The flags of `prepare` that only data sets of slices have."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from tlseg_jax.datasets.fields import label_from
from tlseg_jax.datasets.slice_spec import SliceSpec, check_slice_spec
from tlseg_jax.runtime.errors import InputError

LABELS = flags.DEFINE_string(
    "labels", None, "Slices: structures and their label values, as in liver:1+2,tumour:2; others are background."
)
WINDOW = flags.DEFINE_string("window", None, "Slices: lowest and highest value (HU for CT), as in -160,240.")
PIXELS = flags.DEFINE_string("pixels", None, "Slices: pixels of a prepared slice, as in 512,512.")
RESIZE = flags.DEFINE_enum(
    "resize", None, ["pad", "fit", "spacing"],
    "Slices: pad keeps the pixels and crops or pads; fit resamples the field of view; spacing resamples to pixel_mm.",
)  # fmt: skip
PIXEL_MM = flags.DEFINE_float("pixel_mm", None, "Slices: side of a pixel in mm, for --resize=spacing.")
TEST_VOLUMES = flags.DEFINE_integer("test_volumes", None, "Slices: the last volumes, for test.", lower_bound=0)
MAX_SLICES = flags.DEFINE_integer("max_slices", None, "Slices: of the whole data set; 0: all.", lower_bound=0)
WITH_STRUCTURE = flags.DEFINE_integer(
    "with_structure", None, "Slices: of a volume that show a structure; 0: every slice of it.", lower_bound=0
)
WITHOUT_STRUCTURE = flags.DEFINE_integer(
    "without_structure", None, "Slices: of a volume, nearest to those, that show none.", lower_bound=0
)
NEIGHBOURS = flags.DEFINE_integer(
    "neighbours", None, "Slices: stored on each side of a sample, for 2.5D.", lower_bound=0, upper_bound=16
)

SLICES_ONLY = (
    "labels", "window", "pixels", "resize", "pixel_mm", "test_volumes", "max_slices", "with_structure",
    "without_structure", "neighbours",
)  # fmt: skip
VOLUMES_ONLY = (
    "label_values", "spacing", "registration", "bias_correction", "normalise", "order", "split_seed", "mirror",
)  # fmt: skip


def refuse(names: Sequence[str], kind: str) -> None:
    """Refuse the flags that the data set's kind does not have.

    Raises:
      InputError: one of `names` was given.
    """
    given = [f"--{n}" for n in names if flags.FLAGS[n].present]
    if given:
        raise InputError(
            f"{', '.join(given)} cannot be used with --dataset={flags.FLAGS['dataset'].value}, which is a data set "
            f"of {kind}: leave it out."
        )


def with_flags(spec: SliceSpec, name: str | None) -> SliceSpec:
    """The data set with what the flags change.

    Args:
      spec: the data set.
      name: its folder in the store, where not its own.

    Raises:
      InputError: a flag's value cannot be read, or the values do not fit each other.
    """
    changes: dict[str, Any] = {}
    if name:
        changes["name"] = name
    if LABELS.value is not None:
        changes |= labels_from(LABELS.value) | {"other_values": "background"}
    if WINDOW.value is not None:
        low, high = _numbers("window", WINDOW.value, float, "-160,240")
        changes |= {"window": (low, high), "scaling": "window"}
    if PIXELS.value is not None:
        changes["pixels"] = _numbers("pixels", PIXELS.value, int, "512,512")
    if PIXEL_MM.value is not None and not 0.05 <= PIXEL_MM.value <= 20:
        raise InputError(f"--pixel_mm={PIXEL_MM.value:g} is no size of a pixel: give mm between 0.05 and 20.")
    holders: tuple[flags.FlagHolder[Any], ...] = (
        RESIZE, PIXEL_MM, TEST_VOLUMES, MAX_SLICES, WITH_STRUCTURE, WITHOUT_STRUCTURE, NEIGHBOURS,
    )  # fmt: skip
    changes |= {h.name: h.value for h in holders if h.value is not None}
    if TEST_VOLUMES.value is not None:
        changes["test_slices"] = 0  # the rule that was asked for is the one that counts
    spec = dataclasses.replace(spec, **changes)
    if PIXEL_MM.value is not None and spec.resize != "spacing":
        raise InputError(f"--pixel_mm is for --resize=spacing, and it is {spec.resize}: give that, or leave it out.")
    return check_slice_spec(spec, f"--dataset={flags.FLAGS['dataset'].value}")


def labels_from(text: str) -> dict[str, Any]:
    """`structures` and `label_values` from text such as "liver:1+2,tumour:2"; segments go by name as well.

    Raises:
      InputError: it is not of that form.
    """
    structures, values = [], []
    for part in text.split(","):
        name, _, numbers = part.partition(":")
        values.append(tuple(label_from(n) for n in numbers.split("+")))
        if "" in values[-1] or not name.strip():
            raise InputError(f"--labels={text} cannot be read at '{part}': write it as in liver:1+2,tumour:2.")
        structures.append(name.strip())
    return {"structures": tuple(structures), "label_values": tuple(values)}


def _numbers(flag: str, text: str, kind: type, example: str) -> tuple[Any, Any]:
    try:
        a, b = (kind(v) for v in text.split(","))
    except ValueError:
        raise InputError(f"--{flag}={text} must be two numbers, as in --{flag}={example}.") from None
    return a, b
