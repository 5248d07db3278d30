"""Scores of a network over the subjects of a prepared data set, and the two files that keep them.

RUN/subjects.csv    one row a subject and test set
RUN/summary.json    "test_sets": {name: {n, iou_mean, iou_std, dice_mean, ...}}
"""

import dataclasses
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.structures import BACKGROUND
from tlseg_jax.evaluate.detection import OVERLAP, Detection, detect, pool
from tlseg_jax.evaluate.inference import Predictor, Tiles
from tlseg_jax.evaluate.mask_file import packed, unpacked
from tlseg_jax.evaluate.metrics import Mask, SubjectScore, score, summarise
from tlseg_jax.evaluate.readers import ScoreSpace, reader_of
from tlseg_jax.evaluate.specks import without_specks
from tlseg_jax.evaluate.table import read_table, write_table
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.codes import UNMARKED, decide, mask_of
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json

COLUMNS = ("test_set", "structure", "subject", "person", "iou", "dice", "reference_ml", "predicted_ml")
_ALWAYS = tuple(c for c in COLUMNS if c != "structure")
"""What tables had before that column, too."""

DISTANCE_COLUMNS = ("hd95_mm", "asd_mm", "nsd")

IN_PERSON = {"mm": "person"}
"""In the summary of every test set whose ml and mm are the persons' own; what was scored before that was looked to, on
a template's grid, has the template's."""


@dataclasses.dataclass(frozen=True)
class SubjectRow:
    """The score of one structure of one subject, which is a scan's name, of one test set (`result_name`)."""

    test_set: str
    structure: str
    subject: str
    person: str
    score: SubjectScore

    def cells(self) -> dict[str, str]:
        """Text for each CSV column; an undefined distance is empty."""
        s = self.score
        cells = {
            "test_set": self.test_set,
            "structure": self.structure,
            "subject": self.subject,
            "person": self.person,
            "iou": f"{s.iou:.6f}",
            "dice": f"{s.dice:.6f}",
            "reference_ml": f"{s.reference_ml:.4f}",
            "predicted_ml": f"{s.predicted_ml:.4f}",
        }
        for name, value in (("hd95_mm", s.hd95_mm), ("asd_mm", s.asd_mm), ("nsd", s.nsd)):
            if s.distances:
                cells[name] = "" if value is None else f"{value:.4f}"
        return cells


def result_name(spec: DatasetSpec, structure: str, split: str = "test", space: ScoreSpace = "data") -> str:
    """The test set's name in tables: of volumes with one structure the data set's, else with the structure's."""
    parts = [spec.name, *([] if spec.alone else [structure]), *([] if split == "test" else [split])]
    return "_".join([*parts, *([] if space == "data" else [space])])


def common_structures(spec: DatasetSpec, outputs: Sequence[str], where: str) -> tuple[str, ...]:
    """The structures that a network segments and a data set shows, in the data set's order.

    A network and a data set of one structure each go together whatever they are called: so the paper tests a model of
    one data set on another.

    Raises:
      InputError: there are none.
    """
    ours = [o for o in outputs if o != BACKGROUND]
    if len(ours) == 1 and spec.alone:
        return spec.structures
    common = tuple(s for s in spec.structures if s in ours)
    if not common:
        raise InputError(
            f"{where} shows {spec.shown} and the network segments {', '.join(ours)}: "
            "they have no structure in common; give a data set that shows one of these."
        )
    return common


