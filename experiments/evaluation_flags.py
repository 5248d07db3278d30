"""The flags of every command that predicts or scores, defined once."""

from absl import flags

from tlseg_jax.evaluate.inference import Tiles
from tlseg_jax.evaluate.results import ScoreSpace


def define_tiles() -> "flags.FlagHolder[str]":
    """--tiles, for commands that predict whole-brain volumes."""
    return flags.DEFINE_enum(
        "tiles",
        "gaussian",
        ["gaussian", "paper"],
        "Whole-brain volumes: overlapping tiles, or the paper's without overlap.",
    )


def define_distances() -> "flags.FlagHolder[bool]":
    """--distances, for commands that score."""
    return flags.DEFINE_bool("distances", False, "Also measure HD95 and the average surface distance, in mm.")


def space(flag: "flags.FlagHolder[str]") -> ScoreSpace:
    """The value of --space as the library's type."""
    return "scan" if flag.value == "scan" else "data"


def tiles(flag: "flags.FlagHolder[str]") -> Tiles:
    """The value of --tiles as the library's type."""
    return "paper" if flag.value == "paper" else "gaussian"
