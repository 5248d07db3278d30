"""A trained model from wherever it is: a run folder, an exported folder, or the StableHLO program in one."""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from tlseg_jax.checkpoints.checkpoint import SavedModel, load_model
from tlseg_jax.checkpoints.checkpoint_files import digests
from tlseg_jax.checkpoints.exported import CARD, PROGRAM, checked_card, is_exported, load_saved
from tlseg_jax.evaluate.inference import Predictor
from tlseg_jax.export.stablehlo import load_network
from tlseg_jax.models.networks import config_from_dict
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train.predictors import make_predictor

ExportKind = Literal["run", "model", "program"]


@dataclasses.dataclass(frozen=True, eq=False)
class AnyModel:
    """What predicts, whatever it was read from.

    Attributes:
      kind: "run" folder, exported "model" folder, or StableHLO "program".
      config: the network.
      description: what the run recorded: data set, patch, preprocessing.
      step: of the checkpoint.
      digest: SHA-256 of its weights and description; the program's card's digest.
      weights: SHA-256 of its weights alone, the same in a run and in what is exported of it.
      predictor: makes the network a plain function on NumPy arrays: a `Predictor` in 3D, a `SlicePredictor` in 2D;
        takes `adabn` as `make_predictor` does, which a program refuses.
    """

    kind: ExportKind
    config: UNetConfig
    description: dict[str, Any]
    step: int
    digest: str
    weights: str
    predictor: Callable[..., Predictor]


def load_any_model(path: Path) -> AnyModel:
    """The model of a run folder, of a folder that `export_model` made, or of the program in it beside its card.

    Raises:
      InputError: there is no model, or it is damaged or of another version.
    """
    if path.is_dir():
        return _of_saved("model" if is_exported(path) else "run", load_saved(path))
    if path.suffix == Path(PROGRAM).suffix:
        return _of_program(path)
    if path.exists():
        raise InputError(f"{path} is no model: give a run folder, an exported model's folder, or its {PROGRAM}.")
    return _of_saved("run", load_model(path))


def _of_saved(kind: ExportKind, saved: SavedModel) -> AnyModel:
    written = digests({"params": saved.params, "batch_stats": saved.batch_stats}, None, saved.description)
    digest = hashlib.sha256(json.dumps(written, sort_keys=True).encode()).hexdigest()
    predictor = functools.partial(make_predictor, saved.config, saved.params, saved.batch_stats)
    return AnyModel(kind, saved.config, saved.description, saved.step, digest, saved.weights, predictor)


def _of_program(path: Path) -> AnyModel:
    if not path.exists():
        raise InputError(f"{path} does not exist: check the path.")
    if path.name != PROGRAM:
        raise InputError(f"{path} is not the name that its card knows: call it {PROGRAM} again, beside its {CARD}.")
    card = checked_card(path.parent, PROGRAM)
    description = card["model"]
    config = config_from_dict(description["network"])
    program = path.read_bytes()

    def predictor(adabn: float = 0.0) -> Predictor:
        if adabn:
            raise InputError(
                f"`adabn={adabn}` changes what batch norms normalise by, which is fixed in {path}: give the folder of "
                "its run or model."
            )
        return load_network(program, config.divisor, str(path))

    return AnyModel("program", config, description, description["step"], card["digest"], card["weights"], predictor)
