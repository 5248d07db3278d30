"""The mixed model against the analysis of variance, against known effects, and against runs that count as one."""

import itertools
import warnings
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from tlseg_jax.datasets.factors import FACTORS, Levels, design
from tlseg_jax.report.stats import mixed_model
from tlseg_jax.report.stats.mixed_model import MixedFit, Observation, fit_effects
from tlseg_jax.runtime.errors import InputError

DISEASE, SPACE, BOTH, DOUBLING = 5.0, -4.0, 3.0, 2.0
"""Effects in points: AD - HD and native - MNI305 where the other is low, what they do together, twice the n."""


def simulate(
    rng: np.random.Generator,
    data_sets: Sequence[Levels] = design("quarter"),
    n: Sequence[int] = (2, 8),
    persons: int = 5,
    model_sd: float = 2.0,
    run_sd: float = 1.0,
) -> list[Observation]:
    own = rng.normal(0, 2, persons)
    out = []
    for levels in data_sets:
        ad, native = levels.disease == "AD", levels.space == "native"
        mean = 60 + DISEASE * ad + SPACE * native + BOTH * (ad and native) + rng.normal(0, model_sd)
        for number in n:
            run = mean + DOUBLING * np.log2(number) + rng.normal(0, run_sd)
            for p in range(persons):
                score = float(run + own[p] + rng.normal(0, 1.5))
                cell = f"{levels.name} {number}"
                out.append(Observation(score, levels.name, cell, number, levels.to_dict(), f"p{p}"))
    return out


def effect(fit: MixedFit, name: str) -> mixed_model.Effect:
    (found,) = [e for e in fit.effects if e.name == name]
    return found


def test_a_balanced_design_gives_the_analysis_of_variance() -> None:
    data, models, persons = simulate(np.random.default_rng(0)), 16, 5
    fit = fit_effects(data)
    y = np.array([o.score for o in data]).reshape(models, 2, persons)
    # Mean squares: of models about their factors' effects, of runs within models, and of persons within runs.
    x = np.array([[1.0, *((1 if o.levels[f] == Levels().to_dict()[f] else -1) for f in FACTORS)] for o in data[::10]])
    beta, (ss_models,), *_ = np.linalg.lstsq(x, y.mean((1, 2)), rcond=None)
    ms_models = 2 * persons * ss_models / (models - 7)
    runs = y.mean(2)
    ms_runs = persons * ((runs - runs.mean(1, keepdims=True) - runs.mean(0) + runs.mean()) ** 2).sum() / (models - 1)
    left = y - runs[:, :, None] - y.mean((0, 1)) + y.mean()
    ms_left = (left**2).sum() / ((2 * models - 1) * (persons - 1))
    ms_persons = 2 * models * ((y.mean((0, 1)) - y.mean()) ** 2).sum() / (persons - 1)
    assert ms_models > ms_runs > ms_left < ms_persons
    wanted = {
        "pre-trained model": (ms_models - ms_runs) / (2 * persons),
        "fine-tuned model": (ms_runs - ms_left) / persons,
        "person": (ms_persons - ms_left) / (2 * models),
        "residual": ms_left,
    }
    assert {k: pytest.approx(v**0.5, rel=2e-3) for k, v in wanted.items()} == fit.deviations
    half = stats.t.ppf(0.975, models - 7) * 2 * np.sqrt(ms_models / len(data))
    for b, factor in zip(beta[1:], FACTORS, strict=True):
        e = effect(fit, factor)
        assert e.difference == pytest.approx(-2 * b) and e.df == models - 7
        assert (e.difference - e.low, e.high - e.difference) == pytest.approx((half, half), rel=1e-3)
    e = effect(fit, "labelled scans")
    assert e.difference == pytest.approx((runs[:, 1] - runs[:, 0]).mean() / 2)
    alone = stats.ttest_1samp((runs[:, 1] - runs[:, 0]) / 2, 0).confidence_interval()
    assert (e.low, e.high) == pytest.approx((alone.low, alone.high), rel=1e-3)
    assert (fit.models, fit.cells, fit.persons, fit.notes) == (16, 32, 5, ())


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    truth = {f: 0.0 for f in FACTORS} | {
        "disease": DISEASE + BOTH / 2,
        "space": SPACE + BOTH / 2,
        "disease x space": BOTH,
        "labelled scans": DOUBLING,
    }
    held = []
    for _ in range(25):
        fit = fit_effects(simulate(rng, persons=3), [("disease", "space")])
        assert {e.name for e in fit.effects} == truth.keys()
        held += [e.low <= truth[e.name] <= e.high for e in fit.effects]
    assert 0.91 <= np.mean(held) <= 0.985  # 200 intervals of 95%


