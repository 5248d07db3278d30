"""Which kind of brain label map values are from: real tables, and maps of other organs that count from 1 too."""

import csv
from pathlib import Path

import pytest

from tlseg_jax.datasets.label_names import LABEL_NAMES, table_of, values_in_words

NAMES = Path(__file__).parents[3] / "shared" / "data" / "brain_oasis" / "labels.csv"


@pytest.mark.parametrize("count", [2, 4, 13, 15, 46, 60, 104, 117])  # BTCV, AMOS, TotalSegmentator and their kind
def test_maps_of_organs_that_count_from_one_are_neither(count: int) -> None:
    assert table_of(range(1, count + 1)) == ""


@pytest.mark.parametrize(
    ("values", "table"),
    [
        ({11, 50}, "FreeSurfer"),
        ({36, 37}, "Neuromorphometrics"),
        ({11}, ""),
        (set(), ""),
        ({4, 43, 1001, 2035}, "FreeSurfer"),
    ],
)
def test_a_pair_is_enough_to_tell_a_table(values: set[int], table: str) -> None:
    assert table_of(values) == table


def test_values_are_ranges_and_the_structure_asked_for_comes_first() -> None:
    assert values_in_words({3, 1, 2, 7}, "liver") == "1-3, 7"
    text = values_in_words({2, 41, 4, 43, 17}, "lateral ventricle")
    assert text.startswith("2, 4, 17, 41, 43; by FreeSurfer's names 4 Left Lateral Ventricle, 43 Right Lateral")
    assert text.endswith("2 Left Cerebral White Matter, 17 Left Hippocampus, 41 Right Cerebral White Matter")


def test_neuromorphometrics_names_are_those_of_the_published_table() -> None:
    if not NAMES.exists():
        pytest.skip("no real scans here")
    with NAMES.open() as f:
        published = {int(r["Label Number"]): r["Label Name"] for r in csv.DictReader(f)}
    ours = {v: n.lower() for v, n in LABEL_NAMES["Neuromorphometrics"].items()}
    assert ours == {v: published[v].lower() for v in ours}
