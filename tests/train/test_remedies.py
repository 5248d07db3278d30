"""Remedies are refused in one sentence where they have nothing to work on."""

import dataclasses
import math
from typing import Any

import pytest

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.recipes import LATER, get_recipe
from tlseg_jax.train.remedies import check_remedies, remedy_name, without_remedies

USUAL = get_recipe("default")


@pytest.mark.parametrize(
    ("given", "pretrained", "says"),
    [
        ({"l2sp": 0.1}, False, "`l2sp=0.1` pulls towards pre-trained .* give `pretask`"),
        ({"unfreezing": "staged"}, False, "`unfreezing=staged` spares pre-trained .* give `pretask`"),
        ({"unfreezing": "slowly"}, True, "unfreezing named 'slowly': choose from at_once, staged, warmup_all"),
        ({"unfreezing": "warmup_all"}, False, "`unfreezing=warmup_all` spares pre-trained .* give `pretask`"),
        ({"layer_decay": 0.5}, False, "`layer_decay=0.5` spares pre-trained .* give `pretask`"),
        ({"layer_decay": 0.5, "unfreezing": "staged"}, True, "leave one of them out"),
        ({"layer_decay": 0.0}, True, "`layer_decay=0.0` is not a factor"),
        ({"mix_synthetic": 1.0}, True, "`mix_synthetic=1.0` is not a share of the samples"),
        ({"mix_synthetic": math.nan}, False, "`mix_synthetic=nan` is not a share"),
        ({"ema": 1.0}, True, "`ema=1.0` is not a decay"),
        ({"ema": math.nan}, False, "`ema=nan` is not a decay"),
        ({"l2sp": -1.0}, True, "`l2sp=-1.0` is not a strength"),
        ({"l2sp": math.nan}, True, "`l2sp=nan` is not a strength"),
    ],
)
def test_what_is_refused(given: dict[str, Any], pretrained: bool, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_remedies(USUAL.override(**given), pretrained)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "pretrained"),
    [
        ({}, False),
        ({"randomisation": True}, False),
        ({"ema": 0.9, "mix_synthetic": 0.3}, False),
        ({"layer_decay": 0.5, "unfreezing": "warmup_all", "ema": 0.9, "l2sp": 0.1}, True),
        ({"l2sp": 0.1, "unfreezing": "staged", "randomisation": True}, True),
        ({"l2sp": 0.1, "unfreezing": "staged"}, True),
    ],
)
def test_what_passes(given: dict[str, Any], pretrained: bool) -> None:
    check_remedies(USUAL.override(**given), pretrained)


def test_names_and_doing_without() -> None:
    for usual in (USUAL, get_recipe("paper"), get_recipe("default", "slices", "finetune")):
        assert remedy_name(usual) == ""
        every = usual.override(l2sp=0.5, unfreezing="staged", randomisation=True)
        assert remedy_name(every) == "l2sp0.5-staged-randomised"
        assert without_remedies(every) == usual
        newer = usual.override(unfreezing="warmup_all", layer_decay=0.75, ema=0.99, mix_synthetic=0.3, synthetic="mine")
        assert remedy_name(newer) == "warmup_all-layers0.75-ema0.99-mixed0.3"
        assert without_remedies(newer) == usual


def test_settings_tell_of_a_later_remedy_only_where_it_is_used() -> None:
    """Else a run of before would pass for one of other settings."""
    paper = get_recipe("paper")
    usual = paper.to_dict()
    assert not usual.keys() & set(LATER)
    assert usual.keys() | set(LATER) == {f.name for f in dataclasses.fields(paper)}
    assert paper.override(ema=0.5, label_smoothing=0.1).to_dict() == usual | {"ema": 0.5, "label_smoothing": 0.1}
