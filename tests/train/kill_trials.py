"""Training that is killed at random moments and run again, until it is done; then compared with one never interrupted.

Usage: python -m tests.train.kill_trials --kills=20 --seed=0 [--folder=DIR]

Imports once and forks a child for every attempt, since importing takes longer than such a training. Prints a JSON
tally; ends with code 1 where a run ends otherwise than the one that was left alone.
"""

import argparse
import collections
import dataclasses
import functools
import hashlib
import json
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tensorboardX  # noqa: F401 - takes seconds, and each child would
from flax.traverse_util import flatten_dict

import tlseg_jax.input.patches  # noqa: F401 - as above
from tests.conftest import he_variables, write_store
from tlseg_jax.checkpoints.checkpoint import KEEP, load_model
from tlseg_jax.checkpoints.checkpoint_files import UNFINISHED, read_checkpoint, steps_in
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime import signals
from tlseg_jax.runtime.errors import Preempted
from tlseg_jax.runtime.files import lock_folder, write_json
from tlseg_jax.runtime.messages import shown
from tlseg_jax.train import run as run_module
from tlseg_jax.train import step_maker as step_maker_module
from tlseg_jax.train.dispatch import Dispatch
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.recipes import get_recipe

NETWORK = UNetConfig("tiny", ((2,),), (2,), ((2,),), (), "concatenate")

PREEMPTED, DONE = 75, 0

MOMENTS = ("training", "checkpoint", "training", "checkpoint", "term")
"""Kill anywhere; kill while a checkpoint is being written; SIGTERM anywhere. As often as they are drawn."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A training, and what is slowed down in it so that a signal has something to hit.

    Attributes:
      steps: how long it is.
      checkpoint_every: steps between checkpoints.
      validate_every: steps between validations on one scan; 0: none.
      pause: the most seconds that a call of the step waits.
    """

    steps: int
    checkpoint_every: int
    validate_every: int = 0
    pause: float = 0.03

    def job(self) -> JobSettings:
        """The settings of its run."""
        recipe = dataclasses.replace(
            get_recipe("paper"), loss="cross_entropy_dice", epsilon=1e-3, learning_rate=1e-2, schedule="cosine"
        )
        return JobSettings(
            NETWORK,
            recipe,
            self.steps,
            checkpoint_every=self.checkpoint_every,
            validation=1 if self.validate_every else 0,
            validate_every=self.validate_every,
        )


KINDS = {
    "every step saved": Kind(14, 1),
    "every 5 steps saved": Kind(30, 5, pause=0.08),
    "validated": Kind(16, 4, validate_every=3, pause=0.08),
}


def train(store: Path, folder: Path, kind: Kind, told: int, seed: int) -> None:
    """Train into `folder`, telling each step begun on the pipe `told`."""
    draw = random.Random(seed)
    run_module.init_variables = lambda config, key: he_variables(config)
    # A program with a oneDNN call is not kept from one attempt to the next.
    step_maker_module.make_train_step = functools.partial(step_maker_module.make_train_step, lowering="native")  # type: ignore[assignment]
    call = Dispatch.__call__

    def slowed(self: Dispatch, state: Any, batches: Any, done: int = 0) -> Any:
        os.write(told, f"step {done + 1}\n".encode())
        time.sleep(draw.uniform(0, kind.pause))
        return call(self, state, batches, done)

    Dispatch.__call__ = slowed  # type: ignore[method-assign]
    with lock_folder(folder), shown():
        fit = train_job(Store(store), kind.job(), folder, progress=False)
    os.write(told, f"resumed {fit.resumed_at}\n".encode())


def fork(body: Callable[[int], None], log: Path) -> tuple[int, int]:
    """Run `body` in a child; its process, and the end of a pipe on which it tells."""
    ours, theirs = os.pipe()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals.SIGNALS)  # heard only once the child listens
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # JAX's, that it may have threads: not before a device is used
        process = os.fork()
    if process:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(theirs)
        os.set_blocking(ours, False)
        return process, ours
    code = 1
    try:
        os.close(ours)
        with log.open("ab", buffering=0) as f:
            os.dup2(f.fileno(), 1)
            os.dup2(f.fileno(), 2)
        signals.listen()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        body(theirs)
        code = DONE
    except Preempted as e:
        print(f"stopped: {e}", flush=True)
        code = PREEMPTED
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def read(pipe: int, lines: list[str]) -> None:
    """Add what came down the pipe."""
    try:
        while got := os.read(pipe, 65536):
            lines += got.decode().split("\n")
    except BlockingIOError:
        pass


