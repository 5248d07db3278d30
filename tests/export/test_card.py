"""What a card tells of a model, and what it keeps to itself."""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tests.export.conftest import SCORE
from tlseg_jax.checkpoints.checkpoint import SavedModel, load_model
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.export.card import NOT_STATED, card_text, make_card, scores_of
from tlseg_jax.export.stablehlo import PLATFORMS, calling_convention


@pytest.fixture(params=["volume_run", "slice_run"])
def run(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def card_of(run: Path, saved: SavedModel | None = None, licence: str = "CC BY 4.0", **summary: Any) -> dict[str, Any]:
    saved = saved or load_model(run)
    program = {"file": "model.stablehlo", "platforms": list(PLATFORMS), **calling_convention(saved.config)}
    return make_card(
        saved, read_json(run / "settings.json"), read_json(run / "summary.json") | summary, licence, program
    )


def test_a_card_tells_data_settings_scores_and_licence(run: Path) -> None:
    saved, card = load_model(run), card_of(run)
    d = saved.description
    assert card["licence"] == "CC BY 4.0"
    assert card["model"]["spec"] == d["spec"] and card["model"]["prepare"] == d["prepare"]
    assert card["settings"] == read_json(run / "settings.json")["job"]
    data = card["data"]
    assert (data["labelled_scans"], data["images_seen"], data["persons_seen"]) == (d["n"],) * 3
    assert data["store"] == read_json(run / "settings.json")["data"]["store"]
    assert card["model"]["seen_images"] == d["seen_images"]
    score = card["scores"]["tiny"]
    assert (score["iou_mean"], score["seen_in_training"], score["detection"]["missed"]) == (0.5, 1, 2)
    assert card["versions"]["trained"] == d["versions"] and "jax" in card["versions"]["exported"]
    text = card_text(card)
    for part in ("CC BY 4.0", "| tiny | 2 | 0.500 |", "no medical device", d["spec"]["name"], "model.stablehlo"):
        assert part in text
    assert "- recipe.learning_rate: " in text


def test_a_card_names_nobody_and_no_place(run: Path) -> None:
    saved = load_model(run)
    settings = read_json(run / "settings.json")
    names = [*settings["data"]["subjects"], *saved.description["seen_persons"], "sub-7", "vol-3", "/home/someone"]
    assert len(names) > 3 and str(SCORE["store"]).startswith("/home/someone")
    card = card_of(run)
    for text in (json.dumps(card), card_text(card)):
        for name in (*names, str(run), str(run.parent)):
            assert name not in text
    assert card["model"]["seen_persons"] == []


def test_what_is_not_known_is_said(volume_run: Path) -> None:
    card = card_of(volume_run, licence=" ", model_step=999)
    assert card["licence"] == NOT_STATED and card["scores"] == {}
    text = card_text(card)
    assert f"Licence: {NOT_STATED}." in text and "## Scores\n\nNone." in text
    assert any("No scores" in line for line in card["limits"])


def test_scores_of_another_step_are_not_this_models() -> None:
    assert scores_of({"model_step": 3, "test_sets": {"a": SCORE}}, 4) == {}
    assert list(scores_of({"model_step": 4, "test_sets": {"a": SCORE}}, 4)) == ["a"]
    assert scores_of({}, 4) == {}


def test_a_model_of_drawn_scans_is_marked(volume_run: Path) -> None:
    saved = load_model(volume_run)
    real = card_of(volume_run, saved)
    saved.description["synthetic"] = True
    drawn = card_of(volume_run, saved)
    assert "drawn" in drawn["limits"][0] and drawn["data"]["synthetic"]
    assert not any("drawn" in line for line in real["limits"])


def test_the_weights_checksum_sees_one_bit(volume_run: Path) -> None:
    saved = load_model(volume_run)
    other = copy.deepcopy(saved.params)
    before = saved.weights
    assert dataclasses.replace(saved, params=other).weights == before
    other["head"]["bias"].view("uint8")[0] ^= 1
    assert dataclasses.replace(saved, params=other).weights != before


def test_volumes_counted_on_a_template_are_left_out_of_the_card_and_it_says_so(volume_run: Path) -> None:
    old = {k: v for k, v in SCORE.items() if k not in ("mm", "detection")} | {
        "hd95_mm_mean": 9.0,
        "hd95_mm_std": 1.0,
        "distances_n": 1,
        "distances_undefined": 1,
    }
    new = old | {"mm": "person"}
    card = card_of(volume_run, test_sets={"old": old, "new": new})
    assert not any("_ml_" in k or "_mm_" in k for k in card["scores"]["old"]) and card["scores"]["old"]["n"] == 2
    assert card["scores"]["new"]["predicted_ml_mean"] == 2.0
    text = card_text(card)
    assert "| 2.00 / 3.00 | 9.00 (1) |" in text and text.count("9.00") == 1
    assert "Volumes on old were counted on a template's grid" in text
