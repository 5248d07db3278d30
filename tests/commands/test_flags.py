"""Flags made from settings: a field's name, type, default, bounds and docstring line, and its value read back."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from absl import flags as absl_flags
from absl.testing import flagsaver

from tlseg_jax.commands import flags
from tlseg_jax.runtime.bounds import Bound, Labelled, Positive, Read, read_labelled
from tlseg_jax.runtime.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


def _even(text: str) -> int:
    if int(text) % 2:
        raise InputError("it is odd: give an even number.")
    return int(text)


@dataclasses.dataclass(frozen=True)
class Cake:
    """A cake.

    Some words.

    Attributes:
      zz_eggs: eggs: how many, of
        two lines (`tlseg_jax.somewhere`).
      zz_shape: round: as the moon; square: as a box.
      zz_sugar: share of sugar.
      zz_name: what it is called.
      zz_box: where it is kept.
      zz_candles: candles.
      zz_guests: numbers of guests.
      zz_size: both sides.
      zz_cut: whether it is cut.
      zz_other: has no flag.
    """

    zz_name: str
    zz_eggs: Positive | None = None
    zz_shape: Literal["round", "square"] = "round"
    zz_sugar: Annotated[float, Bound(0, 1)] = 0.5
    zz_box: Path | None = None
    zz_candles: Annotated[int, Read(_even)] = 2
    zz_guests: tuple[Labelled, ...] = (None,)
    zz_size: tuple[int, int] | None = None
    zz_cut: bool = False
    zz_other: object = None


@pytest.fixture(scope="module")
def made() -> flags.Flags[Cake]:
    return flags.define(Cake, leave_out=("zz_other",))


Given = Callable[..., Cake]


@pytest.fixture
def given(made: flags.Flags[Cake]) -> Given:
    def parse(*arguments: str) -> Cake:
        with flagsaver.flagsaver():
            absl_flags.FLAGS(["command", *arguments])
            return made.settings()

    return parse


def test_none_given_is_the_settings_defaults(given: Given) -> None:
    assert given("--zz_name=a") == Cake("a")


def test_all_given_is_read_as_the_fields_types(given: Given) -> None:
    cake = given(
        "--zz_name=a",
        "--zz_eggs=3",
        "--zz_shape=square",
        "--zz_sugar=0.25",
        "--zz_box=b",
        "--zz_candles=4",
        "--zz_guests=2,all",
        "--zz_size=3,4",
        "--zz_cut",
    )
    assert cake == Cake("a", 3, "square", 0.25, Path("b"), 4, (2, None), (3, 4), True)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--zz_eggs=2", "--zz_name is missing: see --help"),
        ("--zz_candles=3", "--zz_candles=3: it is odd: give an even number"),
        ("--zz_guests=2,0", "--zz_guests=2,0: no labelled scan leaves nothing to train on: give 1 or more"),
        ("--zz_size=3", "--zz_size=3 must be 2 numbers, with a comma"),
        ("--zz_size=3,x", "--zz_size=3,x must be 2 numbers, with a comma"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_that_names_the_flag(given: Given, argument: str, says: str) -> None:
    name = () if "missing" in says else ("--zz_name=a",)
    with pytest.raises(InputError, match=re.escape(says)):
        given(*name, argument)


@pytest.mark.parametrize("argument", ["--zz_eggs=0", "--zz_sugar=1.5", "--zz_shape=oval", "--zz_eggs=many"])
def test_values_out_of_bounds_are_refused(given: Given, argument: str) -> None:
    with pytest.raises(absl_flags.IllegalFlagValueError):
        given(argument)


def test_help_is_the_docstring_s_line(made: flags.Flags[Cake]) -> None:
    del made
    said = {name: absl_flags.FLAGS[name].help for name in ("zz_eggs", "zz_shape", "zz_cut")}
    assert said == {
        "zz_eggs": "Eggs: how many, of two lines.",
        "zz_shape": "<round|square>: round: as the moon; square: as a box.",
        "zz_cut": "Whether it is cut.",
    }


def test_only_what_was_given_changes_something_else(made: flags.Flags[Cake]) -> None:
    with flagsaver.flagsaver():
        absl_flags.FLAGS(["command", "--zz_guests=all"])
        assert {k: v for k, v in made.given().items() if k.startswith("zz_g")} == {"zz_guests": (None,)}
        assert "zz_eggs" not in made.given()


def test_an_address_is_had_as_it_was_written(made: flags.Flags[Cake]) -> None:
    """`Path` would take one of its slashes."""
    with flagsaver.flagsaver():
        absl_flags.FLAGS(["command", "--zz_box=gs://bucket/runs"])
        assert made.text("zz_box") == "gs://bucket/runs" and made.text("zz_eggs") is None


def test_a_message_names_the_field_and_a_command_the_flag(made: flags.Flags[Cake]) -> None:
    text = "`zz_box=a b` and `zz_eggs` do not go together, nor is `this` a flag: leave an egg out."
    assert (
        flags.flags_for(text)
        == "--zz_box=a b and --zz_eggs do not go together, nor is `this` a flag: leave an egg out."
    )


@pytest.mark.parametrize(("text", "value"), [("all", None), ("1", 1), ("16", 16)])
def test_labelled_scans_are_a_number_or_all(text: str, value: Any) -> None:
    assert read_labelled(text) == value


@pytest.mark.parametrize("text", ["-1", "", "some", "2.5", "0"])
def test_anything_else_is_no_number_of_labelled_scans(text: str) -> None:
    with pytest.raises(InputError, match="all"):
        read_labelled(text)
