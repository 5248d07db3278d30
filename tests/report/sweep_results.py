"""A sweep's results.csv and study.json with known truth, for tests: no training, no scans.

A person's IoU is a - b / n^c of the method, plus what is the person's own, plus noise of the run.
"""

import csv
import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlseg_jax.evaluate.results import IN_PERSON
from tlseg_jax.studies.results_table import COLUMNS, FACTOR_COLUMNS, FACTORS


@dataclasses.dataclass(frozen=True)
class Truth:
    """A method and its learning curve a - b / n^c; `drop` is what it loses on unseen data."""

    name: str
    pretask: str = "none"
    a: float = 0.85
    b: float = 0.5
    c: float = 0.6
    drop: float = 0.1
    remedy: str = ""
    baseline: str = ""
    freeze: str = "encoder"
    factors: Mapping[str, str] = dataclasses.field(default_factory=dict, hash=False)


BRAIN = (
    Truth("MAL-C-FT", "mal_c", 0.86, 0.25, 0.7, 0.06),
    Truth("HDT-V-FT", "hdt_v", 0.85, 0.40, 0.6, 0.12),
    Truth("HDT-WB-FT", "hdt_wb", 0.85, 0.55, 0.6, 0.15),
    Truth("HDT-C-E2E", "none", 0.85, 0.80, 0.6, 0.25, freeze="nothing"),
)
REMEDIES = tuple(
    Truth(f"MAL-C-FT {r}", "mal_c", 0.86, 0.25, 0.7, drop, remedy=r, baseline="MAL-C-FT")
    for r, drop in (("staged", 0.06), ("l2sp", 0.04), ("randomised", 0.01))
)
LIVER = (
    Truth("A", "none", 0.70, 0.6, 0.6, freeze="nothing"),
    Truth("B", "lits", 0.72, 0.4, 0.6, freeze="nothing"),
    Truth("C", "lits", 0.71, 0.5, 0.6, freeze="first_two"),
)


