"""A training of which one process is asked to stop: `python -m tests.train.stop_run STORE FOLDER [SIGNAL STEP PLACE]`.

`experiments.launch` starts several, of which that at PLACE is asked. Prints each step begun, and at the end where the
training went on from.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.conftest import he_variables
from tlseg_jax.commands import cli, cluster_flags
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.train import run as run_module
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe

STEPS = 40
NETWORK = UNetConfig("tiny", ((2,),), (2,), ((2,),), (), "concatenate")


def main(arguments: list[str]) -> None:
    """Train."""
    cluster_flags.start()
    store, folder, *rest = arguments
    run_module.init_variables = lambda config, key: he_variables(config)
    call = Dispatch.__call__

    def watched(self: Dispatch, state: Any, batches: Any, done: int = 0) -> Any:
        print(f"step {done + 1}", flush=True)
        if rest and (done + 1, processes.index()) == (int(rest[1]), int(rest[2])):
            os.kill(os.getpid(), signal.Signals[rest[0]])
        return call(self, state, batches, done)

    Dispatch.__call__ = watched  # type: ignore[method-assign]
    recipe = get_recipe("paper").override(batch_size=4, epsilon=1e-3)
    job = JobSettings(NETWORK, recipe, STEPS, checkpoint_every=1000, validation=1, validate_every=STEPS)
    way = Execution(parallel="one" if processes.count() == 1 else "pmap")

    def train() -> int:
        return train_job(Store(Path(store)), job, Path(folder), execution=way, progress=False).resumed_at

    if processes.is_chief():
        with lock_folder(Path(folder)):
            print(f"went on from {train()}", flush=True)
    else:
        train()


if __name__ == "__main__":
    given, sys.argv[1:] = sys.argv[1:], []
    cli.run_command(lambda _: main(given))
