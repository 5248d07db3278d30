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


@pytest.mark.parametrize("name", PAPERS)
def test_names_give_either_kind_and_come_back_from_json(name: str) -> None:
    spec = get_spec(name)
    assert spec.name == name
    assert spec.kind == ("slices" if name in ("lits", "mri_artery") else "volumes")
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict())), "x") == spec


def write_toml(path: Path, values: dict[str, Any]) -> str:
    path.write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items() if v is not None))
    return str(path)


@pytest.mark.parametrize("name", ["lits", "mri_artery"])
def test_a_toml_file_of_all_fields_gives_the_same_spec(name: str, tmp_path: Path) -> None:
    spec = PAPERS[name]
    assert get_spec(write_toml(tmp_path / "a.toml", spec.to_dict())) == spec


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
        ({"colour": 1}, "unknown field 'colour'"),
        ({"pixel": [64, 64]}, "unknown field 'pixel': did you mean pixels?"),
        ({"name": None}, "lacks the field 'name'"),
        ({"modality": None}, "lacks the field 'modality'"),
        ({"structures": None}, "lacks the field 'structures'"),
        ({"label_values": None}, "label_values must give the values of each of tumour"),
        ({"pixels": None}, "lacks the field 'pixels'"),
        ({"base": "hdt_c"}, "base = 'hdt_c' is a data set of volumes, not of slices"),
        ({"base": ["lits"]}, "base = ['lits'] must be the name of a data set"),
        ({"base": 3}, "base = 3 must be the name of a data set"),
        ({"name": 5}, "name = 5 must be text"),
        ({"name": ""}, "names a folder"),
        ({"name": "a/b"}, "names a folder"),
        ({"name": ".."}, "names a folder"),
        ({"name": "a b"}, "names a folder"),
        ({"split_group": 1}, "split_group = 1 must be text"),
        ({"modality": "PET"}, "modality = 'PET' must be one of CT, MR"),
        ({"modality": ["CT"]}, "modality = ['CT'] must be one of"),
        ({"structures": "tumour"}, "structures = 'tumour' must be a list of names"),
        ({"structures": ["tumour", 1]}, "must be a list of names"),
        ({"structures": []}, "must be 1 to 8 different names"),
        ({"structures": ["a", "a"], "label_values": [[1], [2]]}, "must be 1 to 8 different names"),
        ({"structures": list("abcdefghi"), "label_values": [[i] for i in range(9)]}, "must be 1 to 8 different names"),
        ({"structures": ["liver/tumour"]}, "'liver/tumour' is in the names of files"),
        ({"structures": ["..\\tumour"]}, "is in the names of files"),
        ({"label_values": 1}, "label_values = 1 must be a list of lists of whole numbers (or names of segments)"),
        ({"label_values": [[1.5]]}, "must be a list of lists of whole numbers (or names of segments)"),
        ({"label_values": [[True]]}, "must be a list of lists of whole numbers (or names of segments)"),
        ({"label_values": [[1], [2]]}, "must give the values of each of tumour"),
        ({"label_values": [[]]}, "must give the values of each of tumour"),
        ({"pixels": 64}, "pixels = 64 must be two whole numbers"),
        ({"pixels": [64]}, "must be two whole numbers"),
        ({"pixels": [64, 64, 64]}, "must be two whole numbers"),
        ({"pixels": [64, 64.5]}, "must be two whole numbers"),
        ({"pixels": [64, 8]}, "slices of 64x8 pixels are too small"),
        ({"pixels": [-64, 64]}, "too small"),
        ({"resize": "stretch"}, "resize = 'stretch' must be one of pad, fit, spacing"),
        ({"resize": "spacing"}, "needs pixel_mm"),
        ({"pixel_mm": 0}, "pixel_mm = 0 must be a number between 0.05 and 20"),
        ({"pixel_mm": "1"}, "must be a number between 0.05 and 20"),
        ({"pixel_mm": float("nan")}, "must be a number between 0.05 and 20"),
        ({"other_values": True}, "other_values = True must be one of refuse, background"),
        ({"scaling": "none"}, "scaling = 'none' must be one of window, zscore"),
        ({"scaling": "window"}, "the window None must be two values"),
        ({"scaling": "window", "window": [5, 5]}, "the lower one first"),
        ({"scaling": "window", "window": [240, -160]}, "the lower one first"),
        ({"window": [1]}, "must be two numbers"),
        ({"window": ["a", "b"]}, "must be two numbers"),
        ({"scaling": "window", "window": [float("nan"), 100]}, "must be two numbers"),
        ({"scaling": "window", "window": [-float("inf"), float("inf")]}, "must be two numbers"),
        ({"with_structure": -1}, "with_structure = -1 must be a whole number, 0 or more"),
        ({"without_structure": 1.5}, "must be a whole number, 0 or more"),
        ({"max_slices": "many"}, "must be a whole number, 0 or more"),
        ({"neighbours": True}, "must be a whole number between 0 and 16"),
        ({"neighbours": 17}, "must be a whole number between 0 and 16"),
        ({"test_slices": None, "test_volumes": [4]}, "test_volumes = [4] must be a whole number, 0 or more"),
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


@pytest.mark.parametrize("base", [["lits"], {"a": 1}, 3])
def test_a_base_that_is_no_name_without_a_kind(base: Any) -> None:
    with pytest.raises(InputError, match="must be the name of a data set"):
        spec_from_dict({"base": base, "name": "x"}, "my.toml")


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


def test_a_wrong_name_suggests_names_of_both_kinds() -> None:
    with pytest.raises(InputError, match="did you mean lits"):
        get_spec("litz")
    with pytest.raises(InputError, match="did you mean hdt_wb"):
        get_spec("hdt_bw")
    with pytest.raises(InputError, match=r"choose from .*hdt_c.*lits"):
        get_spec("zzzzzz")


@pytest.mark.parametrize("text", ["kind = ", "\xff", "kind = 'slices'\nname = 'a"])
def test_a_file_that_is_no_toml(text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match="cannot be read as TOML") as e:
        get_spec(str(path))
    assert "\n" not in str(e.value)
    with pytest.raises(InputError, match="does not exist"):
        get_spec(str(tmp_path / "none.toml"))