def make_rows(
    methods: Sequence[Truth] = BRAIN,
    n: Sequence[int] = (2, 4, 8, 16),
    seeds: int = 3,
    persons: int = 6,
    *,
    study: str = "brain",
    task: str = "hdt_c",
    unseen: Sequence[str] = ("oas_c",),
    folds: int = 0,
    scans: int = 1,
    synthetic: bool = True,
    distances: bool = False,
    person_std: float = 0.03,
    noise: float = 0.02,
    bias_ml: float = 0.2,
) -> list[dict[str, str]]:
    """Rows of a results.csv as text.

    Each pre-task's own model is there too, with role "pretask". With folds, seed s tests persons whose number
    leaves s % folds; without, every seed tests all.
    """
    rng = np.random.default_rng(7)
    sets = [("target", task), *(("unseen", u) for u in unseen)]
    own = {(s, i): rng.normal(0, person_std) for _, s in sets for i in range(persons)}
    size = {(s, i, k): rng.uniform(5, 9) for _, s in sets for i in range(persons) for k in range(scans)}
    rows: list[dict[str, str]] = []

    def add(t: Truth, place: tuple[str, str, str], person: str, iou: float, reference: float, **of_run: object) -> None:
        """A scan, `place` being its role, test set and name; `of_run` are the cells that all scans of a run share."""
        iou = float(np.clip(iou, 0, 1))
        row = {"study": study, "baseline": t.baseline, "remedy": t.remedy, "pretask": t.pretask}
        row |= dict(zip(("role", "test_set", "subject"), place, strict=True)) | {"person": person}
        row |= {
            "iou": f"{iou:.6f}",
            "dice": f"{2 * iou / (1 + iou):.6f}",
            "reference_ml": f"{reference:.4f}",
            "predicted_ml": f"{max(reference + bias_ml + rng.normal(0, 0.3), 0):.4f}",
            "hd95_mm": f"{6 * (1 - iou):.4f}" if distances else "",
            "asd_mm": f"{2 * (1 - iou):.4f}" if distances else "",
            "synthetic": str(int(synthetic)),
            "steps": "100",
            "train_seconds": "12.5",
        }
        row |= {k: str(v) for k, v in of_run.items()} | {"scans": str(of_run["n"])}
        row["fold"] = str(int(row["seed"]) % folds) if folds else ""
        if any(m.factors for m in methods):
            row |= {c: t.factors.get(f, "") for f, c in zip(FACTORS, FACTOR_COLUMNS, strict=True)}
        rows.append(row)

    for pretask in dict.fromkeys(t.pretask for t in methods if t.pretask != "none"):
        run: dict[str, object] = {"n": 0, "seed": 0, "method": "", "freeze": "", "cell": f"pretrain_{pretask}"}
        for i in range(persons):
            name = f"{pretask}-{i:02d}"
            iou, reference = 0.8 + rng.normal(0, 0.05), rng.uniform(5, 9)
            add(Truth("", pretask), ("pretask", pretask, name), name, iou, reference, **run)
    for t, number, seed in itertools.product(methods, n, range(seeds)):
        cell = f"{t.name}_n{number}_s{seed}".replace(" ", "_")
        run = {"n": number, "seed": seed, "method": t.name, "freeze": t.freeze, "cell": cell}
        luck = rng.normal(0, noise)
        for (role, test_set), i in itertools.product(sets, range(persons)):
            if folds and role == "target" and i % folds != seed % folds:
                continue
            person = f"{test_set}-{i:02d}"
            mean = t.a - t.b * number**-t.c - (t.drop if role == "unseen" else 0)
            for k in range(scans):
                iou = mean + own[test_set, i] + luck + rng.normal(0, noise)
                subject = f"{person}_scan{k}" if scans > 1 else person
                add(t, (role, test_set, subject), person, iou, size[test_set, i, k], **run)
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Write rows as they are, with the columns that a sweep writes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = [*COLUMNS, *(FACTOR_COLUMNS if rows and FACTOR_COLUMNS[0] in rows[0] else ())]
    with path.open("w", encoding="utf-8", newline="") as f:
        writer = csv.DictWriter(f, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_results(path: Path, methods: Sequence[Truth] = BRAIN, **settings: Any) -> Path:
    """Write a results.csv; `settings` are those of `make_rows`."""
    return write_rows(path, make_rows(methods, **settings))


def study_dict(
    methods: Sequence[Truth] = BRAIN,
    n: Sequence[int] = (2, 4, 8, 16),
    seeds: int = 3,
    *,
    study: str = "brain",
    task: str = "hdt_c",
    unseen: Sequence[str] = ("oas_c",),
    folds: int = 0,
    synthetic: bool = True,
    kind: str = "volumes",
    **fields: Any,
) -> dict[str, Any]:
    """A study.json as plain values; `fields` replace or add some."""
    return {
        "name": study,
        "kind": kind,
        "task": task,
        "unseen": list(unseen),
        "n": list(n),
        "seeds": seeds,
        "folds": folds,
        "methods": [
            {
                "name": t.name,
                "pretask": t.pretask,
                "freeze": t.freeze,
                "remedy": t.remedy,
                "baseline": t.baseline,
                "factors": dict(t.factors),
            }
            for t in methods
        ],
        "synthetic": synthetic,
        **IN_PERSON,
        "settings": {"network": "switch32", "steps": "100"},
        "stores": {},
        "exclusions": {task: [{"subject": "sub-99", "reason": "the label is empty"}]},
        "failed": [],
        "missing": [],
        "seconds": 123.4,
    } | fields


def write_study(path: Path, methods: Sequence[Truth] = BRAIN, **settings: Any) -> Path:
    """Write a study.json; `settings` are those of `study_dict`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(study_dict(methods, **settings)), encoding="utf-8")
    return path
