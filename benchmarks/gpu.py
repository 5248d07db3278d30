"""What does a GPU show that no CPU can: is it right, how fast, by what kernels, in how much memory?

    python -m benchmarks.gpu [--minutes=8] [--parts=compare,memory]   # on a machine with a GPU
    python -m benchmarks.gpu --rehearse                               # all parts, tiny, on any machine, in 3 minutes
    pip download --no-deps -d wheels $(python -m benchmarks.gpu --wheels)

The parts run one after the other, the most important first, each a benchmark of this folder in a process of its own
with a limit of its own. A part's result is in benchmarks/results/<machine>/gpu/PART.json as soon as it ends; one that
is ended at its limit leaves what it had in gpu/unfinished/. Parts whose result is there are skipped, so that a second
call goes on where the time ran out: delete a file to measure it anew. A part that fails ends no other; the exit code
is then 3.

A machine for this needs Python 3.11 or newer and what `MACHINE` lists (jax with CUDA, flax, optax, orbax-checkpoint,
torch, tensorstore, scipy, scikit-learn, matplotlib, psutil). The rest comes as wheels, since such a machine often
reaches no registry: grain, jaxtyping, nibabel, SimpleITK, tensorboardX, tqdm, monai and what they need; --wheels prints
them with the versions that are installed here.
"""

import concurrent.futures
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from benchmarks.report import origin
from benchmarks.tables import markdown
from tlseg_jax.commands import cli
from tlseg_jax.runtime.choose import choose
from tlseg_jax.runtime.errors import InputError

MINUTES = flags.DEFINE_float("minutes", 8.0, "Time for all parts together.", lower_bound=0.1)
CHOSEN = flags.DEFINE_list("parts", None, "Parts to run, by name or by how their names begin; default: all.")
REHEARSE = flags.DEFINE_bool("rehearse", False, "Run every part at tiny sizes and keep no result.")
WHEELS = flags.DEFINE_bool("wheels", False, "Print what to bring to a machine that reaches no registry, and end.")
OUTPUT = flags.DEFINE_string("gpu_results", "benchmarks/results", "Folder of the machines' results.")

FAILED = 3
"""Exit code where a part failed or was ended at its limit."""

SLOWER = 4
"""A rehearsal may take so many times as long: a CPU that is shared compiles slowly, which is no fault of a part."""

LEAST = 15.0
"""Seconds that must be left for a part to begin."""

MACHINE = (
    "jax",
    "flatbuffers",
    "flax",
    "optax",
    "orbax-checkpoint",
    "torch",
    "tensorstore",
    "scipy",
    "scikit-learn",
    "matplotlib",
    "psutil",
    "pip",
    "setuptools",
    "wheel",
)
"""Distributions, with what they need, that a machine with a GPU is taken to have."""

BROUGHT = (
    "absl-py",
    "attrs",
    "charset-normalizer",
    "grain",
    "jaxtyping",
    "monai",
    "nibabel",
    "SimpleITK",
    "tensorboardX",
    "threadpoolctl",
    "tqdm",
)
"""Distributions that the parts import besides those."""


@dataclasses.dataclass(frozen=True)
class Part:
    """One benchmark to run.

    Attributes:
      rehearsed: whether it is rehearsed too; False where another part does the same but for a network or a type.
    """

    name: str
    module: str
    flags: tuple[str, ...]
    seconds: float
    question: str
    rehearsed: bool = True


def _equality(network: str, seconds: float) -> Part:
    question = f"is every convolution of {network} right in bfloat16 and TF32, by lowering"
    return Part(f"equality_{network}", "conv_equality", (f"--networks={network}",), seconds, question)


def _compare(network: str, dtype: str, seconds: float) -> Part:
    given = (f"--networks={network}", f"--dtypes={dtype}", "--rounds=10")
    question = f"{network} in {dtype} next to PyTorch and MONAI"
    return Part(f"compare_{network}_{dtype}", "compare", given, seconds, question, dtype == "bfloat16")


def _kernels(network: str, rehearsed: bool = True) -> Part:
    given = (f"--networks={network}", "--dtypes=bfloat16", "--rounds=5")
    question = f"which kernels a step of {network} spends its time in, and their share of the memory's rate"
    return Part(f"kernels_{network}", "kernels", given, 75, question, rehearsed)


def _memory(network: str, size: str, seconds: float) -> Part:
    given = (f"--networks={network}", f"--size={size}", "--dtypes=bfloat16", "--gb=", "--rounds=3")
    question = f"peak memory and time of {network} by remat policy: at most 11 GB, and 1.35 times as long"
    return Part(f"memory_{network}", "memory_limits", given, seconds, question)


