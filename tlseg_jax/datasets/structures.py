"""What a data set's labels show: structures by name, and which values of a label map make each."""

import dataclasses
import difflib
import itertools
from collections.abc import Mapping, Sequence

from tlseg_jax.datasets.fields import label_from
from tlseg_jax.datasets.label_names import PRESETS
from tlseg_jax.runtime.errors import InputError

LabelValues = tuple[int | str, ...]
"""Values of a label map, or names of a `.seg.nrrd`'s segments, that make a structure; ("all",): every value above 0."""

ALL: LabelValues = ("all",)
BACKGROUND = "background"
"""The output of a network with exclusive structures that stands for none of them; no structure is called so."""


@dataclasses.dataclass(frozen=True)
class Labels:
    """How a label map is to be read.

    Attributes:
      structures: what it shows.
      values: for each the values that make it. Of a single structure ("all",) takes every value above 0, and () the one
        value that the map holds.
      exclusive: whether a voxel shows one at most.
      unmarked: the value where nobody looked; None: everybody looked everywhere.
    """

    structures: tuple[str, ...] = ("structure",)
    values: tuple[LabelValues, ...] = ((),)
    exclusive: bool = True
    unmarked: int | None = None

    @classmethod
    def of(cls, *values: int | str) -> "Labels":
        """One structure of these values."""
        return cls(values=(values,))


ANY_VALUE = Labels()
"""One structure of the one value that a map holds."""

SIDES = ("_left", "_right")
MAX_EXCLUSIVE = 254
"""Codes of one byte, of which one is the background and one is kept."""
MAX_STRUCTURES = 8
"""Bits of one byte, one for each structure that may contain another."""


def structures_from(text: str) -> tuple[tuple[str, ...], tuple[LabelValues, ...]]:
    """Names and label values from text such as "caudate:11+50,ventricle:4+43" or "freesurfer:caudate,putamen_left".

    A table's name (`PRESETS`) holds for what follows until another one; its structures have values of their own, and
    without a side those of both.

    Raises:
      InputError: it is not of that form, or the table has no such structure.
    """
    names: list[str] = []
    values: list[LabelValues] = []
    table: Mapping[str, tuple[int, ...]] | None = None
    table_name = ""
    for part in text.split(","):
        name, colon, numbers = (p.strip() for p in part.partition(":"))
        if colon and name.lower() in PRESETS:
            table_name, table, name, colon = name.lower(), PRESETS[name.lower()], numbers, ""
        if colon:
            found = tuple(label_from(n) for n in numbers.split("+"))
        elif table is not None and name:
            found = _of_table(table, table_name, name)
        else:
            found = ()
        if not name or not found or "" in found:
            raise InputError(
                f"`structures={text}` cannot be read at '{part}': write it as in caudate:11+50,ventricle:4+43, or as "
                f"in freesurfer:caudate,putamen (tables: {', '.join(PRESETS)})."
            )
        names.append(name)
        values.append(found)
    return tuple(names), tuple(values)


def _of_table(table: Mapping[str, tuple[int, ...]], table_name: str, name: str) -> tuple[int, ...]:
    sides = [table[name + s] for s in SIDES if name + s in table]
    found = table.get(name) or tuple(itertools.chain.from_iterable(sides))
    if not found:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(table)}."
        raise InputError(f"{table_name} has no structure '{name}': {hint}")
    return found


def check_structures(
    structures: Sequence[str], values: Sequence[LabelValues], exclusive: bool, most: int, where: str
) -> None:
    """Check that structures and their label values fit each other.

    Raises:
      InputError: there are none or too many, a name is there twice or cannot be in a file's name, the numbers differ,
        or a value makes two of exclusive structures.
    """
    if not 1 <= len(structures) <= most or len(set(structures)) != len(structures):
        raise InputError(f"{where}: structures {tuple(structures)} must be 1 to {most} different names.")
    for structure in structures:
        if not structure or any(c in structure for c in "/\\"):
            raise InputError(f"{where}: the structure '{structure}' is in the names of files: leave out '/' and '\\'.")
        if structure == BACKGROUND:
            raise InputError(f"{where}: '{BACKGROUND}' is what no structure is at: give the structure another name.")
    if len(values) != len(structures):
        raise InputError(f"{where}: label_values must give the values of each of {', '.join(structures)}.")
    if len(structures) == 1:
        return
    for structure, of in zip(structures, values, strict=True):
        if not of or of == ALL:
            raise InputError(f"{where}: which label values make '{structure}' must be said, as there are others.")
    if exclusive:
        for (a, of_a), (b, of_b) in itertools.combinations(zip(structures, values, strict=True), 2):
            if both := sorted(map(str, set(of_a) & set(of_b))):
                raise InputError(
                    f"{where}: the label value {both[0]} makes both '{a}' and '{b}': of exclusive structures each "
                    "value makes one; give exclusive = false where they contain each other."
                )


def mirrored(structures: Sequence[str], pairs: Sequence[tuple[str, str]] = ()) -> tuple[int, ...] | None:
    """Where each structure is in a mirror: the place of its partner of the other side, or its own.

    Args:
      structures: in order; names that end in "_left" and "_right" are partners.
      pairs: other partners.

    Returns:
      A permutation; None where the partner of one is not among them, so that a mirrored label would be wrong.
    """
    other = {a: b for two in pairs for a, b in (two, two[::-1])}
    for name in structures:
        for side, opposite in (SIDES, SIDES[::-1]):
            if name not in other and name.endswith(side):
                other[name] = name.removesuffix(side) + opposite
    partners = [other.get(name, name) for name in structures]
    if any(p not in structures for p in partners):
        return None
    return tuple(structures.index(p) for p in partners)