def ended(process: int) -> int | None:
    """The exit code of a child that has ended, negative for a signal's; None while it runs."""
    pid, status = os.waitpid(process, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def attempt(
    store: Path, folder: Path, kind: Kind, moment: str | None, draw: random.Random, log: Path
) -> dict[str, Any]:
    """Train once, and send the signal at a moment that is drawn; what came of it."""
    before = steps_in(folder / "checkpoints")
    process, pipe = fork(lambda told: train(store, folder, kind, told, draw.randrange(1 << 30)), log)
    lines: list[str] = []
    first = before[-1] if before else 0
    at_step = draw.randint(first, kind.steps) if moment else 1 << 30
    wait = draw.uniform(0, 2 * kind.pause)
    sent = False
    code = None
    seen: float | None = None
    limit = time.monotonic() + 120
    while code is None:
        if time.monotonic() > limit:
            os.kill(process, signal.SIGKILL)
            raise RuntimeError(f"an attempt of {folder} did not end: see {log}")
        read(pipe, lines)
        if not sent and moment is not None:
            begun = max([int(x.split()[1]) for x in lines if x.startswith("step ")], default=first)
            writing = any((folder / "checkpoints").glob(f"*{UNFINISHED}"))
            due = begun >= at_step and (moment != "checkpoint" or writing)
            seen = seen if seen is not None else time.monotonic() if due else None
            # What is written is there for a few milliseconds only.
            if seen is not None and time.monotonic() >= seen + (wait / 20 if moment == "checkpoint" else wait):
                os.kill(process, signal.SIGTERM if moment == "term" else signal.SIGKILL)
                sent = True
        code = ended(process)
        time.sleep(0.0005 if moment == "checkpoint" else 0.002)
    read(pipe, lines)
    os.close(pipe)
    return {
        "code": code,
        "last_step": max([int(x.split()[1]) for x in lines if x.startswith("step ")], default=first),
        "resumed_at": next((int(x.split()[1]) for x in lines if x.startswith("resumed ")), None),
        "saved": (steps_in(folder / "checkpoints") or [0])[-1],
        "unfinished": any((folder / "checkpoints").glob(f"*{UNFINISHED}*")),
    }


def write_result(folder: Path, steps: int, out: Path) -> None:
    """All that must be the same in the end, as digests and plain values."""
    tree, position, description = read_checkpoint(folder / "checkpoints" / str(steps))
    write_json(
        out,
        {
            "arrays": {
                "/".join(k): [str(v.dtype), list(np.shape(v)), hashlib.sha256(np.asarray(v).tobytes()).hexdigest()]
                for k, v in flatten_dict(tree).items()
            },
            "position": position,
            "description": description,
            "history": (folder / "history.csv").read_text(),
            "model": load_model(folder).step,  # the best by validation, wherever the run was cut
            "bounded": len(steps_in(folder / "checkpoints")) <= KEEP + 1,
            "left over": [p.name for p in folder.rglob("*") if UNFINISHED in p.name or p.name.endswith(".tmp")],
        },
    )


def in_child(body: Callable[[], None], log: Path) -> None:
    """Do something in a child and wait for it: what starts threads must not be done where others are forked."""
    process, pipe = fork(lambda _: body(), log)
    os.close(pipe)
    if os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) != DONE:
        raise RuntimeError(f"a child failed: see {log}")


def result(folder: Path, steps: int, log: Path) -> dict[str, Any]:
    """What `write_result` found of a run."""
    out = folder.with_suffix(".json")
    in_child(lambda: write_result(folder, steps, out), log)
    return json.loads(out.read_text())  # type: ignore[no-any-return]


def trials(
    work: Path, kills: int, seed: int, kinds: tuple[str, ...] = tuple(KINDS), moments: tuple[str, ...] = MOMENTS
) -> dict[str, Any]:
    """Kill trainings until there were so many kills, finish each run, and compare; the tally."""
    jax.config.update("jax_compilation_cache_dir", str(work / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)
    draw, log, store = random.Random(seed), work / "log.txt", work / "store"
    alone: dict[str, dict[str, Any]] = {}
    in_child(lambda: write_store(store) and None, log)
    hits: collections.Counter[str] = collections.Counter()
    tally: dict[str, Any] = {"runs": 0, "same": 0, "most_steps_lost_to_a_kill": 0, "most_steps_lost_to_sigterm": 0}
    differing: list[str] = []
    number = 0

    def killed() -> int:
        return sum(v for k, v in hits.items() if k != "SIGTERM")

    while killed() < kills:
        name = kinds[number % len(kinds)]
        kind, folder = KINDS[name], work / f"run{number}"
        if name not in alone:
            whole = attempt(store, work / f"alone{number}", kind, None, draw, log)
            if whole["code"] != DONE:
                raise RuntimeError(f"the training that is left alone failed: see {log}")
            alone[name] = result(work / f"alone{number}", kind.steps, log)
        number += 1
        while True:
            # A run is hit a few times, and none any more once there were enough kills.
            moment = draw.choice(moments) if killed() < kills and draw.random() < 0.8 else None
            got = attempt(store, folder, kind, moment, draw, log)
            if got["code"] == DONE:
                break
            if got["code"] == PREEMPTED:
                where = "SIGTERM"
                lost = "most_steps_lost_to_sigterm"
            elif got["code"] == -signal.SIGKILL:
                begun = got["last_step"] > 0
                where = "writing a checkpoint" if got["unfinished"] else "training" if begun else "starting"
                lost = "most_steps_lost_to_a_kill"
            else:
                raise RuntimeError(f"an attempt of {folder} ended with {got['code']}: see {log}")
            hits[where] += 1
            tally[lost] = max(tally[lost], got["last_step"] - got["saved"])
        found = result(folder, kind.steps, log)
        wrong = [k for k, v in alone[name].items() if found[k] != v]
        tally["runs"] += 1
        tally["same"] += not wrong
        differing += [f"{folder.name} ({name}): {', '.join(wrong)}"] if wrong else []
    tally |= {"kills": killed(), "sigterms": hits["SIGTERM"]}
    return tally | {"where": dict(sorted(hits.items())), "differing": differing}


def main() -> int:
    """Parse the arguments and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--moments", default=",".join(MOMENTS))
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp(prefix="kill_trials"))
    folder.mkdir(parents=True, exist_ok=True)
    kinds, moments = (tuple(text.split(",")) for text in (given.kinds, given.moments))
    tally = trials(folder, given.kills, given.seed, kinds, moments)
    print(json.dumps(tally, indent=1))
    return 0 if tally["same"] == tally["runs"] else 1


if __name__ == "__main__":
    sys.exit(main())
