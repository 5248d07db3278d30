"""The learning curves are drawn for any runs, and their mean and band are NumPy's."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from tests.report.test_run_curves import write_run
from tlseg_jax.evaluate.run_curves import RunCurves, read_curves
from tlseg_jax.figures.loss_curves import band, draw_curves_together, draw_own_curves
from tlseg_jax.figures.style import style_methods

NAN = float("nan")
FALLING = [float(np.exp(-i / 40)) for i in range(200)]


STYLES = style_methods("ABC")


def runs(folder: Path, model: str, seeds: int = 2, **more: Any) -> list[RunCurves]:
    return [read_curves(write_run(folder / f"{model}{s}", **more)) for s in range(seeds)]


def has_colour(path: Path, colour: str) -> bool:
    picture = imread(path)[..., :3]
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return bool((np.abs(picture - wanted).max(-1) < 0.02).sum() > 50)


CASES: dict[str, dict[str, Any]] = {
    "all": {"losses": FALLING, "draws": {10: 0.9, 100: 0.4, 200: 0.2}, "epochs": [(100, 9.0, 0.5), (200, 9.0, 0.2)]},
    "one seed": {"losses": FALLING, "seeds": 1},
    "no test loss": {"losses": FALLING, "epochs": [(200, 1.0, None)]},
    "fixed draw alone": {"losses": FALLING, "draws": {100: 0.4}, "epochs": [(200, 1.0, None)]},
    "one step": {"losses": [0.5], "epochs": [(1, 1.0, 0.5)]},
    "not a number": {"losses": [0.5, NAN, 0.4], "draws": {2: NAN}, "epochs": [(3, 1.0, NAN)]},
    "zero": {"losses": [0.0] * 30, "epochs": [(30, 1.0, 0.0)]},
    "below zero": {"losses": [-0.1 * i for i in range(30)], "epochs": [(30, 1.0, -1.0)]},
    "wide": {"losses": [10.0 ** (-i / 20) for i in range(120)], "epochs": [(120, 1.0, 1e-5)]},
    "no epochs": {"losses": FALLING, "epochs": []},
    "validated": {"losses": FALLING, "validation": {100: 0.2, 200: 0.7}, "epochs": []},
    "many epochs": {"losses": FALLING, "epochs": [(5 * i, 1.0, 0.1) for i in range(1, 41)]},
}


# Each draws what one of the others draws, of fewer runs or less of it.
LESS = ("one seed", "fixed draw alone", "zero", "wide")


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LESS)) for n in CASES])
def test_any_runs_are_drawn_without_a_warning(tmp_path: Path, name: str) -> None:
    models = {m: runs(tmp_path, m, **CASES[name]) for m in "ABC"}
    out = tmp_path / "figures"
    draw_own_curves(models["B"], out / "model_B.png", colour=STYLES["B"].colour, heading="Model B", mark="synthetic")
    draw_curves_together(models, STYLES, out / "curves.png", heading="Models A, B and C")
    assert sorted(p.name for p in out.iterdir()) == ["curves.png", "curves.svg", "model_B.png", "model_B.svg"]
    assert has_colour(out / "model_B.png", STYLES["B"].colour)
    assert all(has_colour(out / "curves.png", s.colour) for s in STYLES.values())
    assert (imread(out / "model_B.png").shape[0] > 800) == (name == "validated")
    tall = imread(out / "curves.png").shape[0] > 800
    assert tall == (name not in ("no test loss", "not a number", "no epochs", "validated"))


def test_a_model_may_be_absent(tmp_path: Path) -> None:
    own = runs(tmp_path, "A")
    draw_curves_together({"A": own}, STYLES, tmp_path / "curves.png")
    assert not has_colour(tmp_path / "curves.png", STYLES["C"].colour)


def test_the_band_is_numpys_and_runs_of_other_lengths_count_where_they_are() -> None:
    a = (np.array([1.0, 2, 3]), np.array([1.0, 3, 5]))
    b = (np.array([1.0, 3]), np.array([3.0, 1]))
    steps, mean, low, high = band([a, b])
    assert steps.tolist() == [1, 2, 3]
    assert mean.tolist() == [2, 2.5, 3] and low.tolist() == [1, 2, 1] and high.tolist() == [3, 3, 5]
    steps, mean, _, _ = band([a, (np.array([5.0, 6]), np.array([7.0, 8]))])
    assert steps.tolist() == [1, 2, 3, 5, 6] and mean.tolist() == [1, 3, 5, 7, 8]
