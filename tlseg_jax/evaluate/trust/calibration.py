"""From how far passes agree to the Dice that can be expected, fitted on held-out scans whose truth is known.

The map is a line between logarithms of odds: of each structure where its own held-out scans lie, and one slope for all
structures, never below zero. Structures differ more than scans of one do, and a slope a structure needs more held-out
scans than anybody has. The slope is drawn towards 1 (Dice falls as agreement does) with the weight of `PRIOR_SCANS`,
so that a few good scans, all alike, do not make a flat map of noise.

Intervals of volumes are those of the passes, widened by how far they missed the truth of the held-out scans: split
conformal prediction of quantiles (Romano, Patterson and Candes 2019), each side by itself, so that a protocol that
draws a structure smaller moves them, too. With fewer than 19 scans the largest miss stands for the 95th percentile.
"""

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tlseg_jax.evaluate.trust.unlike import Usual, usual_of, volume_statistics
from tlseg_jax.runtime.errors import InputError

PRIOR_SCANS = 5
LEVEL = 0.9
"""Of the intervals of volumes."""

LEAST = 5
"""Held-out scans of a structure that a map is made of at least."""

DROP = (3.0, 0.05)
"""A structure is flagged where its predicted Dice is below the held-out scans' mean by so many of their standard
deviations, and by at least so much."""

_ENDS = (0.01, 0.995)
"""Of agreement and Dice within the logarithm of odds."""


@dataclasses.dataclass(frozen=True)
class PassedStructure:
    """What passes say of one structure of one scan.

    Attributes:
      agreement: `trusting.pairwise_dice`.
      ml: volume in the label map.
      low_ml: in the pass with least.
      high_ml: in the pass with most.
    """

    agreement: float
    ml: float
    low_ml: float
    high_ml: float


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A scan whose truth is known and that no training has seen.

    Attributes:
      person: who was scanned.
      found: structure -> what passes say of it.
      dice: structure -> its true Dice; those that the truth does not mark are missing.
      reference_ml: structure -> its true volume.
      statistics: see `unlike`.
    """

    person: str
    found: Mapping[str, PassedStructure]
    dice: Mapping[str, float]
    reference_ml: Mapping[str, float]
    statistics: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class StructureMap:
    """Of one structure; logarithms of odds for `agreement` and `dice`, natural ones of ml for the misses.

    Attributes:
      agreement, dice: means over the held-out scans.
      usual: mean Dice predicted for the held-out scans, each by the others.
      floor: predicted Dice below which the structure is flagged.
      below, above: to take from the logarithm of the least volume, and to add to that of the largest; None: no held-out
        scan has a volume to learn it from.
      present: whether every held-out scan has it.
      n: held-out scans.
    """

    agreement: float
    dice: float
    usual: float
    floor: float
    below: float | None
    above: float | None
    present: bool
    n: int


@dataclasses.dataclass(frozen=True)
class Calibration:
    """What held-out scans say of a model's passes.

    Attributes:
      slope: of the map.
      structures: name -> its own part.
      usual: statistic -> its reference (`unlike`).
      temperature: of the mean probability (`temperature`).
      scans, persons: held out.
      passes, seed: of each network, and what they are drawn from.
      space: which voxels Dice is of: "data" or "scan".
      measured: figures of how well it does on the held-out scans, each by the others; for people.
    """

    slope: float
    structures: Mapping[str, StructureMap]
    usual: Mapping[str, Usual]
    temperature: float
    scans: int
    persons: int
    passes: int
    seed: int
    space: str
    measured: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def dice(self, structure: str, found: PassedStructure) -> float | None:
        """The Dice to expect; None: too few held-out scans show this structure."""
        if structure not in self.structures:
            return None
        s = self.structures[structure]
        if not found.ml and s.present:
            return 0.0
        return _odds_back(s.dice + self.slope * (_odds(found.agreement) - s.agreement))

    def interval(self, structure: str, found: PassedStructure) -> tuple[float, float] | None:
        """The volume's in ml; None where there is no map or no volume."""
        if structure not in self.structures or not found.low_ml or not found.ml:
            return None
        s = self.structures[structure]
        if s.below is None or s.above is None:
            return None
        low, high = found.low_ml * math.exp(-s.below), found.high_ml * math.exp(s.above)
        return (min(low, high), max(low, high))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "Calibration":
        """The inverse of `to_dict`. Raises KeyError, TypeError or AttributeError: it is none."""
        return cls(
            **{
                **d,
                "structures": {k: StructureMap(**v) for k, v in d["structures"].items()},
                "usual": {k: Usual(**v) for k, v in d["usual"].items()},
            }
        )


def _odds(share: float) -> float:
    p = min(max(share, _ENDS[0]), _ENDS[1])
    return math.log(p / (1 - p))


