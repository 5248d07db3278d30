"""What is said of one prediction: for each structure its agreement, predicted Dice and interval, and why to look."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from tlseg_jax.evaluate.trust.calibration import Calibration, PassedStructure, with_volumes
from tlseg_jax.evaluate.trust.unlike import unlike


@dataclasses.dataclass(frozen=True)
class StructureVerdict:
    """Of one structure.

    Attributes:
      agreement: mean Dice of all pairs of passes.
      predicted: the Dice to expect; None where nothing calibrates it.
      low_ml, high_ml: of its volume; without a calibration the least and the most of the passes.
      flagged: whether to look at it.
    """

    agreement: float
    predicted: float | None
    low_ml: float
    high_ml: float
    flagged: bool

    @property
    def expected(self) -> float:
        """The predicted Dice, or the agreement where there is none."""
        return self.agreement if self.predicted is None else self.predicted


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Of one scan.

    Attributes:
      structures: name -> what is said of it.
      reasons: why to look at the scan, in words; empty: nothing stands out.
      unlike: statistics that are far from the known scans' and their z-scores, such as "noise +12"; where there are
        any, the predicted Dice is of scans of another kind than it was learnt on.
      calibrated: whether held-out scans stand behind it.
    """

    structures: Mapping[str, StructureVerdict]
    reasons: tuple[str, ...]
    unlike: tuple[str, ...]
    calibrated: bool

    @property
    def review(self) -> bool:
        """Whether somebody should look at the scan."""
        return bool(self.reasons)

    @property
    def lowest(self) -> float:
        """Predicted Dice, or agreement where there is none, of the structure that has least."""
        return min(s.expected for s in self.structures.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, d: Mapping[str, Any]) -> "Verdict":
        """The inverse of `to_dict`."""
        of = {k: StructureVerdict(**v) for k, v in d["structures"].items()}
        return cls(of, tuple(d["reasons"]), tuple(d["unlike"]), d["calibrated"])


def judge(
    found: Mapping[str, PassedStructure], statistics: Mapping[str, float], calibration: Calibration | None
) -> Verdict:
    """The verdict on a scan.

    Args:
      found: structure -> what passes say of it.
      statistics: of the image and its registration (`unlike`); those of the volumes are added.
      calibration: of the model; None: agreement alone is told, and only what was not found is flagged.
    """
    of, reasons, low_dice, far = {}, [], {}, {}
    for name, f in found.items():
        predicted = calibration.dice(name, f) if calibration else None
        low, high = (calibration.interval(name, f) if calibration else None) or (f.low_ml, f.high_ml)
        floor = calibration.structures[name].floor if calibration and predicted is not None else None
        flagged = not f.ml or (floor is not None and predicted is not None and predicted < floor)
        if not f.ml:
            reasons.append(f"no {name} was found")
        elif flagged and calibration and predicted is not None:
            usual = calibration.structures[name].usual
            low_dice[f"{name} {predicted:.2f} ({usual:.2f})"] = usual - predicted
        of[name] = StructureVerdict(f.agreement, predicted, low, high, flagged)
    if calibration:
        seen = with_volumes(statistics, found)
        far = {f"{name} {z:+.0f}": abs(z) for name, z in unlike(seen, calibration.usual).items()}
        if low_dice:
            lowest = sorted(low_dice, key=lambda k: -low_dice[k])
            reasons.append(f"predicted Dice below the usual: {first_of(lowest, 3)}")
    return Verdict(of, tuple(reasons), tuple(far), calibration is not None)


def first_of(names: Sequence[str], most: int) -> str:
    """The first of some names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
