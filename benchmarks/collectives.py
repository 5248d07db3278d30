"""What a compiled program of several devices exchanges between them, read from its HLO text."""

import collections
import dataclasses
import math
import re
from collections.abc import Sequence

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "collective-permute", "all-to-all")

_OPERATION = re.compile(rf"^\s*(?:ROOT )?%?\S+ = (.+?) ({'|'.join(KINDS)})(-start)?\(", re.MULTILINE)
_ARRAY = re.compile(r"\b(?:pred|[a-z]+\d+)\[([\d,]*)\]")

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange.

    Attributes:
      shapes: of the arrays that come out of it.
    """

    kind: str
    shapes: tuple[Shape, ...]

    @property
    def elements(self) -> int:
        """Values that come out of it."""
        return sum(math.prod(s) for s in self.shapes)


def collectives(hlo: str) -> list[Collective]:
    """The exchanges of a compiled program."""
    found = []
    for match in _OPERATION.finditer(hlo):
        shapes = [tuple(int(n) for n in a.split(",") if n) for a in _ARRAY.findall(match[1])]
        # A start's result holds the operands beside the results, and for a permute two counters.
        if match[3] and match[2] != "all-reduce":
            shapes = shapes[1:2]
        found.append(Collective(match[2], tuple(shapes)))
    return found


def count_kinds(found: Sequence[Collective]) -> dict[str, int]:
    """Kind -> how many, of those that there are."""
    return dict(collections.Counter(c.kind for c in found))
