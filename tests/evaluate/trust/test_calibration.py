"""Calibrations against data that are drawn so that the right answer is known."""

import dataclasses
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from tlseg_jax.evaluate.trust import measure
from tlseg_jax.evaluate.trust.calibration import Calibration, HeldOut, PassedStructure, calibrate, leave_one_person_out
from tlseg_jax.evaluate.trust.temperature import (
    at_temperature,
    calibration_error,
    classes,
    fit_temperature,
    sampled,
    tempered,
)
from tlseg_jax.evaluate.trust.trust_file import NAME, load_calibration, save_calibration
from tlseg_jax.evaluate.trust.unlike import image_statistics, unlike, usual_of
from tlseg_jax.evaluate.trust.verdict import Verdict, judge
from tlseg_jax.preprocess.codes import decide
from tlseg_jax.runtime.errors import InputError


def sigmoid(x: float) -> float:
    return float(1 / (1 + np.exp(-x)))


def drawn(n: int, slope: float = 0.8, noise: float = 0.05, seed: int = 0) -> list[HeldOut]:
    """Scans whose Dice follows the agreement, in logarithms of odds; b is harder; both truths are a tenth smaller."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        found, dice, truth = {}, {}, {}
        for s, level in (("a", 2.0), ("b", 0.5)):
            x = rng.normal(0, 0.5)
            dice[s] = sigmoid(level + slope * x + noise * rng.normal())
            ml = float(np.exp(rng.normal(1, 0.2)))
            found[s] = PassedStructure(sigmoid(2.5 + x), ml, 0.97 * ml, 1.03 * ml)
            truth[s] = ml * 0.9 * float(np.exp(rng.normal(0, 0.1)))
        rows.append(HeldOut(f"p{i}", found, dice, truth, {"noise": float(rng.normal(-3, 0.1))}))
    return rows


def test_the_map_is_found_again_and_is_monotone() -> None:
    c = calibrate(drawn(60), 8, 0, "scan")
    assert c.slope == pytest.approx(0.8, abs=0.1)  # drawn a little towards 1
    for agreement, predicted in (("a", 2.0), ("b", 0.5)):
        assert c.dice(agreement, PassedStructure(sigmoid(2.5), 1, 1, 1)) == pytest.approx(sigmoid(predicted), abs=0.03)
    said = [c.dice("a", PassedStructure(p, 1, 1, 1)) for p in np.linspace(0, 1, 50)]
    assert all(a is not None and b is not None and a <= b for a, b in itertools.pairwise(said))


def test_scans_in_which_dice_rises_as_agreement_falls_make_no_falling_map() -> None:
    assert calibrate(drawn(20, slope=-2), 8, 0, "scan").slope == 0
    few = calibrate(drawn(6, slope=0, noise=0.0), 8, 0, "scan")
    assert 0 < few.slope < 1  # the prior of five scans


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    c = calibrate(drawn(200), 8, 0, "scan")
    inside = []
    for r in drawn(400, seed=1):
        for s, truth in r.reference_ml.items():
            low, high = c.interval(s, r.found[s]) or (np.nan, np.nan)
            inside.append(low <= truth <= high)
    assert np.mean(inside) == pytest.approx(0.9, abs=0.04)


def test_each_person_is_judged_by_the_others() -> None:
    rows = drawn(12)
    rows[3] = dataclasses.replace(rows[3], person="p2")
    others = leave_one_person_out(rows)
    assert others[2] is others[3] and others[2].scans == 10 and others[0].scans == 11
    with pytest.raises(InputError, match="too few to calibrate"):
        calibrate(rows[:4], 8, 0, "scan")


def test_verdicts_flag_what_is_far_below_the_usual_unlike_or_not_found() -> None:
    c = calibrate(drawn(30, noise=0.02), 8, 0, "scan")
    good = drawn(1, seed=5)[0]
    assert not judge(good.found, {"noise": -3.0}, c).review
    bad = judge({**good.found, "a": PassedStructure(0.3, 3, 2, 4)}, {"noise": -3.0}, c)
    assert bad.structures["a"].flagged and not bad.structures["b"].flagged and "a 0." in bad.reasons[0]
    odd = judge(good.found, {"noise": 0.0}, c)
    assert odd.unlike[0].startswith("noise +") and not odd.review
    gone = judge({**good.found, "a": PassedStructure(1.0, 0, 0, 0)}, {"noise": -3.0}, c)
    assert gone.structures["a"].predicted == 0 and "no a was found" in gone.reasons
    assert gone.structures["a"].expected == gone.lowest == 0  # and not the agreement of empty masks
    alone = judge(good.found, {"noise": 0.0}, None)
    assert not alone.review and alone.structures["a"].predicted is None and not alone.calibrated
    assert Verdict.from_dict(json.loads(json.dumps(bad.to_dict()))) == bad


def test_a_calibration_goes_by_its_weights_and_survives_its_file(tmp_path: Path) -> None:
    c = calibrate(drawn(10), 8, 0, "scan")
    save_calibration(tmp_path, ["x"], c)
    save_calibration(tmp_path, ["x", "y"], dataclasses.replace(c, slope=0.5))
    assert load_calibration(tmp_path, ["x"]) == c
    assert load_calibration(tmp_path, ["y", "x"]) == dataclasses.replace(c, slope=0.5)
    assert load_calibration(tmp_path, ["y"]) is None and load_calibration(tmp_path / "no", ["x"]) is None
    assert isinstance(c, Calibration) and "p0" not in (tmp_path / NAME).read_text()
    (tmp_path / NAME).write_text("{")
    with pytest.raises(InputError, match=r"trust\.json is damaged"):
        load_calibration(tmp_path, ["x"])


def test_probabilities_that_mean_what_they_say_have_no_calibration_error_and_others_get_their_temperature() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (40_000, 4))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    truth = np.array([rng.choice(4, p=row) for row in p[:20_000]])
    p, logits = p[:20_000].astype(np.float32), logits[:20_000]
    assert calibration_error(p, truth) < 0.015
    sharp = np.exp(2 * logits) / np.exp(2 * logits).sum(-1, keepdims=True)
    assert calibration_error(sharp, truth) > 0.08
    t = fit_temperature(sharp, truth)
    assert t == pytest.approx(2, rel=0.05)
    assert calibration_error(tempered(sharp, t), truth) < 0.015
    sure, right, direct = sharp.max(-1), sharp.argmax(-1) == truth, 0.0
    for low in np.arange(15) / 15:
        here = (sure >= low) & ((sure < low + 1 / 15) | (low > 0.93))
        direct += here.mean() * abs(sure[here].mean() - right[here].mean()) if here.any() else 0
    assert calibration_error(sharp, truth) == pytest.approx(direct, abs=1e-6)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_temperature_changes_no_label_map(exclusive: bool) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(4), (6, 7, 8))[..., :3].astype(np.float32)
    np.testing.assert_array_equal(decide(at_temperature(p, 1.7, exclusive), exclusive), decide(p, exclusive))
    np.testing.assert_allclose(at_temperature(p, 1.0, exclusive), p, atol=1e-5)
    assert np.allclose(classes(p.reshape(-1, 3), exclusive).sum(-1), 1)
    (rows,), truth = sampled([p], decide(p, exclusive), exclusive)
    assert (rows.argmax(-1) == truth).mean() == 1


def test_the_risk_coverage_area_is_the_mean_over_all_thresholds() -> None:
    rng = np.random.default_rng(0)
    risk, sure = rng.random(30), rng.random(30)
    order = np.argsort(-sure)
    assert measure.area(sure, risk) == pytest.approx(np.mean([risk[order[: k + 1]].mean() for k in range(30)]))
    assert measure.best_area(risk) <= measure.area(sure, risk)
    assert measure.area(np.ones(30), risk) == pytest.approx(risk.mean())  # a sign that says nothing is chance
    assert measure.rank_correlation([1, 2, 3], [2, 4, 9]) == pytest.approx(1)
    assert measure.rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_a_noisy_a_blurred_and_a_shaded_image_are_unlike_smooth_ones() -> None:
    from scipy import ndimage

    rng = np.random.default_rng(0)

    def image(noise: float = 0.1) -> np.ndarray:
        smooth = ndimage.gaussian_filter(rng.standard_normal((24, 24, 24)), 2)
        return smooth / smooth.std() + noise * rng.standard_normal((24, 24, 24))

    usual = usual_of([image_statistics(image()) for _ in range(12)])
    assert not unlike(image_statistics(image()), usual)
    assert "noise" in unlike(image_statistics(image(0.6)), usual)
    assert "noise" in unlike(image_statistics(ndimage.gaussian_filter(image(), 2)), usual)
    ramp = np.linspace(-3, 3, 24)[:, None, None]
    assert "shading" in unlike(image_statistics(image() + ramp), usual)
    assert usual_of([{"x": 1.0}] * 3) == {}
