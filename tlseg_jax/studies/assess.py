"""Score a trained run on a prepared data set: rows, summary and the contour figure."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tlseg_jax.checkpoints.checkpoint import SavedModel
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.structures import BACKGROUND
from tlseg_jax.evaluate.inference import Tiles
from tlseg_jax.evaluate.mask_file import save_masks
from tlseg_jax.evaluate.metrics import Mask
from tlseg_jax.evaluate.readers import ScoreSpace
from tlseg_jax.evaluate.results import (
    IN_PERSON,
    SubjectRow,
    box_for,
    evaluate_store,
    read_summary,
    result_name,
    save_results,
)
from tlseg_jax.evaluate.slice_inference import predict_planes
from tlseg_jax.evaluate.tta import averaged, averaged_words, averages
from tlseg_jax.figures.contours import ContourCase, draw_contours, pick_cases
from tlseg_jax.figures.slice_examples import ExampleCase, draw_examples
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.codes import mask_of
from tlseg_jax.preprocess.original import original_scan
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.preprocess.store.records import doubts_of
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.messages import log
from tlseg_jax.train.job_record import store_digest
from tlseg_jax.train.predictors import load_predictor
from tlseg_jax.train.seen import refuse_seen, seen_subjects

ALLOW = ", or give `allow_seen` to score them all the same"


def mark_of(synthetic: bool) -> str:
    """The watermark of a figure made from drawn heads, or none."""
    return "synthetic" if synthetic else ""


def title_of(description: Mapping[str, Any]) -> str:
    """A model in words: its task, its start and its number of labelled scans."""
    pretask = description["pretask"]
    start = "end to end" if pretask == "none" else f"pre-trained on {pretask}"
    return f"{description['task']} ({start}, n = {description['n']})"


def doubts_in(store: AnyStore, split: str) -> list[str]:
    """What makes every number of a split's scans doubtful, such as an affine that was never set."""
    return doubts_of({s: store.record(s) for s in store.subjects(split)})


def is_scored(
    run: Path,
    store: AnyStore,
    *,
    distances: bool = False,
    clean: bool = True,
    tiles: Tiles | None = None,
    tta: bool = True,
    adabn: float = 0.0,
) -> bool:
    """Whether a finished run has scores of its model on a store's test subjects as they are now.

    Args:
      distances: whether HD95 and the average surface distance must be there.
      clean: whether specks must have been dropped.
      tiles: how volumes of a random patch must have been predicted; None: in any way.
      tta: whether volumes must have been predicted by the mean over their passes.
      adabn: share of the scans' own statistics that its norms must have normalised by.
    """
    summary = read_json(run / "summary.json")
    sets = summary.get("test_sets", {})
    there = [sets[name] for name in sets_of(run, store)]
    # The structures that this network and these label maps have in common; a stop may have left some of them out.
    if not there or any(name not in sets for e in there for name in e.get("together", ())):
        return False
    now = store_digest(store, store.subjects("test"))
    tta = tta and store.spec.kind == "volumes" and summary.get("recipe") != "paper"
    needed = {**IN_PERSON, **store.ml}
    return all(
        e.get("data") == now
        and needed.items() <= e.items()  # or its ml are a template's, or those of resized pixels
        and e.get("weights") == summary.get("weights")
        and (not distances or e.get("distances", store.spec.kind == "volumes"))
        and e.get("clean", True) == clean
        and e.get("tta", False) == tta
        and e.get("adabn", 0.0) == adabn
        and (tiles is None or e.get("tiles", tiles) == tiles)
        for e in there
    )


def sets_of(run: Path, store: AnyStore) -> tuple[str, ...]:
    """The test sets of a store that a finished run has scores of: of the structures that its network segments."""
    return tuple(n for n in scored_names(store) if n in read_json(run / "summary.json").get("test_sets", {}))


def scored_names(store: AnyStore) -> tuple[str, ...]:
    """The test sets in the tables, one a structure: of slices that of the structure that counts."""
    return tuple(result_name(store.spec, s) for s in store.spec.counted)


