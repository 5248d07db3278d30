"""What a settings' field says of its values beyond their type, for whoever reads them from text."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from tlseg_jax.runtime.errors import InputError


@dataclasses.dataclass(frozen=True)
class Bound:
    """Of a number; ends included."""

    least: float | None = None
    most: float | None = None


@dataclasses.dataclass(frozen=True)
class Read:
    """How a value is read from text that is not simply its type's.

    Attributes:
      read: text -> value; an InputError says what is wrong with the text, and names no flag.
    """

    read: Callable[[str], Any]


Positive = Annotated[int, Bound(1)]
Count = Annotated[int, Bound(0)]
Rate = Annotated[float, Bound(0)]
Share = Annotated[float, Bound(0, 1)]


def read_labelled(text: str) -> int | None:
    """A number of labelled scans from text: "all", which is None, or 1 or more.

    Raises:
      InputError: it is neither.
    """
    if text == "all":
        return None
    if text.isdigit() and int(text) >= 1:
        return int(text)
    if text.isdigit():
        raise InputError(
            "no labelled scan leaves nothing to train on: give 1 or more, or all; a pre-trained model (`pretrained`) "
            "segments without any, by 'tlseg predict', and is scored by 'tlseg evaluate'."
        )
    raise InputError(f"'{text}' is no number of labelled scans: give 1 or more, or all.")


Labelled = Annotated[int | None, Read(read_labelled)]
"""Labelled scans; None: all of the training set."""
