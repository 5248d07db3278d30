"""Data sets of slices against the report's numbers, as TOML files, and every fault named in a sentence."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from tlseg_jax.datasets.lookup import get_spec, spec_from_dict
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.datasets.spec import DatasetSpec, PlaneGrid
from tlseg_jax.runtime.errors import InputError

LEAST: dict[str, Any] = {
    "name": "mine",
    "modality": "MR",
    "structures": ["tumour"],
    "label_values": [[1]],
    "pixels": [64, 48],
}


def test_the_reports_two_data_sets() -> None:
    """Sections 1.1, 3.2.1 and 3.2.3: 30 and 20 slices a volume, 1,100 in all, 100 for test; four volumes for test."""
    lits, mri = PAPERS["lits"], PAPERS["mri_artery"]
    ct, mr = lits.planes, mri.planes
    assert (ct.with_structure, ct.without_structure, ct.max_slices, ct.test_slices) == (30, 20, 1100, 100)
    assert (ct.pixels, lits.structures, lits.target, ct.modality) == ((512, 512), ("liver", "tumour"), "tumour", "CT")
    assert set(lits.label_values[1]) < set(lits.label_values[0])  # a tumour is liver too
    assert (mr.with_structure, mr.max_slices, mr.test_volumes, mri.structures) == (0, 0, 4, ("tumour",))
    assert mr.pixels == (320, 260)


def write_toml(path: Path, values: dict[str, Any]) -> str:
    path.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items() if v is not None))
    return str(path)


WRITTEN = {
    "lits": '{"kind": "slices", "name": "lits", "modality": "CT", "structures": ["liver", "tumour"], '
    '"label_values": [[1, 2], [2]], "pixels": [512, 512], "resize": "pad", "pixel_mm": null, '
    '"other_values": "refuse", "scaling": "window", "window": [-160.0, 240.0], "with_structure": 30, '
    '"without_structure": 20, "max_slices": 1100, "neighbours": 1, "test_slices": 100, "test_volumes": 0, '
    '"split_group": "lits"}',
    "hdt_wb": '{"name": "hdt_wb", "structures": ["whole brain"], "space": "native", "dimensions": [256, 256, 192], '
    '"spacing": [1.0, 1.0, 1.2], "patch_size": [64, 64, 64], "skull_strip": false, "normalise": "volume", '
    '"flip_left_right": true, "random_patch": true, "random_rotations": true, "train_count": 306, "test_count": 76, '
    '"split_group": "hdt", "label_values": [["all"]], "exclusive": true, "unmarked_value": null, "mirror_pairs": []}',
}
"""As manifests and checkpoints hold them since there were both kinds: these bytes are in fingerprints."""


@pytest.mark.parametrize("name", WRITTEN)
def test_files_hold_what_they_always_held(name: str) -> None:
    assert json.dumps(PAPERS[name].to_dict()) == WRITTEN[name]
    assert spec_from_dict(json.loads(WRITTEN[name]), "x") == PAPERS[name]


def test_slices_may_be_exclusive_and_say_so_only_then() -> None:
    spec = spec_from_dict({"kind": "slices"} | LEAST | {"exclusive": True, "label_values": [[1]]}, "x")
    assert spec.outputs == ("background", "tumour") and spec.to_dict()["exclusive"] is True
    assert spec_from_dict(spec.to_dict(), "x") == spec
    assert "exclusive" not in spec.changed(exclusive=False).to_dict()


def test_the_fewest_fields(tmp_path: Path) -> None:
    got = get_spec(write_toml(tmp_path / "a.toml", {"kind": "slices"} | LEAST))
    assert got == DatasetSpec("mine", ("tumour",), PlaneGrid("MR", (64, 48)), "mine", ((1,),), exclusive=False)


@pytest.mark.parametrize("kind", [{}, {"kind": "slices"}])
def test_a_base_gives_what_is_not_said(kind: dict[str, str], tmp_path: Path) -> None:
    given = kind | {"base": "lits", "name": "my_ct", "pixels": [256, 256], "resize": "fit", "window": [-100, 200]}
    got = get_spec(write_toml(tmp_path / "a.toml", given))
    assert got == PAPERS["lits"].changed(name="my_ct", pixels=(256, 256), resize="fit", window=(-100.0, 200.0))


def test_every_field_survives_the_trip() -> None:
    spec = DatasetSpec(
        "all",
        ("liver", "a cyst", "tumour"),
        PlaneGrid(
            "CT",
            (96, 80),
            resize="spacing",
            pixel_mm=1.5,
            other_values="background",
            scaling="window",
            window=(-50.0, 250.5),
            with_structure=7,
            without_structure=3,
            max_slices=99,
            neighbours=2,
            test_slices=11,
            test_volumes=2,
            flip_left_right=True,
        ),
        "group",
        ((1,), (3,), (2,)),
        exclusive=True,
        unmarked_value=9,
        mirror_pairs=(("liver", "tumour"),),
    )
    defaults = {f.name: (of, f.default) for of in (spec, spec.grid) for f in dataclasses.fields(of)}
    usual = ("exclusive",)  # true of volumes
    assert all(getattr(of, k) != v for k, (of, v) in defaults.items() if k not in usual)
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict())), "x") == spec


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pixel": [64, 64]}, "unknown field 'pixel': did you mean pixels?"),
        ({"modality": None}, "lacks the field 'modality'"),
        ({"label_values": None}, "label_values must give the values of each of tumour"),
        ({"pixels": None}, "lacks the field 'pixels'"),
        ({"base": "hdt_c"}, "base = 'hdt_c' is a data set of volumes, not of slices"),
        ({"base": ["lits"]}, "base = ['lits'] must be the name of a data set"),
        ({"modality": "PET"}, "modality = 'PET' must be one of CT, MR"),
        ({"structures": "tumour"}, "structures = 'tumour' must be a list of names"),
        ({"structures": list("abcdefghi"), "label_values": [[i] for i in range(9)]}, "must be 1 to 8 different names"),
        ({"label_values": 1}, "label_values = 1 must be a list of lists of whole numbers (or names of segments)"),
        ({"label_values": [[True]]}, "must be a list of lists of whole numbers (or names of segments)"),
        ({"pixels": [64]}, "must be two whole numbers"),
        ({"pixels": [64, 8]}, "slices of 64x8 pixels are too small"),
        ({"resize": "stretch"}, "resize = 'stretch' must be one of pad, fit, spacing"),
        ({"resize": "spacing"}, "needs pixel_mm"),
        ({"pixel_mm": 0}, "pixel_mm = 0 must be a number between 0.05 and 20"),
        ({"scaling": "window"}, "the window None must be two values"),
        ({"scaling": "window", "window": [240, -160]}, "the lower one first"),
        ({"window": [1]}, "must be two numbers"),
        ({"scaling": "window", "window": [float("nan"), 100]}, "must be two numbers"),
        ({"with_structure": -1}, "with_structure = -1 must be a whole number, 0 or more"),
        ({"neighbours": 17}, "must be a whole number between 0 and 16"),
    ],
)
def test_every_bad_field_is_one_sentence(changed: dict[str, Any], said: str) -> None:
    values = {k: v for k, v in (LEAST | {"kind": "slices"} | changed).items() if v is not None}
    with pytest.raises(InputError) as e:
        spec_from_dict(values, "my.toml")
    message = str(e.value)
    assert said in message
    assert message.startswith("my.toml")
    assert "\n" not in message


@pytest.mark.parametrize("kind", ["slice", 2, ["slices"], ""])
def test_an_unknown_kind(kind: Any) -> None:
    with pytest.raises(InputError, match=r"my\.toml: kind = .* must be volumes or slices"):
        spec_from_dict(LEAST | {"kind": kind}, "my.toml")


def test_slices_where_volumes_are_wanted(tmp_path: Path) -> None:
    path = write_toml(tmp_path / "a.toml", {"kind": "slices"} | LEAST)
    for name in ("lits", path):
        with pytest.raises(InputError, match="is a data set of slices, and one of volumes is wanted"):
            get_spec(name).volumes  # noqa: B018
    with pytest.raises(InputError, match="is a data set of volumes, and one of slices is wanted"):
        get_spec("hdt_c").planes  # noqa: B018
    volumes = write_toml(tmp_path / "b.toml", {"base": "lits", "kind": "volumes", "name": "x"})
    with pytest.raises(InputError, match="base = 'lits' is a data set of slices, not of volumes"):
        get_spec(volumes)
