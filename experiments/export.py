"""Make a folder to hand on of a trained run: checkpoint, StableHLO program and card.

python -m experiments.export --run=runs/finetune/NAME --output=model --licence="CC BY 4.0"
"""

from absl import flags

from experiments import cli, cluster_flags
from tlseg_jax.checkpoints.exported import PROGRAM
from tlseg_jax.commands import flags as settings_flags
from tlseg_jax.commands.settings import Named
from tlseg_jax.export.model_folder import export_model
from tlseg_jax.export.stablehlo import PLATFORMS

NAMED = settings_flags.define(Named, only=("run",))
OUTPUT = flags.DEFINE_string("output", None, "The folder to make.")
LICENCE = flags.DEFINE_string("licence", "", "Under which licence the model is handed on, in words, for its card.")
PROGRAM_TOO = flags.DEFINE_bool(
    "program", True, "Write the StableHLO program, too, which is as large as the checkpoint."
)
CHOSEN = flags.DEFINE_list("platforms", list(PLATFORMS), "What the StableHLO program is for: cpu, cuda, rocm, tpu.")


def main() -> None:
    """Parse the flags, export, and say what is there."""
    cluster_flags.refuse("export once, where the run can be read")
    given, output = NAMED.value("run"), cli.local(OUTPUT)
    run = cli.run_folder(given)
    platforms = CHOSEN.value if PROGRAM_TOO.value else ()
    card = export_model(run, output, licence=LICENCE.value, platforms=platforms)
    print(f"{output}: {card['title']}, step {card['model']['step']}, licence {card['licence']}.")
    if not card["scores"]:
        print("warning: the run has no scores of this model, so its card has none: see experiments.evaluate.")
    if card["model"]["synthetic"]:
        print("warning: this model has only seen synthetic scans, and its card says so.")
    alone = f" (or {output / PROGRAM})" if platforms else ""
    print(f"python -m experiments.predict --run={output}{alone} --input=SCAN --output=LABELS")


if __name__ == "__main__":
    cli.run(main)
