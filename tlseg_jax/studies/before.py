"""How well a run's start segments the target as it is: what fine-tuning has to be better than.

Kept in RUN/start/, whose summary.json and subjects.csv are as the run's own, so that the run's hold its model's alone.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.datasets.lookup import spec_from_dict
from tlseg_jax.evaluate.results import keep_results
from tlseg_jax.evaluate.tta import averages
from tlseg_jax.preprocess.store.any_store import AnyStore
from tlseg_jax.runtime import processes
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.runtime.messages import log
from tlseg_jax.studies.assess import assess, is_scored, place_in, scored_names
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train.pretrained import Pretrained

FOLDER = "start"

Summaries = Mapping[str, Mapping[str, Any]]
"""Test set -> its means, as in summary.json."""


def assess_start(run: Path, start: Pretrained, tests: Sequence[AnyStore], place: Workplace) -> dict[str, Any]:
    """Score a run's start on the run's test sets, where it segments their structures; what is scored already stays.

    The run folder is held, and the start has not seen the tests.

    Returns:
      Test set -> its means; empty where the start segments other structures than they show.
    """
    able, home = [t for t in tests if _segments(start, t)], run / FOLDER
    if not able:
        return {}
    processes.chief(lambda: _begin(home, start))
    scoring = place.scoring | {"tta": place.tta and averages(start.saved.description)}
    for test in able:
        if not processes.chief(functools.partial(is_scored, home, test, **scoring)):
            assess(home, start.saved, test, **scoring, progress=place.progress, figures=False)
    names = {name for test in able for name in scored_names(test)}
    found = processes.chief(lambda: read_json(home / "summary.json")["test_sets"])
    return {name: entry for name, entry in found.items() if name in names}


def _segments(start: Pretrained, test: AnyStore) -> bool:
    """Whether a start says of each structure of a test set where it is, under the same name and on such voxels."""
    saved = start.saved
    spec = spec_from_dict(saved.description["spec"], str(start.run))
    if spec.kind != test.spec.kind or not set(test.spec.structures) <= set(spec.structures):
        return False
    try:
        place_in(test, spec, str(start.run), saved.description["patch_box"])
    except InputError as e:
        log.info(f"the start is not scored as it is: {e}")
        return False
    return True


def _begin(home: Path, start: Pretrained) -> None:
    path = home / "summary.json"
    if path.exists() and read_json(path).get("weights") == start.saved.weights:
        return
    home.mkdir(exist_ok=True)
    keep_results(home, ())  # they are of another start
    write_json(path, {**start.record, "test_sets": {}})


def compared(before: Summaries, after: Summaries, tests: Sequence[AnyStore]) -> str:
    """The start's mean Dice beside the fine-tuned model's, a line a test set; empty where nothing can be compared."""
    lines = []
    for test in tests:
        names = [n for n in scored_names(test) if n in before and n in after]
        if names:
            was, now = (float(np.mean([s[n]["dice_mean"] for n in names])) for s in (before, after))
            of = f", mean of {len(names)} structures" if len(names) > 1 else ""
            lines.append(
                f"{test.spec.name}: Dice {was:.3f} before fine-tuning (the start as it is), {now:.3f} after{of}"
            )
    return "\n".join(lines)
