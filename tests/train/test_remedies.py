"""Remedies are refused in one sentence where they have nothing to work on."""

import math
from typing import Any

import pytest

from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.recipes import get_recipe, get_slice_recipe
from tlseg_jax.train.remedies import check_remedies, remedy_name, without_remedies

USUAL = get_recipe("default")


@pytest.mark.parametrize(
    ("given", "pretrained", "dimensions", "says"),
    [
        ({"l2sp": 0.1}, False, 3, "`l2sp=0.1` pulls towards pre-trained .* give `pretask`"),
        ({"unfreezing": "staged"}, False, 2, "`unfreezing=staged` spares pre-trained .* give `pretask`"),
        ({"unfreezing": "slowly"}, True, 3, "unfreezing named 'slowly': choose from at_once, staged"),
        ({"l2sp": -1.0}, True, 3, "`l2sp=-1.0` is not a strength"),
        ({"l2sp": math.nan}, True, 3, "`l2sp=nan` is not a strength"),
        ({"randomisation": True}, True, 2, "`randomisation` is for volumes"),
    ],
)
def test_what_is_refused(given: dict[str, Any], pretrained: bool, dimensions: int, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        check_remedies(USUAL.override(**given), pretrained, dimensions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "pretrained", "dimensions"),
    [
        ({}, False, 3),
        ({}, False, 2),
        ({"randomisation": True}, False, 3),
        ({"l2sp": 0.1, "unfreezing": "staged", "randomisation": True}, True, 3),
        ({"l2sp": 0.1, "unfreezing": "staged"}, True, 2),
    ],
)
def test_what_passes(given: dict[str, Any], pretrained: bool, dimensions: int) -> None:
    check_remedies(USUAL.override(**given), pretrained, dimensions)


def test_names_and_doing_without() -> None:
    for usual in (USUAL, get_recipe("paper"), get_slice_recipe("default", "finetune")):
        assert remedy_name(usual) == ""
        every = usual.override(l2sp=0.5, unfreezing="staged", randomisation=True)
        assert remedy_name(every) == "l2sp0.5-staged-randomised"
        assert without_remedies(every) == usual
