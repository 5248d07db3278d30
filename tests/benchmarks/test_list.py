"""`python -m benchmarks` lists the parts, and the flags of all are alike."""

from pathlib import Path

import pytest
from absl import flags
from absl.testing import flagsaver

from benchmarks import __main__ as listing
from benchmarks import flags as common_flags
from tlseg_jax.models.networks import NETWORKS
from tlseg_jax.runtime.errors import InputError


@pytest.fixture(autouse=True)
def parsed() -> None:
    """Flags with their defaults."""
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()


def test_every_part_is_listed_with_its_question() -> None:
    found = listing.parts()
    assert {"step_time", "freezing", "conv_lowering", "dropout"} <= set(found)
    assert not listing.SHARED & set(found)
    assert all(question.endswith((".", "?")) for question in found.values())


def test_parts_are_listed_without_being_imported(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text('"""Does it run?"""\nimport nothing\nif __name__ == "__main__": 0\n')
    (tmp_path / "shared.py").write_text('"""What others use."""\n')
    assert listing.parts(tmp_path) == {"broken": "Does it run?"}


@flagsaver.flagsaver(quick=True)
def test_reduced_sizes_take_fewer_rounds_unless_told() -> None:
    assert common_flags.rounds() == common_flags.REDUCED_ROUNDS
    assert common_flags.rounds(reduced=False) == 20
    with flagsaver.as_parsed(rounds="7"):
        assert common_flags.rounds() == 7


def test_networks_and_types_are_checked() -> None:
    assert common_flags.networks() == tuple(NETWORKS) and common_flags.networks(["unet2d"]) == ("unet2d",)
    with flagsaver.flagsaver(networks=["switch23"]), pytest.raises(InputError, match="did you mean"):
        common_flags.networks()
    with flagsaver.flagsaver(dtypes=["float16"]), pytest.raises(InputError, match="float32, bfloat16"):
        common_flags.dtypes()
