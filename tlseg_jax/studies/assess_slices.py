"""Score a trained 2D run on a prepared data set of slices: rows, summaries and a figure of examples."""

from pathlib import Path
from typing import Any

import numpy as np

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.evaluate.mask_file import save_masks
from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.evaluate.results import KeptMasks, ScoreSpace, SubjectRow, common_structures, result_name
from tlseg_jax.evaluate.slice_results import evaluate_slices, predict_subject, reference_mask, save_slice_results
from tlseg_jax.figures.contours import pick_cases
from tlseg_jax.figures.slice_examples import ExampleCase, draw_examples
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime import processes
from tlseg_jax.studies.assess import ALLOW, ON_SCAN, doubts_in, mark_of, scored_of, title_of
from tlseg_jax.train.predictors import load_slice_predictor
from tlseg_jax.train.seen import refuse_seen, seen_subjects


def assess_slices(
    run: Path,
    saved: SavedModel,
    store: SliceStore,
    *,
    split: str = "test",
    progress: bool = True,
    figures: bool = True,
    allow_seen: bool = False,
    space: ScoreSpace = "data",
) -> dict[str, dict[str, Any]]:
    """Evaluate a 2D run on a store's volumes and keep the results in the run folder.

    Writes `subjects.csv` and `summary.json` (a test set for each structure in common, "NAME_STRUCTURE"), the masks
    (samples, x, y) in `predictions/NAME_STRUCTURE.npz`, and
    `figures/examples_NAME_STRUCTURE.png`: the slice that shows most of the last such structure, in its best,
    median and worst volume, beside the truth and the network's probability.
    The processes of a run divide the volumes, and the chief writes.

    Args:
      run: the run folder.
      saved: its model.
      store: the data set to test on.
      split: "test" or "train".
      progress: whether to draw a bar.
      figures: whether to draw the figure.
      allow_seen: score test volumes that the model was trained on, too.
      space: see `evaluate_slices`; the masks of "scan" are on the scans' own pixels, the figure in any case on the
        prepared ones.

    Returns:
      Test set -> its summary; "seen_in_training" names volumes that the model was trained on.

    Raises:
      InputError: the model is 3D, shares no structure with the store, the split has no volumes, or the model was
        trained on one of its test volumes.
    """
    if split == "test" and not allow_seen:
        refuse_seen(store, saved.description, str(run), ALLOW)
    predictor = load_slice_predictor(saved)
    outputs, channels = saved.config.outputs, saved.config.channels
    masks = {
        result_name(store.spec, s, split, space): KeptMasks()
        for s in common_structures(store.spec, outputs, store.where)
    }

    def keep(row: SubjectRow, mask: Mask) -> None:
        masks[row.test_set](row, mask)

    results = evaluate_slices(store, split, predictor, outputs, channels, progress=progress, keep=keep, space=space)
    for name, kept in masks.items():
        kept.gather()
        if processes.is_chief():
            save_masks(run / "predictions" / f"{name}.npz", {s: kept.mask(s) for s in store.subjects(split)})
    synthetic = bool(store.manifest.get("synthetic", False))
    extra = {
        "synthetic": synthetic,
        "store": store.where,
        "seen_in_training": list(seen_subjects(store, split, saved.description)),
        **scored_of(saved, store, split),
        "doubts": doubts_in(store, split),
        **ON_SCAN,
    }
    entries = save_slice_results(run, results, extra)
    if not figures or not processes.is_chief():
        return entries
    target = common_structures(store.spec, outputs, store.where)[-1]
    rows = results.rows[target]
    picked = pick_cases({r.subject: r.score.iou for r in rows})
    cases = [
        example_slice(store, subject, target, f"{title}: {subject}", {"network": saved})
        for title, subject in picked.items()
    ]
    draw_examples(
        cases,
        run / "figures" / f"examples_{rows[0].test_set}.png",
        heading=f"{title_of(saved.description)} tested on {rows[0].test_set}",
        mark=mark_of(synthetic),
    )
    return entries


def example_slice(
    store: SliceStore, subject: str, structure: str, title: str, models: dict[str, SavedModel], share: float = 1.0
) -> ExampleCase:
    """The slice of a volume that shows most of a structure, with what models make of it.

    Args:
      store: the data set.
      subject: the volume.
      structure: which structure.
      title: of the row; the slice's number is added.
      models: name -> 2D model that segments the structure.
      share: 1 takes the slice with most of the structure, less the one nearest to that share of it.
    """
    bits = store.volume_label(subject)
    truth = reference_mask(store, bits, structure)
    area = truth.sum((1, 2))
    at = int(np.argmin(np.abs(area - share * area.max())))
    probability = {}
    for name, saved in models.items():
        found, _ = predict_subject(store, subject, load_slice_predictor(saved), saved.config.channels)
        probability[name] = found[at, ..., saved.config.outputs.index(structure)]
    record = store.record(subject)
    z = record["planes"][record["samples"][at]]
    x, y, _ = store.spacing(subject)
    return ExampleCase(f"{title}, slice {z}", store.volume_image(subject)[at, ..., 0], truth[at], probability, (x, y))
