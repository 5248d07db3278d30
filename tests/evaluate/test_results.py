"""Scores over a store, the files that keep them, and where the patch of a run lies in another store."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import SIDE, MakeStore, csv_rows
from tlseg_jax.datasets.lookup import get_spec
from tlseg_jax.evaluate.metrics import SubjectScore
from tlseg_jax.evaluate.results import SubjectRow, box_for, evaluate_store, format_summary, save_results
from tlseg_jax.geometry import Box
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError

WHOLE = Box((0, 0, 0), (SIDE,) * 3)


def bright(patches: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability by intensity: finds most of the bright blobs of the test store."""
    return (patches > 1.5).astype(np.float32)[..., None]


def test_rows_equal_scores_computed_directly(make_store: MakeStore) -> None:
    store = make_store(test=3)
    found = evaluate_store(store, "test", store.spec, WHOLE, bright, progress=False)
    ((structure, rows),) = found.rows.items()
    assert [r.subject for r in rows] == list(store.subjects("test"))
    for row in rows:
        p, r = store.image(row.subject).astype(np.float32) > 1.5, store.label(row.subject) > 0
        assert row.score.iou == pytest.approx((p & r).sum() / (p | r).sum())
        assert row.score.reference_ml == pytest.approx(r.sum() / 1000)
        assert row.person == store.persons[row.subject]
        assert np.array_equal(found.mask(structure, row.subject), p)
        assert row.score.hd95_mm is None
    assert {r.test_set for r in rows} == {store.spec.name}
    (trained,) = evaluate_store(store, "train", store.spec, WHOLE, bright, distances=True, progress=False).rows.values()
    assert {r.test_set for r in trained} == {f"{store.spec.name}_train"}
    assert all(r.score.hd95_mm is not None for r in trained)


def test_structure_outside_the_box_counts_as_missed(make_store: MakeStore) -> None:
    store = make_store()
    box = Box((0, 0, 0), (8, 8, 8))
    ((row, *_),) = evaluate_store(
        store, "test", store.spec, box, lambda p: np.ones_like(p)[..., None], progress=False
    ).rows.values()
    reference = store.label(row.subject) > 0
    assert row.score.reference_ml == pytest.approx(reference.sum() / 1000)
    inside = reference[:8, :8, :8].sum()
    assert row.score.iou == pytest.approx(inside / (8**3 + reference.sum() - inside))


def test_a_damaged_chunk_is_named_with_its_subject(make_store: MakeStore) -> None:
    store = make_store()
    subject = store.subjects("test")[1]
    chunk = store.folder / "subjects" / f"{subject}.zarr" / "image" / "c" / "0" / "0" / "0"
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2] ^= 0xFF
    chunk.write_bytes(data)
    with pytest.raises(InputError, match=f"Subject {subject} of tiny.*damaged.*prepare") as e:
        evaluate_store(Store(store.folder), "test", store.spec, WHOLE, bright, progress=False)
    assert "\n" not in str(e.value)


def test_a_split_without_subjects_is_refused(make_store: MakeStore) -> None:
    store = make_store(test=0)
    with pytest.raises(InputError, match="no test subjects"):
        evaluate_store(store, "test", store.spec, WHOLE, bright, progress=False)


def row(test_set: str, subject: str, iou: float, **more: Any) -> SubjectRow:
    return SubjectRow(test_set, "blob", subject, f"person, {subject}", SubjectScore(iou, 0.5, 1.0, 2.0, **more))


