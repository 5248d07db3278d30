"""A data set of slices with some of its fields changed, as a user asks for."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from tlseg_jax.datasets.fields import label_from
from tlseg_jax.datasets.slice_spec import SliceSpec, check_slice_spec
from tlseg_jax.runtime.errors import InputError


def changed_slices(spec: SliceSpec, given: Mapping[str, Any], labels: str | None, where: str) -> SliceSpec:
    """The data set with what is given, and with what follows from that.

    Args:
      spec: the data set.
      given: field -> value.
      labels: structures and their label values, see `labels_from`; None keeps them.
      where: what asks for it, for messages.

    Raises:
      InputError: the labels cannot be read, or the values do not fit each other.
    """
    changes = dict(given)
    if labels is not None:
        changes |= labels_from(labels) | {"other_values": "background"}
    if "window" in given:
        changes["scaling"] = "window"
    if "pixel_mm" in given and not 0.05 <= given["pixel_mm"] <= 20:
        raise InputError(f"`pixel_mm={given['pixel_mm']:g}` is no size of a pixel: give mm between 0.05 and 20.")
    if "test_volumes" in given:
        changes["test_slices"] = 0  # the rule that was asked for is the one that counts
    spec = dataclasses.replace(spec, **changes)
    if "pixel_mm" in given and spec.resize != "spacing":
        raise InputError(f"`pixel_mm` is for `resize=spacing`, and it is {spec.resize}: give that, or leave it out.")
    return check_slice_spec(spec, where)


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
            raise InputError(f"`labels={text}` cannot be read at '{part}': write it as in liver:1+2,tumour:2.")
        structures.append(name.strip())
    return {"structures": tuple(structures), "label_values": tuple(values)}
