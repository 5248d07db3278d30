"""The flags of `prepare` that only data sets of slices have."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from absl import flags

from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.datasets.fields import label_from
from tlseg_jax.datasets.slice_spec import SliceSpec, check_slice_spec
from tlseg_jax.runtime.errors import InputError

FIELDS = (
    "window", "pixels", "resize", "pixel_mm", "test_volumes", "max_slices", "with_structure", "without_structure",
    "neighbours",
)  # fmt: skip
"""Of a data set of slices, that flags change."""

LABELS = flags.DEFINE_string(
    "labels", None, "Slices: structures and their label values, as in liver:1+2,tumour:2; others are background."
)
CHANGES = settings_flags.define(SliceSpec, only=FIELDS, absent="all", before="Slices: ")

SLICES_ONLY = ("labels", *FIELDS)
VOLUMES_ONLY = ("label_values", "spacing", "registration", "bias_correction", "normalise", "order", "split_seed")


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
    given = CHANGES.given()
    changes |= given
    if "window" in given:
        changes["scaling"] = "window"
    if "pixel_mm" in given and not 0.05 <= given["pixel_mm"] <= 20:
        raise InputError(f"--pixel_mm={given['pixel_mm']:g} is no size of a pixel: give mm between 0.05 and 20.")
    if "test_volumes" in given:
        changes["test_slices"] = 0  # the rule that was asked for is the one that counts
    spec = dataclasses.replace(spec, **changes)
    if "pixel_mm" in given and spec.resize != "spacing":
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
