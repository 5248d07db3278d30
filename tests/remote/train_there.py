"""Trains a tiny network; a process of its own that can be killed.

python -m tests.remote.train_there STORE WORKDIR STEPS [LAST]
"""

import itertools
import sys
import time
from typing import Any

sys.modules["torch"] = None  # type: ignore[assignment]  # where it is installed tensorboardX spends seconds on it

import jax  # noqa: E402

from tests.conftest import he_variables  # noqa: E402
from tlseg_jax.models.unet import UNetConfig  # noqa: E402
from tlseg_jax.preprocess.store.any_store import open_any_store  # noqa: E402
from tlseg_jax.remote import held  # noqa: E402
from tlseg_jax.remote.entry import Buckets, read_folder, work_folder  # noqa: E402
from tlseg_jax.runtime.elsewhere import using  # noqa: E402
from tlseg_jax.runtime.files import lock_folder  # noqa: E402
from tlseg_jax.train import run as run_module  # noqa: E402
from tlseg_jax.train.dispatch import Dispatch  # noqa: E402
from tlseg_jax.train.job import train_job  # noqa: E402
from tlseg_jax.train.job_settings import JobSettings  # noqa: E402
from tlseg_jax.train.recipes import get_recipe  # noqa: E402


def main(store: str, workdir: str, steps: str, last: str = "-1") -> None:
    """Train on `tiny` for so many steps with a checkpoint after every other one; after step `last` only wait."""
    jax.config.update("jax_disable_most_optimizations", True)  # compiling well takes longer than running badly
    jax.config.update("jax_enable_compilation_cache", False)
    held.LOOK, held.LIFE, held.RENEW = 0.1, 3.0, 0.5
    step, done = Dispatch.__call__, itertools.count()

    def until_last(self: Dispatch, *given: Any) -> Any:
        while next(done) == int(last):
            time.sleep(1000)
        return step(self, *given)

    Dispatch.__call__ = until_last  # type: ignore[method-assign,assignment]  # so that a kill is in the middle
    run_module.init_variables = lambda config, key: he_variables(config, int(jax.random.key_data(key)[-1]))  # type: ignore[arg-type]
    network = UNetConfig("tiny", ((4,), (4,)), (4,), ((4,), (4,)), (), "concatenate")
    run = work_folder(workdir) / "finetune" / "run"
    with using(Buckets()):
        data = open_any_store(read_folder(store) / "tiny")
        with lock_folder(run):
            train_job(data, JobSettings(network, get_recipe("paper"), int(steps), seed=3, checkpoint_every=2), run)


if __name__ == "__main__":
    main(*sys.argv[1:])