def assess(
    run: Path,
    saved: SavedModel,
    store: AnyStore,
    *,
    split: str = "test",
    distances: bool = False,
    clean: bool = True,
    tiles: Tiles = "gaussian",
    tta: bool = True,
    adabn: float = 0.0,
    space: ScoreSpace = "data",
    progress: bool = True,
    figures: bool = True,
    allow_seen: bool = False,
    named: str = "",
) -> dict[str, dict[str, Any]]:
    """Evaluate a run on a store's subjects and keep the results in the run folder.

    Writes `subjects.csv`, `summary.json` (test_sets, one a structure in common, see `result_name`; of slices with the
    detection of tumours), `predictions/NAME.npz` (the masks, see `mask_file`) and a figure. Of volumes that is
    `figures/contours_NAME.png`: the best, median and worst subject in the colours of the paper's Fig. 4. Of slices it
    is `figures/examples_NAME.png` of the last structure: in its best, median and worst volume the slice that shows
    most of it, beside the truth and the network's probability.
    The processes of a run divide the subjects, and the chief writes.

    Args:
      split: "test" or "train".
      distances: also HD95 and the average surface distance, in mm.
      clean: drop specks (`specks.without_specks`), as the run's recipe has it.
      tiles: see `predict_volume`.
      tta: score by the mean over each volume's passes (`evaluate.tta`), as the run's recipe has it; kept with them.
      adabn: see `make_predictor`; kept with the scores.
      space: see `evaluate_store`; the figure of slices is in any case of the prepared ones.
      allow_seen: score test subjects that the model was trained on, too.
      named: the model in messages, where `run` only keeps its results; "" for the run's own.

    Returns:
      Test set -> its summary; "seen_in_training" names subjects that the model was trained on.

    Raises:
      InputError: the model is of the other kind of data or shares no structure with the store, the store has voxels of
        another size than the model was trained on, or the split no subjects, or the model was trained on one of its
        test subjects.
    """
    named = named or str(run)
    if split == "test" and not allow_seen:
        refuse_seen(store, saved.description, named, ALLOW)
    spec = spec_from_dict(saved.description["spec"], named)
    if spec.kind != store.spec.kind:
        raise InputError(
            f"{store.where} holds {store.spec.kind} and the model of {named} is {saved.config.dimensions}D, for "
            f"{spec.kind}: name another run, or data of its kind."
        )
    place = place_in(store, spec, named, saved.description["patch_box"])
    tta = tta and spec.kind == "volumes" and averages(saved.description)
    predictor = load_predictor(saved, adabn)
    results = evaluate_store(
        store,
        split,
        spec,
        place,
        averaged(predictor, spec) if tta else predictor,
        channels=saved.config.channels,
        distances=distances,
        smallest=saved.description.get("smallest_pieces") if clean else None,
        tiles=tiles,
        space=space,
        progress=progress,
    )
    synthetic = bool(store.manifest.get("synthetic", False))
    seen = seen_subjects(store, split, saved.description)
    extra = {"synthetic": synthetic, "store": store.where, "seen_in_training": list(seen)}
    extra |= {"weights": saved.weights, "data": store_digest(store, store.subjects(split))}  # what the scores are of
    extra |= {"distances": distances} if store.spec.alike or distances else {}
    extra |= ({} if clean else {"clean": False}) | ({"tta": True} if tta else {}) | ({"adabn": adabn} if adabn else {})
    extra |= {"doubts": doubts_in(store, split), **store.ml}
    if spec.grid.random_patch:
        extra["tiles"] = tiles
    scored = {s: rows for s, rows in results.rows.items() if rows}  # what no label map of this split marks has none
    names = [rows[0].test_set for rows in scored.values()]
    if store.spec.alike:
        extra["together"] = names
    there = processes.chief(lambda: read_summary(run).get("test_sets", {}))
    if others := [n for n in names if n in there and there[n].get("tta", False) != tta]:
        now, before = (averaged_words(spec) if passes else "one pass" for passes in (tta, not tta))
        log.info(f"{run}: scores by {now} replace those by {before} on {', '.join(others)}.")
    entries = {}
    for structure, rows in scored.items():
        name = rows[0].test_set
        if processes.is_chief():
            masks = {r.subject: results.mask(structure, r.subject) for r in rows}
            save_masks(run / "predictions" / f"{name}.npz", masks)
        more = {"structure": structure} if "together" in extra else {}
        entries[name] = save_results(run, rows, extra | results.detection_entry(structure) | more)
        if not figures or not processes.is_chief():
            continue
        by_subject = {r.subject: r for r in rows}
        picked = pick_cases({s: r.score.iou for s, r in by_subject.items()})
        heading, mark = f"{title_of(saved.description)} tested on {name}", mark_of(synthetic)
        if isinstance(store, Store):
            cases = [_case(store, title, by_subject[s], masks[s], space) for title, s in picked.items()]
            draw_contours(cases, run / "figures" / f"contours_{name}.png", heading=heading, mark=mark)
        elif structure == list(scored)[-1]:
            of = {"network": saved}
            examples = [
                example_slice(store, s, structure, f"{title}: {s}", of, adabn=adabn) for title, s in picked.items()
            ]
            draw_examples(examples, run / "figures" / f"examples_{name}.png", heading=heading, mark=mark)
    return entries


