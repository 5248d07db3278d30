"""What a forest of components does to the predictions on test volumes, before and after, and its two files.

FOLDER/effect.csv     one row a test volume
FOLDER/effect.json    the totals
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tlseg_jax.datasets.structures import BACKGROUND
from tlseg_jax.evaluate.detection import Detection, detect, label_components, pool
from tlseg_jax.evaluate.false_positives import Forest, PredictedVolume, true_components
from tlseg_jax.evaluate.inference import THRESHOLD
from tlseg_jax.evaluate.metrics import Mask, score
from tlseg_jax.evaluate.results import common_structures
from tlseg_jax.evaluate.slice_inference import SlicePredictor, predict_planes
from tlseg_jax.evaluate.table import write_table
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

ORGAN = "liver"
"""The output whose prediction distances are measured to, where a network has it besides the target."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """One prediction against its reference.

    Attributes:
      true_components: components with at least half of their voxels in the reference.
      false_components: the others.
      detection: see `detect`.
      dice: of the whole mask.
    """

    true_components: int
    false_components: int
    detection: Detection
    dice: float


@dataclasses.dataclass(frozen=True)
class ForestEffect:
    """One test volume before and after the forest."""

    subject: str
    before: Agreement
    after: Agreement


def predicted_volumes(
    store: SliceStore,
    subjects: Sequence[str],
    predictor: SlicePredictor,
    outputs: Sequence[str],
    channels: int,
    structure: str,
    *,
    progress: bool = True,
) -> Iterator[PredictedVolume]:
    """Predict volumes of a store, one at a time as they are asked for; faults in the choice are raised at once.

    Args:
      store: the prepared data set.
      subjects: which volumes; their samples must be consecutive slices.
      predictor, outputs, channels: the network, and the names of its outputs, in order.
      structure: what is to be cleaned, one of the outputs and of the store's structures.
      progress: show a bar on stderr.

    Raises:
      InputError: the structure is not in both, slices are not consecutive, or a volume cannot be read or
        predicted.
    """
    if structure not in common_structures(store.spec, outputs, store.where):
        raise InputError(
            f"The structure '{structure}' is not both an output of the network ({', '.join(outputs)}) and labelled "
            f"in {store.where} ({', '.join(store.spec.structures)}): choose another."
        )
    scattered = store.scattered(subjects)
    if scattered:
        raise InputError(scattered)
    shown = [o for o in outputs if o != BACKGROUND]
    with_organ = ORGAN in shown and structure != ORGAN

    def predict(subject: str) -> PredictedVolume:
        try:
            probability = predict_planes(store.volume_image(subject, channels), predictor)
            truth = store.mask(subject, structure)
        except InputError as e:
            raise InputError(f"Subject {subject} of {store.spec.name} could not be evaluated: {e}") from None
        return PredictedVolume(
            subject,
            probability[..., shown.index(structure)],
            store.volume_image(subject)[..., 0],
            store.spacing(subject),
            truth,
            probability[..., shown.index(ORGAN)] > THRESHOLD if with_organ else None,
        )

    bar = tqdm(subjects, desc=f"predict {store.spec.name}", unit="volume", disable=not progress)
    return (predict(subject) for subject in bar)


def measure_effect(forest: Forest, volumes: Iterable[PredictedVolume]) -> tuple[ForestEffect, ...]:
    """Compare predictions with and without the forest, on volumes that it has not learnt from.

    Raises:
      ValueError: it has learnt from one of them.
    """
    effects = []
    for v in volumes:
        if v.subject in forest.subjects:
            raise ValueError(f"the forest has learnt from {v.subject}")
        mask = v.mask
        kept = forest.keep(v.probability, mask, v.image, v.spacing, v.liver)
        effects.append(ForestEffect(v.subject, _agreement(mask, v), _agreement(kept, v)))
    return tuple(effects)


def _agreement(mask: Mask, volume: PredictedVolume) -> Agreement:
    labels, count = label_components(mask)
    true = int(np.count_nonzero(true_components(labels, volume.reference)))
    dice = score(mask, volume.reference, volume.spacing).dice
    return Agreement(true, count - true, detect(mask, volume.reference), dice)


def total(agreements: Sequence[Agreement]) -> dict[str, Any]:
    """Counts added up over volumes, precision and recall of the pooled tumours, and the mean Dice."""
    return {
        "true_components": sum(a.true_components for a in agreements),
        "false_components": sum(a.false_components for a in agreements),
        **pool(a.detection for a in agreements).to_dict(),
        "dice_mean": float(np.mean([a.dice for a in agreements])),
    }


def save_effect(folder: Path, effects: Sequence[ForestEffect], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Write effect.csv and effect.json into a folder that exists.

    Returns:
      What effect.json holds: `extra`, the number of volumes "n", and the totals "before" and "after".
    """
    keys = ("true_components", "false_components", "found", "missed", "false", "dice")
    columns = ["subject", *(f"{k}_{when}" for k in keys for when in ("before", "after"))]
    write_table(folder / "effect.csv", columns, [_cells(e) for e in effects])
    entry = {
        **extra,
        "n": len(effects),
        "before": total([e.before for e in effects]),
        "after": total([e.after for e in effects]),
    }
    write_json(folder / "effect.json", entry)
    return entry


def _cells(effect: ForestEffect) -> dict[str, str]:
    cells = {"subject": effect.subject}
    for when, a in (("before", effect.before), ("after", effect.after)):
        d = a.detection
        values = {"true_components": a.true_components, "false_components": a.false_components}
        values |= {"found": d.found, "missed": d.missed, "false": d.false}
        cells |= {f"{k}_{when}": str(v) for k, v in values.items()} | {f"dice_{when}": f"{a.dice:.6f}"}
    return cells


def format_effect(entry: Mapping[str, Any]) -> str:
    """An aligned text table of the totals, for the terminal; "-" is a value that does not exist."""
    names = {
        "true_components": "components at least half in the reference",
        "false_components": "components less than half in it",
        "found": "labelled components found at 50% overlap",
        "missed": "labelled components missed",
        "false": "components that find none",
        "precision": "detection precision",
        "recall": "detection recall",
        "dice_mean": "mean Dice",
    }

    def text(value: Any) -> str:
        return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = [(f"{entry['n']} test volume(s)", "before", "after")]
    lines += [(title, text(entry["before"][k]), text(entry["after"][k])) for k, title in names.items()]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(f"{a:<{widths[0]}}  {b:>{widths[1]}}  {c:>{widths[2]}}" for a, b, c in lines)
