"""A small liver study: models A, B and C see the same batches, C keeps its first levels, and forgetting is scored."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.train.slice_runs import TUMOUR_ONLY, first_variables, small_store
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.report.registry import SECTIONS
from tlseg_jax.report.study_info import read_study
from tlseg_jax.studies.cells import folder_of
from tlseg_jax.studies.results_table import read_results
from tlseg_jax.studies.study import read_study_file, study_from_dict
from tlseg_jax.studies.sweep import Sweep
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train import run as run_module
from tlseg_jax.train import step_maker as step_maker_module
from tlseg_jax.train import usual
from tlseg_jax.train.execution import Execution

pytestmark = [pytest.mark.usefixtures("quick_compile"), pytest.mark.slow]

LIVER = Path(__file__).parents[2] / "experiments" / "studies" / "liver.toml"
PLAIN = Execution(cache="none")  # so that model C, too, is given its images
METHODS = [
    {"name": m.name, "pretask": m.pretask.replace("lits", "tinyct"), "freeze": m.freeze or "none"}
    for m in read_study_file(LIVER).methods
]
STUDY: dict[str, Any] = {
    "name": "liver",
    "task": "tinymr",
    "n": [2],
    "seeds": 1,
    "epochs": 1,
    "pretrain_epochs": 1,
    "methods": METHODS,
    "recipe_values": {"batch_size": 4},
    "sections": list(read_study_file(LIVER).sections),
}


@dataclasses.dataclass(frozen=True)
class Trained:
    """A finished sweep, and the batches of its training steps: those of the pre-training, then of A, B and C."""

    sweep: Sweep
    batches: list[dict[str, Any]]

    def model(self, name: str) -> Any:
        """Of a cell by its method, or of the pre-training."""
        run = next(r for r in self.sweep.runs if r.name.startswith(name))
        return load_model(folder_of(self.sweep.folder, run))


@pytest.fixture(scope="module")
def trained(quick_compile: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    root = tmp_path_factory.mktemp("liver")
    small_store(root / "stores" / "tinyct", spec={"name": "tinyct"})
    small_store(root / "stores" / "tinymr", spec={"name": "tinymr", "modality": "MR"} | TUMOUR_ONLY)
    seen: list[dict[str, Any]] = []
    make = step_maker_module.make_train_step

    def recorded(*args: Any, **given: Any) -> Any:
        step = make(*args, **given)

        def counted(state: Any, batch: Any) -> Any:
            seen.append({k: np.array(v) for k, v in batch.items()})
            return step(state, batch)

        counted.trace = step.trace  # type: ignore[attr-defined]
        return counted

    three = UNetConfig.residual("tiny2d", (2, 2, 2))
    with pytest.MonkeyPatch.context() as m:
        m.setattr(usual, "get_network", lambda _: three)
        m.setattr(step_maker_module, "make_train_step", recorded)
        m.setattr(run_module, "init_variables", lambda c, key: first_variables(c, int(jax.random.key_data(key)[-1])))
        place = Workplace(root / "work", root / "stores", progress=False)
        sweep = Sweep(place, study_from_dict(STUDY, "test"))
        swept = sweep.run(PLAIN)
        assert not swept.failed, swept.failed
        yield Trained(sweep, seen)


BATCHES = [10] * 2 + [4] * 12
"""An epoch of 14 slices: the study's batches of 4 are the target's, and the pre-task keeps its recipe's of 10."""


def test_all_models_see_the_same_batches_in_the_same_order(trained: Trained) -> None:
    assert [len(batch["image"]) for batch in trained.batches] == BATCHES
    a, b, c = (trained.batches[i : i + 4] for i in range(2, 14, 4))
    for x, y, z in zip(a, b, c, strict=True):
        assert x.keys() == y.keys() == z.keys() == {"image", "label"}
        assert all(np.array_equal(x[k], y[k]) and np.array_equal(x[k], z[k]) for k in x)
    assert not np.array_equal(a[0]["image"], a[1]["image"])


def same(a: Any, b: Any) -> bool:
    return bool(jax.tree.all(jax.tree.map(np.array_equal, a, b)))


def test_model_c_keeps_its_first_two_levels_and_model_b_does_not(trained: Trained) -> None:
    before, b, c = (trained.model(name) for name in ("tinyct", "B", "C"))
    for block in ("encoder_0", "encoder_1"):
        assert same(c.params[block], before.params[block]) and same(c.batch_stats[block], before.batch_stats[block])
        assert not same(b.params[block], before.params[block])
    for block in ("bottleneck", "up_0", "decoder_0", "decoder_1"):
        assert not same(c.params[block], before.params[block])


def test_b_and_c_start_from_the_tumours_column(trained: Trained) -> None:
    """Adam's first steps are at most about the rate each: the head is still near where it started."""
    column = trained.model("tinyct").params["head"]["kernel"][:, 1:]
    step = trained.sweep.job(trained.sweep.cells[0]).recipe.learning_rate * 4
    a, b, c = (np.abs(trained.model(m).params["head"]["kernel"] - column).max() for m in "ABC")
    assert b < 1.2 * step and c < 1.2 * step and a > 1.2 * step


def test_what_was_forgotten_is_in_the_table_and_the_report_has_its_sections(trained: Trained, tmp_path: Path) -> None:
    folder = trained.sweep.folder
    results, study = read_results(folder / "results.csv"), read_study(folder / "study.json")
    scored = {(r.method, r.role, r.test_set) for r in results}
    assert scored == {
        ("", "pretask", "tinyct_tumour"),
        *((m, "target", "tinymr_tumour") for m in "ABC"),
        *((m, "pretask", "tinyct_tumour") for m in "BC"),
    }
    study = dataclasses.replace(study, figures=tmp_path)
    found = {name: SECTIONS[name](results, study) for name in study.sections}
    for name in ("target", "convergence", "losses_by_method", "examples", "cases"):
        section = found[name]
        assert section is not None and all(f.png.is_file() for f in section.figures) and section.figures
    for name in ("method_tests", "forgetting", "epochs", "detection", "pretasks"):
        section = found[name]
        assert section is not None and section.tables


def test_a_second_call_trains_nothing(trained: Trained) -> None:
    swept = trained.sweep.run(PLAIN)
    assert len(swept.done) == 4 and len(trained.batches) == len(BATCHES)