@dataclasses.dataclass(frozen=True)
class Results:
    """Scores of the structures that a network and a data set have in common.

    Attributes:
      rows: structure -> one row a subject.
      masks: structure -> subject -> predicted mask, packed (`mask_file`).
      detections: structure -> what was found in each subject by name; of slices, where tumours could be counted.
      no_detection: why they could not, else "".
    """

    rows: Mapping[str, tuple[SubjectRow, ...]]
    masks: Mapping[str, Mapping[str, Any]] = dataclasses.field(repr=False)
    detections: Mapping[str, Mapping[str, Detection]] = dataclasses.field(default_factory=dict)
    no_detection: str = ""

    def mask(self, structure: str, subject: str) -> Mask:
        """What was predicted of a structure in a subject: (x, y, z)."""
        return unpacked(*self.masks[structure][subject])

    def detection_entry(self, structure: str) -> dict[str, Any]:
        """Plain values for JSON: the pooled detection and each subject's, or None and the reason; of volumes none."""
        if self.no_detection:
            return {"detection": None, "no_detection": self.no_detection}
        if structure not in self.detections:
            return {}
        each = self.detections[structure]
        volumes = {s: d.to_dict() for s, d in each.items()}
        return {"detection": {"overlap": OVERLAP, **pool(each.values()).to_dict(), "volumes": volumes}}


def evaluate_store(
    store: AnyStore,
    split: str,
    spec_of_run: DatasetSpec,
    box: Box | None,
    predictor: Predictor,
    *,
    channels: int = 1,
    distances: bool = False,
    smallest: Mapping[str, float] | None = None,
    tiles: Tiles = "gaussian",
    space: ScoreSpace = "data",
    progress: bool = True,
) -> Results:
    """Predict and score each subject of a split, for every structure that the network and the store have in common.

    The reference is the whole label, so structure outside the box counts as missed; the slices of a volume that are
    samples are scored together, as one mask. Distances are in mm of the person, not of the template. Volumes are those
    of the label file and of `predict`, both in the scan's own voxels: prepared ones round outlines off.
    A structure that a subject's label map does not mark has no row; where nobody looked nothing counts.
    Of slices tumours are counted too, where the samples of all these volumes are consecutive, as it needs 3D
    components. The processes of a run divide the subjects.

    Args:
      store: the prepared data set, which may be another than the run's.
      split: "train" or "test".
      spec_of_run: what the network was trained on: structures, fixed patch or tiles, and their size.
      box, predictor, channels, tiles: see `reader_of`.
      distances: also compute HD95 and ASD; of slices where they are consecutive.
      smallest: by which specks are dropped (`specks.without_specks`); None keeps them.
      space: "scan" takes the probability to the scan's own voxels, as `predict` does, and compares it with the label
        file that was prepared.
      progress: show a bar on stderr.

    Raises:
      InputError: the split has no subjects, there is no structure in common, or a subject cannot be read or predicted
        (it is named), or see `original_scan`, `original_planes` and `Store.person_grid`, on every process.
    """
    structures = common_structures(store.spec, spec_of_run.structures, store.where)
    subjects = store.subjects(split)
    if not subjects:
        raise InputError(
            f"The prepared data set {store.where} has no {split} subjects to evaluate: "
            "prepare it with more of them (`test_fraction`, of slices `test_volumes`), or choose another data set."
        )
    persons = store.persons
    reader = reader_of(store, spec_of_run, box, predictor, channels=channels, tiles=tiles)
    names = {s: result_name(store.spec, s, split, space) for s in structures}
    # Alone, both are the one structure, whatever it is called.
    alone = len(spec_of_run.structures) == 1
    places = [0 if alone else spec_of_run.structures.index(s) for s in structures]
    scattered = reader.why_no_components(subjects)
    counting = scattered == ""
    cleaned = functools.partial(without_specks, spec=spec_of_run, smallest={} if scattered else smallest or {})
    if distances and scattered:
        raise InputError(f"`distances` needs whole volumes. {scattered}")

    def scores(some: Sequence[str]) -> list[dict[str, Any]]:
        out = []
        for subject in tqdm(some, desc=f"evaluate {store.spec.name}", unit="scan", disable=not progress, leave=None):
            try:
                reference = reader.reference(subject, space)
                probability = reader.probability(subject)
            except InputError as e:
                raise InputError(f"Subject {subject} of {store.spec.name} could not be evaluated: {e}") from None
            on_scan = cleaned(reader.on_scan(subject, probability))
            predicted = on_scan if space == "scan" else cleaned(decide(probability, spec_of_run.exclusive))
            voxel, voxel_ml = reader.voxel(subject, space), reader.scan_voxel_ml(subject)
            known = reference != UNMARKED if store.spec.unmarked_value is not None else None
            of_subject = {}
            for structure, place in zip(structures, places, strict=True):
                if structure not in store.marked(subject):
                    continue
                ours = mask_of(predicted, place, spec_of_run.exclusive)
                theirs = mask_of(reference, store.spec.structures.index(structure), store.spec.exclusive)
                if known is not None:
                    ours, theirs = ours & known, theirs & known
                found = score(ours, theirs, voxel, distances=distances)
                # Coarser voxels round thin structures off: ml are counted where the label was drawn, as `predict` does.
                reference_ml = store.label_ml(subject, structure)
                if reference_ml is not None:
                    predicted_ml = int(np.count_nonzero(mask_of(on_scan, place, spec_of_run.exclusive))) * voxel_ml
                    found = dataclasses.replace(found, reference_ml=reference_ml, predicted_ml=predicted_ml)
                tumours = dataclasses.asdict(detect(ours, theirs)) if counting else None
                of_subject[structure] = [dataclasses.asdict(found), tumours, packed(ours)]
            out.append(of_subject)
        return out

    found = dict(zip(subjects, processes.divide(subjects, scores), strict=True))
    of = {s: {v: r[s] for v, r in found.items() if s in r} for s in structures}
    rows = {
        s: tuple(SubjectRow(names[s], s, v, persons[v], SubjectScore(**r[0])) for v, r in each.items())
        for s, each in of.items()
    }
    masks = {s: {v: r[2] for v, r in each.items()} for s, each in of.items()}
    if not counting:
        return Results(rows, masks, no_detection=scattered or "")
    return Results(rows, masks, {s: {v: Detection(**r[1]) for v, r in each.items()} for s, each in of.items()})