def test_results_merge_with_other_test_sets_and_replace_their_own(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"task": "hdt_c", "n": 16}))
    save_results(tmp_path, [row("hdt_c", "s1", 0.2), row("hdt_c", "s2", 0.4)])
    table = csv_rows(tmp_path / "subjects.csv")
    assert list(table[0]) == [
        "test_set",
        "structure",
        "subject",
        "person",
        "iou",
        "dice",
        "reference_ml",
        "predicted_ml",
    ]
    assert table[0]["person"] == "person, s1"
    entry = save_results(
        tmp_path,
        [row("oas_c", "s1", 0.6, hd95_mm=1.5, asd_mm=0.5, distances=True), row("oas_c", "s3", 0, distances=True)],
        {"tiles": "paper"},
    )
    save_results(tmp_path, [row("hdt_c", "s1", 0.8)])
    table = csv_rows(tmp_path / "subjects.csv")
    assert [(r["test_set"], r["subject"], float(r["iou"]), r["hd95_mm"]) for r in table] == [
        ("oas_c", "s1", 0.6, "1.5000"),
        ("oas_c", "s3", 0, ""),
        ("hdt_c", "s1", 0.8, ""),
    ]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["task"] == "hdt_c" and summary["n"] == 16
    assert summary["test_sets"]["oas_c"] == entry
    assert entry["tiles"] == "paper" and entry["distances_undefined"] == 1
    assert summary["test_sets"]["hdt_c"]["iou_mean"] == pytest.approx(0.8)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["subjects.csv", "summary.json"]
    assert all(entry["mm"] == "person" for entry in summary["test_sets"].values())
    text = format_summary(summary["test_sets"])
    assert [line.split()[-3:] for line in text.splitlines()[1:]] == [["-", "-", "-"], ["1.50", "-", "1"]]
    assert [line.split()[:4] for line in text.splitlines()[1:]] == [
        ["hdt_c", "1", "0.800", "-"],
        ["oas_c", "2", "0.300", "0.424"],
    ]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", "{"),
        ("summary.json", "[]"),
        ("summary.json", '{"test_sets": 3}'),
        ("subjects.csv", "a,b\n1,2\n"),
        ("subjects.csv", "test_set,subject,person,iou,dice,reference_ml,predicted_ml\nx,y\n"),
    ],
)
def test_a_damaged_results_file_is_named_and_kept(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=f"{name}.*evaluate again"):
        save_results(tmp_path, [row("hdt_c", "s1", 0.2)])
    assert (tmp_path / name).read_text() == text


def place(store: Store, spec: Any, patch_box: Box | None) -> Store:
    """The store as if prepared with another spec and box."""
    store.spec, store.patch_box = spec, patch_box
    return store


def test_the_box_on_the_same_grid_is_the_runs(make_store: MakeStore) -> None:
    box = Box((50, 60, 40), (72, 112, 112))
    store = place(make_store(), get_spec("oas_c"), Box((1, 1, 1), (72, 112, 112)))
    assert box_for(store, get_spec("hdt_c"), box) == box
    assert box_for(place(store, get_spec("mal_c"), None), get_spec("mal_c"), box) == box


def test_the_box_on_another_grid_is_at_the_stores_own_middle(make_store: MakeStore) -> None:
    run_box = Box((10, 10, 10), (80, 112, 112))
    store = place(make_store(), get_spec("hdt_c"), Box((50, 60, 40), (72, 112, 112)))
    found = box_for(store, get_spec("mal_c"), run_box)
    assert found == Box((46, 60, 40), (80, 112, 112))


@pytest.mark.parametrize("spacing", [2.0, 1.5])
def test_without_a_box_of_its_own_the_runs_is_mapped_by_mm(make_store: MakeStore, spacing: float) -> None:
    """The middle of the box stays at the same place, in mm, of the field of view."""
    there = get_spec("hdt_c")
    run_box = Box((51, 61, 41), (72, 112, 96))
    here = get_spec("oas_c").at_spacing(spacing)
    found = box_for(place(make_store(), here, None), there, run_box)
    assert found.size == run_box.size
    for axis in range(3):
        from_middle = (run_box.start[axis] + run_box.size[axis] / 2) - there.volumes.dimensions[axis] / 2
        found_mm = ((found.start[axis] + found.size[axis] / 2) - here.volumes.dimensions[axis] / 2) * spacing
        assert found_mm == pytest.approx(from_middle, abs=spacing / 2 + 1e-6)


def test_the_labels_of_a_test_set_never_place_the_box(make_store: MakeStore) -> None:
    """Reading any label would fail here."""
    store = place(make_store(), get_spec("oas_c").changed(spacing=(2.0, 2.0, 2.0)), None)
    store.label = store.image = None  # type: ignore[assignment, method-assign]
    assert box_for(store, get_spec("hdt_c"), WHOLE).size == WHOLE.size