PARTS: tuple[Part, ...] = (
    _equality("switch8x2", 90),
    _compare("unet_fast", "bfloat16", 240),
    _compare("switch8x2", "bfloat16", 240),
    _memory("switch32", "176x224x160", 90),
    Part(
        "augmentation",
        "augmentation",
        ("--networks=switch8x2", "--rounds=10"),
        60,
        "augmenting and generating images alone",
    ),
    _kernels("unet_fast"),
    _kernels("switch8x2", rehearsed=False),
    _compare("switch32", "bfloat16", 240),
    _compare("unet2d", "bfloat16", 240),
    _memory("unet3d256", "320x260x72", 120),
    _kernels("unet2d", rehearsed=False),
    _kernels("switch32", rehearsed=False),
    Part(
        "together",
        "together",
        ("--networks=switch8x2", "--runs=1,4,16", "--rounds=5"),
        75,
        "K runs at once, --together=K",
    ),
    Part(
        "feeding",
        "device_cache",
        ("--networks=switch8x2,unet2d", "--steps=1,4,16", "--rounds=3"),
        120,
        "data streamed from a store, cached on the device, held there, and --steps_per_call=K",
    ),
    Part(
        "freezing",
        "freezing",
        ("--networks=switch8x2,unet2d", "--dtypes=bfloat16", "--rounds=10"),
        75,
        "a frozen step against a full one",
    ),
    _compare("switch8x2", "float32", 240),
    _compare("unet_fast", "float32", 240),
    _compare("switch32", "float32", 240),
    _compare("unet2d", "float32", 240),
    _equality("switch32", 30),
    _equality("unet2d", 90),
    _equality("unet3d256", 60),
)
"""From the most to the least important; float32 was compared before, so it comes late. A step takes half a minute to
compile, since each of its convolutions is tried in many forms."""


def chosen_parts(names: Sequence[str] | None, tiny: bool = False) -> list[Part]:
    """The parts that are named, or that a name begins like, in their order.

    Args:
      names: None takes all.
      tiny: whether they are only rehearsed.

    Raises:
      InputError: there is none of that name.
    """
    for name in names or ():
        if not any(part.name.startswith(name) for part in PARTS):
            choose("part", name, {p.name: p for p in PARTS})
    found = [p for p in PARTS if not names or any(p.name.startswith(n) for n in names)]
    return [p for p in found if p.rehearsed or not tiny]


def requirements(names: Iterable[str]) -> set[str]:
    """Installed distributions with all that they need, without their extras, by normalised name."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = normalised(waiting.pop())
        try:
            needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another platform, or another version of Python
        if name not in found:
            found.add(name)
            waiting += [re.split(r"[^\w.-]", need, maxsplit=1)[0] for need in needs if "extra ==" not in need]
    return found


def normalised(name: str) -> str:
    """A distribution's name as registries compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wheels() -> list[str]:
    """NAME==VERSION of what a machine needs besides `MACHINE`.

    Raises:
      InputError: one is not installed here, so that its version is not known.
    """
    missing = [name for name in BROUGHT if not requirements([name])]
    if missing:
        raise InputError(f"{', '.join(missing)} is not installed here: pip install 'tlseg-jax[bench]' first.")
    names = sorted(requirements(BROUGHT) - requirements(MACHINE))
    return [f"{name}=={importlib.metadata.version(name)}" for name in names]


def unlisted(result: Mapping[str, Any]) -> list[str]:
    """Distributions that a result's process imported and that a machine would lack."""
    return sorted({normalised(n) for n in result["environment"]["imported"]} - requirements((*MACHINE, *BROUGHT)))


