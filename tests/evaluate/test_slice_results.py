"""Scores of a store of slices against sums over its labels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import csv_rows
from tests.evaluate.slices import SPACING, ball, draw, write_slice_store
from tlseg_jax.evaluate.metrics import surface_distances
from tlseg_jax.evaluate.results import Results, evaluate_store, save_results
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError

Planes = NDArray[np.float32]
OUTPUTS = ("tumour", "liver")  # another order than the store's


def threshold(planes: Planes) -> Planes:
    """Tumour where it is dark, liver where it is bright: the tumour's pixels are missed in the liver."""
    middle = planes[..., planes.shape[-1] // 2]
    return np.stack([middle < -0.25, middle > 0.25], -1).astype(np.float32)


def evaluated(store: SliceStore, split: str = "test", network: Any = threshold, **how: Any) -> Results:
    of = how.pop("spec", store.spec.changed(structures=OUTPUTS))
    return evaluate_store(store, split, of, None, network, progress=False, **how)


def test_scores_are_those_of_the_whole_volume(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s")
    results = evaluated(store)
    assert list(results.rows) == ["liver", "tumour"]
    for bit, structure in enumerate(store.spec.structures):
        assert [r.subject for r in results.rows[structure]] == ["vol-2", "vol-3"]
        for i, row in zip((2, 3), results.rows[structure], strict=True):
            image, bits = draw(i)
            ours = (image.astype(np.float16) > 0.25) if structure == "liver" else (image.astype(np.float16) < -0.25)
            theirs = (bits & (1 << bit)) > 0
            assert row.test_set == f"tiny2d_{structure}" and row.person == f"person-{i}"
            assert row.score.iou == pytest.approx((ours & theirs).sum() / (ours | theirs).sum())
            assert row.score.dice == pytest.approx(2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()))
            assert row.score.reference_ml == pytest.approx(theirs.sum() * np.prod(SPACING) / 1000)
            assert row.score.predicted_ml == pytest.approx(ours.sum() * np.prod(SPACING) / 1000)
            assert np.array_equal(results.mask(structure, row.subject), ours)
    tumours = results.detection_entry("tumour")["detection"]
    assert (tumours["found"], tumours["missed"], tumours["false"]) == (4, 0, 0)
    assert tumours["volumes"]["vol-3"]["found"] == 2


@pytest.mark.parametrize("channels", [1, 3])
def test_neighbours_reach_the_network(tmp_path: Path, channels: int) -> None:
    store = write_slice_store(tmp_path / "s")
    wanted = evaluated(store)
    assert evaluated(store, channels=channels) == wanted


def test_a_structure_only_in_one_of_them_is_left_out(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s")
    results = evaluated(
        store, "train", lambda p: threshold(p)[..., :1], spec=store.spec.changed(structures=("tumour",))
    )
    assert list(results.rows) == ["tumour"]
    assert {r.test_set for r in results.rows["tumour"]} == {"tiny2d_tumour_train"}
    with pytest.raises(InputError, match=r"shows liver, tumour and the network segments kidney") as e:
        evaluated(store, spec=store.spec.changed(structures=("kidney",)))
    assert str(e.value).count(". ") == 0


def test_slices_with_gaps_have_no_tumours_to_count(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s", samples=(0, 1, 2, 5, 6))
    results = evaluated(store)
    entry = results.detection_entry("tumour")
    assert entry["detection"] is None
    assert "2 of 2 volume(s) of tiny2d (vol-2, vol-3) are not consecutive" in entry["no_detection"]
    bits = draw(2)[1][[0, 1, 2, 5, 6]]
    assert results.rows["tumour"][0].score.reference_ml == pytest.approx((bits & 2 > 0).sum() * np.prod(SPACING) / 1000)


def test_distances_are_those_of_the_volume_that_the_slices_make(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s")
    rows = evaluated(store, distances=True).rows["liver"]
    voxel = np.diag(np.array(SPACING)[[2, 0, 1]])  # planes first, as the samples lie
    for i, row in zip((2, 3), rows, strict=True):
        image, bits = draw(i)
        there, back = surface_distances(image.astype(np.float16) > 0.25, bits & 1 > 0, voxel)
        assert row.score.asd_mm == pytest.approx(np.concatenate([there, back]).mean())
    gaps = write_slice_store(tmp_path / "gaps", samples=(0, 1, 2, 5, 6))
    with pytest.raises(InputError, match=r"`distances` needs whole volumes. .*not consecutive"):
        evaluated(gaps, distances=True)


def test_saved_beside_other_test_sets(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s")
    (tmp_path / "summary.json").write_text('{"task": "tiny2d", "test_sets": {"other": {"n": 1}}}')
    results = evaluated(store)
    entries = {
        rows[0].test_set: save_results(tmp_path, rows, {"store": "here"} | results.detection_entry(s))
        for s, rows in results.rows.items()
    }
    assert set(entries) == {"tiny2d_liver", "tiny2d_tumour"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["task"] == "tiny2d" and set(summary["test_sets"]) == {"other", *entries}
    tumour = summary["test_sets"]["tiny2d_tumour"]
    assert tumour["store"] == "here" and tumour["detection"]["recall"] == 1 and tumour["n"] == 2
    rows = csv_rows(tmp_path / "subjects.csv")
    assert [(r["test_set"], r["subject"]) for r in rows] == [
        (f"tiny2d_{s}", v) for s in ("liver", "tumour") for v in ("vol-2", "vol-3")
    ]


def test_faults_name_the_volume(tmp_path: Path) -> None:
    store = write_slice_store(tmp_path / "s", test=0)
    with pytest.raises(InputError, match="has no test subjects"):
        evaluated(store)

    def poisoned(seed: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        image, bits = draw(seed)
        image[ball((3, 3, 3), 1)] = np.nan
        return image, bits

    def network(planes: Planes) -> Planes:
        return np.repeat(1 / (1 + np.exp(-planes)), 2, -1)

    store = write_slice_store(tmp_path / "p", drawer=poisoned)
    with pytest.raises(InputError, match="Subject vol-2 of tiny2d could not be evaluated: The network's output"):
        evaluated(store, network=network)
