"""Make a folder to hand on of a trained run."""

import dataclasses
from typing import Any

from tlseg_jax.actions import places
from tlseg_jax.checkpoints.exported import PROGRAM
from tlseg_jax.export.model_folder import export_model
from tlseg_jax.export.stablehlo import PLATFORMS
from tlseg_jax.runtime.messages import log


@dataclasses.dataclass(frozen=True)
class Exporting:
    """What is exported, and where to.

    Attributes:
      run: folder of a run that has trained.
      output: the folder to make.
      licence: under which licence the model is handed on, in words, for its card.
      program: write the StableHLO program, too, which is as large as the checkpoint.
      platforms: what the StableHLO program is for: cpu, cuda, rocm, tpu; not given: all.
    """

    run: str
    output: str
    licence: str = ""
    program: bool = True
    platforms: tuple[str, ...] = tuple(PLATFORMS)


def export(asked: Exporting) -> dict[str, Any]:
    """Export a run, and tell what is there.

    Returns:
      The card, as written.

    Raises:
      InputError: see `export_model`; or `output` is in a bucket.
    """
    output = places.local(asked.output, "output")
    platforms = asked.platforms if asked.program else ()
    card = export_model(places.find_run(asked.run), output, licence=asked.licence, platforms=platforms)
    log.info(f"{output}: {card['title']}, step {card['model']['step']}, licence {card['licence']}.")
    if not card["scores"]:
        log.warning("warning: the run has no scores of this model, so its card has none: see 'tlseg evaluate'.")
    if card["model"]["synthetic"]:
        log.warning("warning: this model has only seen synthetic scans, and its card says so.")
    alone = f" (or {output / PROGRAM})" if platforms else ""
    log.info(f"tlseg predict --run={output}{alone} --input=SCAN --output=LABELS")
    return card