def place_in(store: AnyStore, spec: DatasetSpec, named: str, box: dict[str, Any] | None) -> Box | None:
    """Where the run's fixed patch lies in the store's volumes; None: there is none."""
    ours, theirs = spec.grid.spacing, store.spec.grid.spacing
    if ours is not None and theirs is not None and max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) > 0.01:
        raise InputError(
            f"{store.where} was prepared at {_mm(theirs)} mm and the model of {named} was trained at {_mm(ours)} mm: "
            "prepare it at the same `spacing`."
        )
    return None if box is None else box_for(store, spec, Box.from_dict(box))


def example_slice(
    store: SliceStore, subject: str, structure: str, title: str, models: dict[str, SavedModel], adabn: float = 0.0
) -> ExampleCase:
    """The slice of a volume that shows most of a structure, with what models make of it.

    Args:
      title: of the row; the slice's number is added.
      models: name -> 2D model that segments the structure.
      adabn: see `make_predictor`.
    """
    truth = store.mask(subject, structure)
    at = int(np.argmax(truth.sum((1, 2))))
    probability = {}
    for name, saved in models.items():
        image = store.volume_image(subject, saved.config.channels)
        found = predict_planes(image, load_predictor(saved, adabn))
        ours = [o for o in saved.config.outputs if o != BACKGROUND]
        probability[name] = found[at, ..., ours.index(structure)]
    record = store.record(subject)
    z = record["planes"][record["samples"][at]]
    x, y, _ = store.spacing(subject)
    return ExampleCase(f"{title}, slice {z}", store.volume_image(subject)[at, ..., 0], truth[at], probability, (x, y))


def _case(store: Store, title: str, row: SubjectRow, predicted: Mask, space: ScoreSpace) -> ContourCase:
    subject, iou, ml = row.subject, row.score.iou, (row.score.predicted_ml, row.score.reference_ml)
    if space == "scan":
        scan = original_scan(store, subject)
        assert scan.label is not None
        truth = mask_of(scan.label, store.spec.structures.index(row.structure), store.spec.exclusive)
        return ContourCase(title, subject, iou, scan.image, predicted, truth, scan.affine, None, ml)
    image, truth = store.image(subject), store.mask(subject, row.structure)
    affine, voxel_ml = store.grid(subject).affine, store.person_grid(subject).voxel_ml
    return ContourCase(title, subject, iou, image, predicted, truth, affine, voxel_ml, ml)


def _mm(spacing: tuple[float, float, float]) -> str:
    return "x".join(f"{s:g}" for s in spacing)
