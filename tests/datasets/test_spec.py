"""The data sets against the numbers of Table 1, and every fault of a TOML file named."""

import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tlseg_jax.datasets.lookup import BUILT_IN, get_spec, spec_from_dict
from tlseg_jax.datasets.papers import PAPERS
from tlseg_jax.runtime.errors import InputError

# name: structure, space, dimensions, spacing, patch, skull strip, flip, random patch, rotations, train, test
TABLE_1: dict[str, tuple[Any, ...]] = {
    "hdt_c": ("caudate", "MNI305", (172, 220, 156), (1, 1, 1), (72, 112, 112), False, True, False, False, 306, 76),
    "mal_c": ("caudate", "native", (192, 192, 160), None, (80, 112, 112), False, True, False, False, 544, 118),
    "hdt_v": ("ventricle", "MNI305", (172, 220, 156), (1, 1, 1), (96, 136, 112), False, True, False, False, 306, 76),
    "hdt_wb": ("brain", "native", (256, 256, 192), (1, 1, 1.2), (64, 64, 64), False, None, True, True, 306, 76),
    "oas_c": ("caudate", "MNI305", (172, 220, 156), (1, 1, 1), (72, 112, 112), True, False, False, False, 0, 39),
}


def own(**changes: Any) -> dict[str, Any]:
    """A complete data set of the user's own, as TOML would give it."""
    return {
        "name": "mine",
        "structures": ["putamen"],
        "space": "native",
        "dimensions": [64, 64, 64],
        "spacing": [1.0, 1.0, 1.0],
        "patch_size": [32, 32, 32],
        "train_count": 8,
        "test_count": 2,
    } | changes


def toml(values: dict[str, Any]) -> str:
    """TOML of flat values: JSON's scalars and lists are valid TOML."""
    return "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items() if v is not None)


@pytest.mark.parametrize("name", TABLE_1)
def test_table_1(name: str) -> None:
    spec = get_spec(name)
    grid = spec.volumes
    structure, space, dims, spacing, patch, strip, flip, anywhere, turns, train, test = TABLE_1[name]
    assert structure in spec.shown
    assert (grid.space, grid.dimensions, grid.spacing, grid.patch_size) == (space, dims, spacing, patch)
    assert (grid.skull_strip, grid.random_patch, grid.random_rotations) == (strip, anywhere, turns)
    assert flip is None or grid.flip_left_right == flip
    assert (grid.train_count, grid.test_count) == (train, test)
    assert grid.test_fraction == test / (train + test)
    assert grid.normalise == "volume"


def test_there_are_five_and_the_hdt_sets_share_a_split() -> None:
    assert {n for n, s in PAPERS.items() if s.kind == "volumes"} == set(TABLE_1)
    groups = {n: s.split_group for n, s in PAPERS.items()}
    assert groups["hdt_c"] == groups["hdt_v"] == groups["hdt_wb"]
    assert len(set(groups.values())) == 5


@pytest.mark.parametrize("name", PAPERS)
def test_toml_and_json_round_trip(name: str, tmp_path: Path) -> None:
    spec = get_spec(name)
    path = tmp_path / "copy.toml"
    path.write_text(toml(spec.to_dict()), encoding="utf-8")
    assert get_spec(str(path)) == spec
    assert spec_from_dict(json.loads(json.dumps(spec.to_dict())), "x") == spec