def test_more_runs_from_the_same_models_are_not_more_models() -> None:
    rng = np.random.default_rng(2)
    data = simulate(rng, run_sd=0.1, persons=2)
    again = [
        Observation(o.score + rng.normal(0, 0.1), o.model, f"{o.cell} {k}", o.n, o.levels, o.person)
        for o, k in itertools.product(data, range(3))
    ]
    one, three = (effect(fit_effects(d), "disease") for d in (data, again))
    assert three.df == one.df == 9
    assert (three.high - three.low) == pytest.approx(one.high - one.low, rel=0.1)


def test_persons_tested_by_some_runs_only_do_not_shift_effects() -> None:
    data = [o for o in simulate(np.random.default_rng(3), model_sd=0.0, run_sd=0.0, persons=6)]
    # The easy person is tested by the AD models only: a plain mean would take that for an effect.
    kept = [
        Observation(o.score + 40 * (o.person == "p0"), o.model, o.cell, o.n, o.levels, o.person)
        for o in data
        if o.person != "p0" or o.levels["disease"] == "AD"
    ]
    assert effect(fit_effects(kept), "disease").difference == pytest.approx(DISEASE + BOTH / 2, abs=1.0)


def test_three_levels_are_each_compared_with_the_first() -> None:
    data = [
        Observation(50.0 + 10 * i + d, f"{level}{d}", f"{level}{d}", 4, Levels(scanner=level).to_dict())
        for i, level in enumerate(("trial", "registry", "survey"))
        for d in (-1, 0, 1)
    ]
    fit = fit_effects(data)
    assert [(e.contrast, round(e.difference, 9)) for e in fit.effects] == [
        ("registry - trial", 10.0),
        ("survey - trial", 20.0),
    ]
    # One score a model: ordinary least squares, with its t interval.
    half = stats.t.ppf(0.975, 6) * np.sqrt(1.0 * 2 / 3)
    assert fit.effects[0].high - 10 == pytest.approx(half)
    assert fit.deviations == {"residual": pytest.approx(1.0)} and fit.persons == 0


def test_as_many_effects_as_models_is_said() -> None:
    data = simulate(np.random.default_rng(4), [Levels(), Levels(disease="AD")])
    fit = fit_effects(data)
    assert "too narrow for others" in fit.notes[0] and "pre-trained model" not in fit.deviations
    with pytest.raises(InputError, match="2 runs are too few to estimate 2 coefficients"):
        fit_effects([o for o in data if o.n == 2])


def test_warnings_of_the_fit_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loud(mixed_model.MixedLM):  # type: ignore[misc]
        def fit(self, **kwargs: object) -> object:
            warnings.warn("something odd", RuntimeWarning, stacklevel=2)
            found = super().fit(**kwargs)
            found.converged = False
            return found

    monkeypatch.setattr(mixed_model, "MixedLM", Loud)
    notes = fit_effects(simulate(np.random.default_rng(5))).notes
    assert "the fit warned: something odd" in notes


def test_a_part_without_variation_is_said() -> None:
    fit = fit_effects(simulate(np.random.default_rng(6), run_sd=0.0))
    assert any("fine-tuned model is near 0" in note for note in fit.notes) == (fit.deviations["fine-tuned model"] < 0.3)
    assert all(np.isfinite([e.low, e.high]).all() for e in fit.effects)


def test_faults_are_named() -> None:
    data = simulate(np.random.default_rng(7))
    with pytest.raises(InputError, match="different levels"):
        fit_effects([*data, Observation(1.0, data[0].model, "x", 1, Levels(space="native").to_dict())])
    with pytest.raises(InputError, match="No factor takes two levels"):
        fit_effects([o for o in data if o.model == data[0].model])
    with pytest.raises(InputError, match="cannot tell apart"):
        fit_effects(data, [("structure", "disease"), ("skull", "labels")])
    with pytest.raises(InputError, match="All scores are equal"):
        fit_effects([Observation(1.0, o.model, o.cell, o.n, o.levels, o.person) for o in data])
