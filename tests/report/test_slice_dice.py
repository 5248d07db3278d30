"""The scores by volume are drawn for any models and any n."""

import math
from pathlib import Path

import pytest
from matplotlib.image import imread

from tlseg_jax.report.stats.slice_dice import draw_dice_by_model

FOUR = {f"volume-{i}": 0.2 + 0.1 * i for i in range(4)}


@pytest.mark.parametrize(
    "dice",
    [
        {None: {"A": FOUR, "B": FOUR, "C": FOUR}},
        {1: {"A": FOUR, "B": FOUR}, 4: {"A": FOUR, "B": FOUR}, None: {"A": FOUR, "B": FOUR}},
        {None: {"A": {"volume-0": 0.5}}},
        {None: {"A": {"volume-0": math.nan}, "C": {"volume-0": 0.0, "volume-1": 1.0}}},
    ],
)
def test_any_scores_are_drawn_without_a_warning(
    tmp_path: Path, dice: dict[int | None, dict[str, dict[str, float]]]
) -> None:
    draw_dice_by_model(dice, tmp_path / "dice.png", heading="mri_artery_tumour", mark="synthetic")
    picture = imread(tmp_path / "dice.png")
    assert picture.std() > 0.02 and picture.shape[1] >= 500


def test_more_n_make_a_wider_picture_and_none_are_refused(tmp_path: Path) -> None:
    one = {"A": FOUR, "B": FOUR, "C": FOUR}
    draw_dice_by_model({None: one}, tmp_path / "a.png")
    draw_dice_by_model({1: one, 2: one, 4: one}, tmp_path / "b.png")
    assert imread(tmp_path / "b.png").shape[1] > 1.5 * imread(tmp_path / "a.png").shape[1]
    with pytest.raises(ValueError, match="no scores"):
        draw_dice_by_model({}, tmp_path / "c.png")
