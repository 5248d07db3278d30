"""Seconds to a score: what is told of runs, steps from two trainings, and MONAI's side on patches."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from benchmarks.plots import PLOTS, Curves, draw
from benchmarks.tables import LEVELS, seconds_to, time_to_score


def test_seconds_to_a_level_are_on_the_line_between_two_budgets() -> None:
    runs = [{"taken": 60, "dice": 0.8}, {"taken": 20, "dice": 0.6}, {"taken": 100, "dice": 0.7}]
    assert seconds_to(0.3, runs) == pytest.approx(10)  # from nothing
    assert seconds_to(0.6, runs) == pytest.approx(20)
    assert seconds_to(0.75, runs) == pytest.approx(50)
    assert seconds_to(0.81, runs) is None  # the longest was no better


def test_the_table_has_a_row_a_network_and_the_mean_over_seeds() -> None:
    def run(network: str, seed: int, budget: int, dice: float) -> dict[str, object]:
        of = {"data": "caudate", "n": 4, "network": network, "seed": seed}
        return of | {"budget": budget, "taken": budget, "dice": dice, "lowest": dice - 0.2}

    runs = [
        run("a", 0, 50, 0.6),
        run("a", 0, 100, 0.9),
        run("a", 1, 50, 0.7),
        run("a", 1, 100, 0.8),
        run("b", 0, 50, 0.5),
    ]
    (table,) = time_to_score({"runs": runs})
    a, b = table.rows
    assert a[:4] == ["caudate", "4", "a", "2"] and b[2:4] == ["b", "1"]
    assert a[4 + LEVELS.index(0.7)] == "58"  # 66.7 and 50
    assert a[4 + LEVELS.index(0.85)] == "-"  # seed 1 never came there
    assert a[-3:] == ["100", "0.850", "0.650"]
    assert set(b[4:-3]) == {"-"}


def test_the_figure_has_a_panel_a_data_set_and_means_over_its_trainings(tmp_path: Path) -> None:
    def run(fold: int, taken: float, dice: float, network: str = "a", n: int = 4) -> dict[str, object]:
        return {"data": "x", "n": n, "network": network, "fold": fold, "budget": 30, "taken": taken} | {
            "dice": dice,
            "lowest": dice / 2,
        }

    curves = PLOTS["time_to_score"]({"runs": [run(0, 28, 0.5), run(1, 32, 0.7), run(0, 30, 0.4, n=12)]})
    assert isinstance(curves, Curves) and list(curves.panels) == ["x, n = 4", "x, n = 12"]
    (point,) = curves.panels["x, n = 4"]["a"]
    assert point == pytest.approx((30, 0.6, 0.3))
    draw(curves, "t", tmp_path / "a.png")
    draw(curves, "t", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("monai") is None, reason="MONAI is not installed")
def test_monai_s_networks_learn_a_bright_cube() -> None:
    import time

    from benchmarks.peers.trained import RATES, Training

    labels = np.zeros((2, 16, 24, 16), np.uint8)
    labels[0, 4:10, 6:14, 4:10] = labels[1, 6:12, 8:16, 5:11] = 1
    images = labels.astype(np.float32) * 3 - 1
    training = Training("UNet", 2, images, labels, seed=0)
    now = time.time()
    assert training.train(now + 6, now, 2, last=False, half=False, flip=True) > 5
    found = training.predict(images[0])
    assert found.shape == images[0].shape
    assert 2 * np.sum(found & labels[0]) / (found.sum() + labels[0].sum()) > 0.5
    for name in RATES:
        assert Training(name, 3, images, labels, seed=0).predict(images[1]).max() <= 2