def box_for(store: AnyStore, spec_of_run: DatasetSpec, run_box: Box) -> Box:
    """Where the run's fixed patch lies in the volumes of another prepared data set.

    1. The same grid (space, dimensions and spacing): the run's box as it is.
    2. Otherwise the middle of the tested store's own box, which comes from its training labels
       (if it has training subjects), with the run's patch size in voxels.
    3. Otherwise the run's box, moved so that its middle keeps its distance in mm from the middle
       of the grid.

    No label of a test subject may place the box. It would tell the network where the structure is,
    which nobody knows of a new scan, and would hide the failure that a generalisation test looks
    for: a structure that is not where the training data had it.

    `run_box` is in voxels of the grid of `spec_of_run`, the data set that the network was trained on, as prepared.
    """
    here, there = store.spec.volumes, spec_of_run.volumes
    if (here.space, here.dimensions, here.spacing) == (there.space, there.dimensions, there.spacing):
        return run_box
    if store.patch_box is not None:
        own = store.patch_box
        return Box.centred(_middle(own), run_box.size)
    # Voxels of varying size have no one spacing: 1 mm is their nominal one (DatasetSpec.at_spacing).
    from_mm = here.spacing or (1.0, 1.0, 1.0)
    to_mm = there.spacing or (1.0, 1.0, 1.0)
    moved = [
        (n - 1) / 2 + (c - (m - 1) / 2) * t / f
        for c, m, t, n, f in zip(_middle(run_box), there.dimensions, to_mm, here.dimensions, from_mm, strict=True)
    ]
    return Box.centred((moved[0], moved[1], moved[2]), run_box.size)


def _middle(box: Box) -> tuple[float, float, float]:
    x, y, z = (a + (s - 1) / 2 for a, s in zip(box.start, box.size, strict=True))
    return (x, y, z)