def _environment(scratch: Path, tiny: bool) -> dict[str, str]:
    given = {
        "PYTHONUNBUFFERED": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # a part's own processes need memory too
        # What one process of a part compiled, its others need not.
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "programs"),
    }
    if tiny:  # compiled quickly, to run slowly
        quick = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        given["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()
    return os.environ | given


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a part.

    Attributes:
      state: "measured", "was there", "failed", "ended at its limit" or "no time left".
      seconds: that it took.
    """

    part: Part
    state: str
    seconds: float = 0.0
    why: str = ""

    @property
    def good(self) -> bool:
        """Whether its result is there."""
        return self.state in ("measured", "was there")


def run_part(
    part: Part, folder: Path, environment: Mapping[str, str], seconds: float, tiny: bool, core: int | None = None
) -> Outcome:
    """Run one part in a process of its own, and give its result its place once it is whole.

    Args:
      seconds: after which it is ended, with the processes that it started.
      core: the only one that it gets; None leaves it all.
    """
    unfinished = folder / "unfinished" / f"{part.name}.json"
    unfinished.parent.mkdir(parents=True, exist_ok=True)
    unfinished.unlink(missing_ok=True)
    command = [sys.executable, "-m", f"benchmarks.{part.module}", *part.flags, f"--out={unfinished}"]
    if tiny:
        # The last of two flags of one name counts.
        command += ["--tiny", "--rounds=1", *TINY_FLAGS.get(part.module, ())]
    start = time.perf_counter()
    log = unfinished.with_suffix(".log")
    with log.open("w", encoding="utf-8") as told:
        # A session of its own, so that its own processes end with it.
        process = subprocess.Popen(
            command, env=dict(environment), stdout=told, stderr=subprocess.STDOUT, start_new_session=True
        )
        if core is not None:
            os.sched_setaffinity(process.pid, {core})
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            _end(process)
    taken = time.perf_counter() - start
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    print("\n".join(f"  {line}" for line in lines[-TOLD:]), flush=True)
    if code is None:
        return Outcome(part, "ended at its limit", taken, f"{seconds:.0f} s; what it had is in {unfinished.parent}")
    if code or not unfinished.is_file():
        return Outcome(part, "failed", taken, lines[-1] if lines else f"exit code {code}")
    if tiny and (more := unlisted(json.loads(unfinished.read_text(encoding="utf-8")))):
        return Outcome(part, "failed", taken, f"it imports {', '.join(more)}, which BROUGHT in {__file__} must list")
    unfinished.replace(folder / f"{part.name}.json")
    return Outcome(part, "measured", taken)


TOLD = 40
"""The last lines of a part that are printed."""

TINY_FLAGS: Mapping[str, tuple[str, ...]] = {
    "memory_limits": ("--size=", "--remats=block"),
    "freezing": ("--networks=switch8x2",),
    "together": ("--runs=1,2",),
    "device_cache": ("--steps=1,2",),
    "compare": ("--notorch_compile",),  # a form that fails is told and ends nothing, and a CPU takes minutes for it
}
"""Module -> flags of a rehearsal, which does less of the same."""


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a process and all that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine() -> str:
    """The machine's name. A process of its own asks, since the one that asks takes memory of the GPU."""
    ask = "from benchmarks.measure import machine_name; print(machine_name())"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"JAX does not start here: {done.stderr.strip().splitlines()[-1]}")
    return done.stdout.strip().splitlines()[-1]


def run_all(parts: Sequence[Part], folder: Path, seconds: float, tiny: bool, scratch: Path) -> list[Outcome]:
    """Run what is not there yet, as far as the time goes, one after the other; in a rehearsal two at once."""
    begun = time.perf_counter()
    # Threads of two processes that wait for each other on the same cores take many times as long: each gets one.
    free = sorted(os.sched_getaffinity(0)) if tiny and hasattr(os, "sched_getaffinity") else []
    at_once = min(2, len(free)) or 1

    def run(numbered: tuple[int, Part]) -> Outcome:
        number, part = numbered
        left = seconds - (time.perf_counter() - begun)
        print(f"[{number}/{len(parts)}, {left:.0f} s left] {part.name}: {part.question}?", flush=True)
        if (folder / f"{part.name}.json").is_file():
            outcome = Outcome(part, "was there")
        elif left < LEAST:
            outcome = Outcome(part, "no time left")
        else:
            limit = part.seconds * (SLOWER if tiny else 1)
            core = free.pop() if at_once > 1 else None
            outcome = run_part(part, folder, _environment(scratch, tiny), min(limit, left), tiny, core)
            free.extend(() if core is None else (core,))
        print(f"  {part.name} {outcome.state}{': ' * bool(outcome.why)}{outcome.why}", flush=True)
        return outcome

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(run, enumerate(parts, 1)))


def summary_text(outcomes: Sequence[Outcome], folder: Path) -> str:
    """The tables of all results that are there, and what became of each part."""
    blocks = []
    for outcome in outcomes:
        path = folder / f"{outcome.part.name}.json"
        if path.is_file():
            result = json.loads(path.read_text(encoding="utf-8"))
            blocks += [f"{outcome.part.name}: {origin(result)}", *markdown(result)]
    width = max(len(o.part.name) for o in outcomes)
    blocks.append("\n".join(f"{o.part.name:<{width}}  {o.state:<18}{o.seconds:>5.0f} s  {o.why}" for o in outcomes))
    return "\n\n".join(blocks)


def main() -> None:
    """Run the parts, print the tables, and say what is missing."""
    if WHEELS.value:
        print(*wheels(), sep="\n")
        return
    tiny, name = REHEARSE.value, machine()
    parts = chosen_parts(CHOSEN.value, tiny)
    if not tiny and not name.startswith("gpu-"):
        raise InputError(f"There is no GPU here, but {name}: --rehearse runs every part at tiny sizes on any machine.")
    with tempfile.TemporaryDirectory(prefix="tlseg_gpu_") as scratch:
        folder = Path(scratch) / "results" if tiny else Path(OUTPUT.value) / name / "gpu"
        outcomes = run_all(parts, folder, 60 * MINUTES.value, tiny, Path(scratch))
        print(f"\n{summary_text(outcomes, folder)}")
    bad = [o for o in outcomes if not o.good]
    if bad:
        print(f"\n{len(bad)} of {len(outcomes)} parts have no result: {', '.join(o.part.name for o in bad)}.")
        raise SystemExit(FAILED)


if __name__ == "__main__":
    cli.run(main)
