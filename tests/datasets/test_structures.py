"""What a data set's labels show, by name and by value."""

from pathlib import Path

import pytest

from tlseg_jax.datasets.label_names import PRESETS
from tlseg_jax.datasets.lookup import get_spec, spec_from_dict
from tlseg_jax.datasets.spec import DatasetSpec
from tlseg_jax.datasets.structures import check_structures, mirrored, structures_from
from tlseg_jax.runtime.errors import InputError


def test_structures_are_written_by_value_or_by_a_table_s_names() -> None:
    assert structures_from("caudate:11+50, ventricle:4+43") == (("caudate", "ventricle"), ((11, 50), (4, 43)))
    assert structures_from("liver:Liver") == (("liver",), (("Liver",),))
    names, values = structures_from("freesurfer:caudate,putamen_left,neuromorphometrics:caudate_right,mine:7")
    assert names == ("caudate", "putamen_left", "caudate_right", "mine") and values == ((11, 50), (12,), (36,), (7,))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("caudate", "cannot be read at 'caudate'"),
        ("caudate:", "cannot be read at 'caudate:'"),
        ("caudate:11++50", "cannot be read at"),
        ("", "cannot be read at ''"),
        ("freesurfer:caudat", "did you mean caudate"),
        ("totalsegmentator:heart,", "cannot be read at ''"),
    ],
)
def test_what_cannot_be_read_is_said_with_an_example(text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        structures_from(text)


def test_totalsegmentator_s_values_are_those_of_its_second_version() -> None:
    of = PRESETS["totalsegmentator"]
    for name, value in {"spleen": 1, "kidney_left": 3, "liver": 5, "pancreas": 7, "sacrum": 25, "aorta": 52}.items():
        assert of[name] == (value,)
    assert of["spinal_cord"] == (79,) and of["brain"] == (90,) and of["skull"] == (91,)


def test_partners_change_places_in_a_mirror_and_a_side_without_one_stops_it() -> None:
    assert mirrored(("a", "b_left", "c", "b_right")) == (0, 3, 2, 1)
    assert mirrored(("near", "far"), [("near", "far")]) == (1, 0)
    assert mirrored(("b_left", "c")) is None


def spec(**values: object) -> DatasetSpec:
    return spec_from_dict({"base": "hdt_c", "name": "mine"} | values, "mine.toml")


def test_a_file_names_structures_in_a_table_a_list_or_as_one() -> None:
    table = spec(structures={"caudate_left": [11], "caudate_right": 50})
    assert table.structures == ("caudate_left", "caudate_right") and table.label_values == ((11,), (50,))
    assert table.outputs == ("background", "caudate_left", "caudate_right") and table.mirrored == (1, 0)
    assert spec(structures=["a", "b"], label_values=[[1], [2, 3]]).label_values == ((1,), (2, 3))
    one = spec(structure="putamen", label_values=[12, 51])
    assert one.structures == ("putamen",) and one.label_values == ((12, 51),)
    assert spec(label_values="all").label_values == (("all",),) and spec().structures == get_spec("hdt_c").structures
    for again in (table, one):
        assert spec_from_dict(again.to_dict(), "again") == again


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"structures": {"a": [1], "b": [1, 2]}}, "value 1 makes both 'a' and 'b'"),
        ({"structures": ["a", "b"], "label_values": [[1]]}, "values of each of a, b"),
        ({"structures": ["a", "b"], "label_values": [[1], []]}, "which label values make 'b'"),
        ({"structures": ["a", "a"], "label_values": [[1], [2]]}, "different names"),
        ({"structures": ["background"], "label_values": [[1]]}, "give the structure another name"),
        ({"structures": ["a/b"], "label_values": [[1]]}, "leave out '/'"),
        ({"structures": {"a": [1]}, "label_values": [1]}, "leave them out"),
        ({"structures": ["a"], "structure": "a", "label_values": [1]}, "keep the second"),
        ({"structures": {"a": [1], "b": [2]}, "mirror_pairs": [["a", "c"]]}, "must be pairs of a, b"),
        ({"structures": {chr(97 + i): [i + 1] for i in range(9)}, "exclusive": False}, "1 to 8 different names"),
    ],
)
def test_what_does_not_fit_is_one_sentence(values: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said) as e:
        spec(**values)
    assert str(e.value).startswith("mine.toml") and "\n" not in str(e.value)


def test_structures_that_contain_each_other_may_share_values() -> None:
    nested = spec(structures={"liver": [1, 2], "tumour": [2]}, exclusive=False)
    assert nested.outputs == ("liver", "tumour")
    check_structures(("a",), ((),), True, 254, "x")  # a single one needs no value named


def test_a_table_takes_the_place_of_the_structures_of_its_base_in_slices_too(tmp_path: Path) -> None:
    path = tmp_path / "organs.toml"
    path.write_text('base = "mri_artery"\nname = "organs"\nexclusive = true\n[structures]\nliver = [1]\nspleen = [4]\n')
    spec = get_spec(str(path))
    assert spec.structures == ("liver", "spleen") and spec.label_values == ((1,), (4,)) and spec.kind == "slices"
