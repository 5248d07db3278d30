"""Things that users name."""

from collections.abc import Mapping
from typing import TypeVar

from tlseg_jax.runtime.errors import InputError

Thing = TypeVar("Thing")


def choose(kind: str, name: str, table: Mapping[str, Thing]) -> Thing:
    """The thing of that name.

    Args:
      kind: what it is, for the message, such as "loss".

    Raises:
      InputError: nothing has that name; all names are listed.
    """
    if name not in table:
        raise InputError(f"There is no {kind} named '{name}': choose from {', '.join(table)}.")
    return table[name]