def save_results(run: Path, rows: Sequence[SubjectRow], extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write the rows of one test set to the run folder, beside those of other test sets; the chief of a run does.

    A test set that was evaluated before is replaced in both files; everything else in them stays.

    Args:
      run: the run folder, which exists.
      rows: of one test set.
      extra: plain values to keep with the summary, such as the store and the tiles.

    Returns:
      The summary of this test set, as written.

    Raises:
      InputError: an existing file there is damaged.
    """
    entry: dict[str, Any] = processes.chief(lambda: _save(run, rows[0].test_set, rows, extra))
    return entry


def keep_results(run: Path, names: Collection[str]) -> None:
    """Take the rows of all other test sets out of a run's `subjects.csv`; its summary is the caller's.

    Raises:
      InputError: the file is damaged.
    """
    path = run / "subjects.csv"
    rows = read_table(path, _ALWAYS)
    if any(r["test_set"] not in names for r in rows):
        write_table(path, list(rows[0]), [r for r in rows if r["test_set"] in names])


def _save(run: Path, name: str, rows: Sequence[SubjectRow], extra: Mapping[str, Any] | None) -> dict[str, Any]:
    summary_path, table_path = run / "summary.json", run / "subjects.csv"
    summary = read_summary(run)
    old = [r for r in read_table(table_path, _ALWAYS) if r["test_set"] != name]
    cells = [*old, *(r.cells() for r in rows)]
    extra_columns = [c for c in DISTANCE_COLUMNS if any(c in r for r in cells)]
    write_table(table_path, [*COLUMNS, *extra_columns], cells)
    entry = {**(extra or {}), **IN_PERSON, **summarise([r.score for r in rows])}
    write_json(summary_path, summary | {"test_sets": {**summary.get("test_sets", {}), name: entry}})
    return entry


def read_summary(run: Path) -> dict[str, Any]:
    """What a run's `summary.json` holds; nothing where there is none. Raises InputError: it is damaged."""
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as e:
        raise InputError(f"{path} cannot be read ({e}): move it away and evaluate again.") from None
    if not isinstance(summary, dict) or not isinstance(summary.get("test_sets", {}), dict):
        raise InputError(f"{path} is not a summary of ours: move it away and evaluate again.")
    return summary


def format_summary(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """An aligned text table, one line a test set, for the terminal; what makes its numbers doubtful stands below.

    Of a data set with several structures the last line is their mean.
    """
    distances = any("distances_n" in s for s in summaries.values())
    header: tuple[str, ...] = ("test set", "n", "IoU mean", "IoU std", "Dice mean", "predicted / reference ml")
    lines = [(*header, "HD95 mm", "NSD", "without a distance") if distances else header]
    for name, s in summaries.items():
        volumes = f"{s['predicted_ml_mean']:.2f} / {s['reference_ml_mean']:.2f}"
        lines.append((name, str(s["n"]), *_numbers(s, "iou_mean", "iou_std", "dice_mean"), volumes))
        if distances:
            left_out = s.get("distances_undefined")
            lines[-1] += (*_numbers(s, "hd95_mm_mean", "nsd_mean"), "-" if left_out is None else str(left_out))
    stores = [s["store"] for s in summaries.values() if "structure" in s]
    for store in dict.fromkeys(s for s in stores if stores.count(s) > 1):
        ours = [s for s in summaries.values() if s.get("store") == store and "structure" in s]
        mean = {k: float(np.mean([s[k] for s in ours])) for k in ("iou_mean", "dice_mean")}
        lines.append((f"mean of {len(ours)} structures", "", *_numbers(mean, "iou_mean", "iou_std", "dice_mean"), ""))
        lines[-1] += ("",) * (len(lines[0]) - len(lines[-1]))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    doubts = dict.fromkeys(d for s in summaries.values() for d in s.get("doubts", ()))
    return "\n".join(
        ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in lines]
        + [f"warning: {d}" for d in doubts]
    )


def _numbers(summary: Mapping[str, Any], *keys: str) -> tuple[str, ...]:
    """Three digits of each that is there."""
    values = [summary.get(k) for k in keys]
    return tuple(
        "-" if v is None else f"{v:.2f}" if k.startswith("hd95") else f"{v:.3f}"
        for k, v in zip(keys, values, strict=True)
    )