def test_base_starts_from_another_set(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('base = "hdt_c"\nname = "mine"\nstructure = "putamen"\nlabel_values = [12, 51]\n')
    expected = get_spec("hdt_c").changed(name="mine", structures=("putamen",), label_values=((12, 51),))
    assert get_spec(str(path)) == expected
    other = tmp_path / "other.toml"
    other.write_text(f'base = "{path}"\nname = "other"\nspacing = "various"\n')
    assert get_spec(str(other)) == expected.changed(name="other", spacing=None)


def test_a_base_that_leads_back_to_itself_is_refused(tmp_path: Path) -> None:
    a, b = tmp_path / "a.toml", tmp_path / "b.toml"
    a.write_text(f'base = "{b}"\n')
    b.write_text(f'base = "{a}"\n')
    with pytest.raises(InputError, match="base"):
        get_spec(str(a))


def test_own_set_gets_its_own_split_and_an_absent_spacing_varies() -> None:
    values = own()
    del values["spacing"]
    spec = spec_from_dict(values, "x")
    assert spec.split_group == "mine"
    assert spec.volumes.spacing is None


BAD: list[tuple[str, Any]] = [
    ("name", ""),
    ("name", "a/b"),
    ("name", 3),
    ("structures", "x"),
    ("space", "MNI152"),
    ("normalise", "brain"),
    ("dimensions", [64, 64]),
    ("dimensions", [64, 64, 0]),
    ("dimensions", [64, 64, 1.5]),
    ("spacing", [1, 1, -1]),
    ("spacing", [1, 1, float("nan")]),
    ("patch_size", [32, 32, 33]),
    ("skull_strip", 1),
    ("train_count", -1),
    ("split_group", 7),
    ("label_values", [1.5]),
    ("label_values", ["a", " "]),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_bad_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(InputError) as e:
        spec_from_dict(own(**{field: value}), "mine.toml")
    message = str(e.value)
    assert "mine.toml" in message
    assert field in message
    assert "\n" not in message


def test_both_counts_zero_is_refused() -> None:
    with pytest.raises(InputError, match=r"train_count and test_count"):
        spec_from_dict(own(train_count=0, test_count=0), "x")


@pytest.mark.parametrize("field", ["name", "structures", "space", "dimensions", "patch_size"])
@pytest.mark.parametrize("spacing_too", [False, True])
def test_a_missing_field_is_named(field: str, spacing_too: bool) -> None:
    values = own()
    del values[field]
    if spacing_too:
        del values["spacing"]
    with pytest.raises(InputError, match=f"lacks the field '{field}'"):
        spec_from_dict(values, "x")


def test_an_unknown_field_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"patchsize.*did you mean patch_size"):
        spec_from_dict(own(patchsize=[8, 8, 8]), "x")
    with pytest.raises(InputError, match=r"'zzz': the fields are name"):
        spec_from_dict(own(zzz=1), "x")


@pytest.mark.parametrize(("typed", "meant"), [("HDT_V", "hdt_v"), ("oasc", "oas_c"), ("litz", "lits")])
def test_an_unknown_name_suggests_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"'{typed}': did you mean {meant}"):
        get_spec(typed)
    with pytest.raises(InputError, match=r"choose from hdt_c, mal_c, hdt_v, hdt_wb, oas_c, lits"):
        get_spec("qqqqqq")


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe\x00", b"a = 1\na = 2\n"])
def test_a_file_that_is_not_toml(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"bad\.toml cannot be read as TOML"):
        get_spec(str(path))


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        get_spec(str(tmp_path / "no.toml"))
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        get_spec(str(tmp_path / "folder.toml"))


@pytest.mark.parametrize(("name", "mm"), itertools.product(TABLE_1, [0.7, 1.0, 1.5, 2.0, 3.0]))
def test_at_spacing_keeps_the_field_of_view(name: str, mm: float) -> None:
    old, new = get_spec(name).volumes, get_spec(name).at_spacing(mm).volumes
    before = old.spacing or (1.0, 1.0, 1.0)
    assert new.spacing == (mm, mm, mm)
    for d0, d1, p0, p1, s in zip(old.dimensions, new.dimensions, old.patch_size, new.patch_size, before, strict=True):
        assert abs(d1 * mm - d0 * s) <= mm / 2 + 1e-9
        assert p1 % 8 == 0
        assert p0 * s <= p1 * mm + 1e-6 < p0 * s + 8 * mm + 1e-5
    same = {"spacing", "dimensions", "patch_size"}
    assert old == dataclasses.replace(new, **{k: getattr(old, k) for k in same})


def test_at_spacing_of_the_reference_comparison() -> None:
    assert get_spec("hdt_c").at_spacing(2.0).volumes.patch_size == (40, 56, 56)
    assert get_spec("hdt_c").at_spacing(1.0) == get_spec("hdt_c")


@pytest.mark.parametrize("mm", [0.0, -1.0, 0.01, 50.0, float("nan"), float("inf")])
def test_at_spacing_refuses_what_cannot_be(mm: float) -> None:
    with pytest.raises(InputError, match="spacing"):
        get_spec("hdt_c").at_spacing(mm)


def test_a_built_in_file_is_known_by_its_name() -> None:
    for path in BUILT_IN.glob("*.toml"):
        assert get_spec(path.stem) == get_spec(str(path)) and get_spec(path.stem).name == path.stem
    assert len(get_spec("brain_maps").structures) == 16