def _odds_back(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def calibrate(
    rows: Sequence[HeldOut],
    passes: int,
    seed: int,
    space: str,
    temperature: float = 1.0,
    known: Sequence[Mapping[str, float]] = (),
) -> Calibration:
    """Fit the maps, the floors of the flags, the intervals and the references.

    Args:
      rows: the held-out scans.
      passes, seed, space, temperature: see `Calibration`.
      known: statistics of the images and registrations of scans that the network was trained on; the held-out scans
        stand in where there are fewer than `unlike.LEAST`. Volumes go by those that are predicted for the held-out
        scans: label maps of another protocol may have others.

    Raises:
      InputError: there are too few held-out scans or persons.
    """
    persons = list(dict.fromkeys(r.person for r in rows))
    if len(rows) < LEAST or len(persons) < 3:
        raise InputError(
            f"{len(rows)} held-out scans of {len(persons)} persons are too few to calibrate trust on: give a data set "
            f"with {LEAST} or more, of 3 persons or more."
        )
    whole = _fit(rows, passes, seed, space, temperature)
    if not whole.structures:
        raise InputError(f"No structure is marked in {LEAST} or more of the held-out scans: give a data set with more.")
    others = leave_one_person_out(rows)
    floors = {}
    for s, fitted in whole.structures.items():
        said = [c.dice(s, r.found[s]) for r, c in zip(rows, others, strict=True) if s in r.dice]
        values = np.array([v for v in said if v is not None])
        usual = float(values.mean()) if len(values) else _odds_back(fitted.dice)
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        floors[s] = dataclasses.replace(fitted, usual=usual, floor=max(0.0, usual - max(DROP[0] * spread, DROP[1])))
    return dataclasses.replace(whole, structures=floors, usual={**whole.usual, **usual_of(known)})


def leave_one_person_out(rows: Sequence[HeldOut]) -> list[Calibration]:
    """For each row the map and the intervals by the rows of other persons, without floors."""
    of = {p: _fit([r for r in rows if r.person != p], 0, 0, "data", 1.0) for p in {r.person for r in rows}}
    return [of[r.person] for r in rows]


def _fit(rows: Sequence[HeldOut], passes: int, seed: int, space: str, temperature: float) -> Calibration:
    shown = {s: [r for r in rows if s in r.dice] for s in dict.fromkeys(s for r in rows for s in r.dice)}
    # One fewer is enough where a person is left out to see how the map does.
    shown = {s: of for s, of in shown.items() if len(of) >= LEAST - 1}
    odds = {
        s: (np.array([_odds(r.found[s].agreement) for r in of]), np.array([_odds(r.dice[s]) for r in of]))
        for s, of in shown.items()
    }
    xy = sum((float((x - x.mean()) @ (y - y.mean())) for x, y in odds.values()), 0.0)
    xx = sum((float((x - x.mean()) @ (x - x.mean())) for x, _ in odds.values()), 0.0)
    prior = xx * PRIOR_SCANS / max(len(rows), 1)
    slope = max(0.0, (xy + prior) / (xx + prior)) if xx + prior > 0 else 1.0
    maps = {}
    for s, (x, y) in odds.items():
        below, above = _misses(shown[s], s)
        present = all(r.reference_ml[s] > 0 for r in shown[s])
        maps[s] = StructureMap(
            float(x.mean()), float(y.mean()), _odds_back(y.mean()), 0.0, below, above, present, len(x)
        )
    statistics = [with_volumes(r.statistics, r.found) for r in rows]
    persons = len({r.person for r in rows})
    return Calibration(slope, maps, usual_of(statistics), temperature, len(rows), persons, passes, seed, space)


def with_volumes(statistics: Mapping[str, float], found: Mapping[str, PassedStructure]) -> dict[str, float]:
    """Statistics of a scan's image and registration with those of the volumes that were found in it."""
    return {**statistics, **volume_statistics({s: f.ml for s, f in found.items()})}


def _misses(rows: Sequence[HeldOut], structure: str) -> tuple[float | None, float | None]:
    below, above = [], []
    for r in rows:
        found, truth = r.found[structure], r.reference_ml[structure]
        if truth > 0 and found.low_ml > 0:
            below.append(math.log(found.low_ml / truth))
            above.append(math.log(truth / found.high_ml))
    return _conformal(np.array(below)), _conformal(np.array(above))


def _conformal(misses: NDArray[np.float64]) -> float | None:
    """The order statistic that a new miss stays under with the probability of one side of `LEVEL`, or the largest."""
    if not len(misses):
        return None
    rank = math.ceil((1 + LEVEL) / 2 * (len(misses) + 1))
    return float(np.sort(misses)[min(rank, len(misses)) - 1])
