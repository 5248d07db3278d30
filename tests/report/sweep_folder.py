"""A sweep's whole folder for tests: scores with known truth, and cells and stores of drawn blobs behind them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import SIDE, blob
from tests.report.sweep_results import BRAIN, Truth, make_rows, write_rows, write_study
from tlseg_jax.datasets.spec import DatasetSpec, VolumeGrid
from tlseg_jax.evaluate.mask_file import save_masks
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.store.store import write_subject
from tlseg_jax.runtime.files import write_json


def write_scans(folder: Path, name: str, subjects: Sequence[str]) -> None:
    """A prepared data set of blobs with these names, all for test."""
    spec = DatasetSpec(
        name, ("blob",), VolumeGrid("native", (SIDE,) * 3, (2.0, 2.0, 2.0), (SIDE,) * 3, test_count=len(subjects)), name
    )
    records = {}
    for i, subject in enumerate(subjects):
        write_subject(folder / "subjects" / f"{subject}.zarr", *blob(i))
        records[subject] = {
            "split": "test",
            "person": subject,
            "shape": [SIDE] * 3,
            "affine": np.diag([2.0, 2.0, 2.0, 1]).tolist(),
            "space_to_world": np.eye(4).tolist(),
        }
    manifest = {
        "format": 1,
        "spec": spec.to_dict(),
        "parameters": {},
        "subjects": records,
        "patch_box": Box((0, 0, 0), (SIDE,) * 3).to_dict(),
    }
    write_json(folder / "manifest.json", manifest)


def write_sweep(
    workdir: Path,
    name: str = "brain",
    methods: Sequence[Truth] = BRAIN[:2],
    *,
    n: Sequence[int] = (2, 4, 8),
    seeds: int = 2,
    persons: int = 4,
    cells: bool = True,
    fields: dict[str, Any] | None = None,
    **given: Any,
) -> Path:
    """WORKDIR/sweep/NAME with study.json and results.csv and, with `cells`, masks, losses and scans.

    Every prediction is the truth moved by a voxel; `fields` replace some of study.json.
    """
    sweep = workdir / "sweep" / name
    rows = make_rows(methods, n, seeds, persons, study=name, **given)
    write_rows(sweep / "results.csv", rows)
    stores: dict[str, str] = {}
    if cells:
        for test_set in dict.fromkeys(r["test_set"] for r in rows if r["role"] != "pretask"):
            subjects = list(dict.fromkeys(r["subject"] for r in rows if r["test_set"] == test_set))
            folder = workdir / "store" / test_set
            write_scans(folder, test_set, subjects)
            stores[test_set] = str(folder)
            masks = {s: np.roll(blob(i)[1] > 0, 1, axis=1) for i, s in enumerate(subjects)}
            for cell in dict.fromkeys(r["cell"] for r in rows if r["test_set"] == test_set):
                save_masks(sweep / "cells" / cell / "predictions" / f"{test_set}.npz", masks)
        for cell in dict.fromkeys(r["cell"] for r in rows if r["role"] != "pretask"):
            lines = ["step,loss,validation_iou,test_loss", *(f"{i},{0.9 * 0.95**i:.5f},," for i in range(1, 41))]
            (sweep / "cells" / cell / "history.csv").write_text("\n".join(lines) + "\n")
    shared = {k: v for k, v in given.items() if k in ("task", "unseen", "folds", "synthetic")}
    more = shared | {"stores": stores} | (fields or {})
    write_study(sweep / "study.json", methods, n=n, seeds=seeds, study=name, **more)
    return sweep
