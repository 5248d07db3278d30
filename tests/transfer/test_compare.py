"""Models A, B and C of one small comparison: trained alike, frozen as said, scored on both test sets, reused."""

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.train.slice_runs import NETWORK, TUMOUR_ONLY, first_variables, small_job, small_store
from tlseg_jax.checkpoints.checkpoint import SavedModel, load_model
from tlseg_jax.checkpoints.run_folder import read_json
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import write_json
from tlseg_jax.studies import assess_slices as assess_module
from tlseg_jax.studies import compare
from tlseg_jax.studies import runs as study
from tlseg_jax.studies.compare import Compared, Planned, train_all
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train import job as job_module

pytestmark = [pytest.mark.usefixtures("quick_compile"), pytest.mark.slow]

THREE_LEVELS = dataclasses.replace(NETWORK, widths=(2, 2, 2))
TUMOUR = dataclasses.replace(THREE_LEVELS, outputs=("tumour",))


@dataclasses.dataclass(frozen=True)
class Study:
    """What the comparison was made of and what it left."""

    place: Workplace
    target: SliceStore
    source: SliceStore
    start: Path
    runs: tuple[Planned, ...]
    done: Compared
    batches: tuple[list[dict[str, Any]], ...]
    said: list[str]

    def call(self, *runs: Planned, source: SliceStore | None = None) -> tuple[Compared, str]:
        """`train_all` with other runs, and what it said."""
        said: list[str] = []
        place = dataclasses.replace(self.place, say=said.append)
        return train_all(place, self.target, source or self.source, self.start, runs), "\n".join(said)


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[list[list[dict[str, Any]]]]:
    """No figures and no slow starts; the batches of every training step are written down, a list a run."""
    seen: list[list[dict[str, Any]]] = []
    make = job_module.make_train_step

    def recorded(*args: Any, **given: Any) -> Any:
        step, batches = make(*args, **given), []

        def counted(state: Any, batch: Any) -> Any:
            if not batches:  # the steps that are only counted are made, too, and never run
                seen.append(batches)
            batches.append({k: np.array(v) for k, v in batch.items()})
            return step(state, batch)

        counted.trace = step.trace  # type: ignore[attr-defined]
        return counted

    def start(config: Any, key: jax.Array) -> dict[str, Any]:
        return first_variables(config, int(jax.random.key_data(key)[-1]))

    with pytest.MonkeyPatch.context() as m:
        m.setattr(job_module, "make_train_step", recorded)
        m.setattr(job_module, "init_variables", start)
        m.setattr(job_module, "step_flops", lambda *_: 1e9)
        m.setattr(assess_module, "draw_examples", lambda *_, **__: None)
        m.setattr(study, "draw_model_curve", lambda *_, **__: None)
        yield seen


@pytest.fixture(scope="module")
def trained(
    quick: list[list[dict[str, Any]]], quick_compile: None, tmp_path_factory: pytest.TempPathFactory
) -> Study:
    root = tmp_path_factory.mktemp("compare")
    source = small_store(root / "stores" / "tinyct", spec={"name": "tinyct"})
    target = small_store(root / "stores" / "tinymr", spec={"name": "tinymr", "modality": "MR"} | TUMOUR_ONLY)
    said: list[str] = []
    place = Workplace(root / "work", store=root / "stores", say=said.append, progress=False)
    start = study.pretrain(place, "tinyct", small_job(THREE_LEVELS), root / "work" / "pretrained")
    quick.clear()
    job = small_job(TUMOUR)
    runs = tuple(
        Planned(m, dataclasses.replace(job, freeze="first_two" if m == "C" else "none"), root / "work" / m, s)
        for m, s in (("A", None), ("B", start), ("C", start))
    )
    done = train_all(place, target, source, start, runs)
    return Study(place, target, source, start, runs, done, tuple(b for b in quick if b), said)


def scores(run: Path) -> dict[str, Any]:
    return read_json(run / "summary.json")["test_sets"]  # type: ignore[no-any-return]


def same(a: Any, b: Any) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and jax.tree.all(jax.tree.map(np.array_equal, a, b))


def models(trained: Study) -> list[SavedModel]:
    return [load_model(r.folder) for r in trained.runs]


@pytest.fixture
def no_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may train, nor begin to."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("training began")

    monkeypatch.setattr(study, "finetune", refuse)
    monkeypatch.setattr(job_module, "make_train_step", refuse)


def test_three_models_are_trained_and_say_where_they_come_from(trained: Study) -> None:
    before = load_model(trained.start)
    assert before.config == THREE_LEVELS
    for saved, pretask in zip(models(trained), ("none", "tinyct", "tinyct"), strict=True):
        assert saved.config == TUMOUR
        assert saved.step == 4
        assert (saved.description["task"], saved.description["pretask"]) == ("tinymr", pretask)
    for model in "ABC":
        assert any(f"model {model}, n = all, seed 0: Dice" in line for line in trained.said)


def test_all_models_see_the_same_batches_in_the_same_order(trained: Study) -> None:
    a, b, c = trained.batches
    assert len(a) == len(b) == len(c) == 4
    for x, y, z in zip(a, b, c, strict=True):
        assert x.keys() == y.keys() == z.keys() == {"image", "label"}
        assert all(np.array_equal(x[k], y[k]) and np.array_equal(x[k], z[k]) for k in x)
    assert not np.array_equal(a[0]["image"], a[1]["image"])


def test_model_c_keeps_its_first_two_levels_and_model_b_does_not(trained: Study) -> None:
    before = load_model(trained.start)
    _, b, c = models(trained)
    for block in ("encoder_0", "encoder_1"):
        for kept in (before.params, before.batch_stats):
            now = (c.params, b.params) if kept is before.params else (c.batch_stats, b.batch_stats)
            assert same(now[0][block], kept[block])
            assert not same(now[1][block], kept[block])
    for block in ("bottleneck", "up_0", "decoder_0", "decoder_1"):
        assert not same(c.params[block], before.params[block])
    assert not same(c.batch_stats["bottleneck"], before.batch_stats["bottleneck"])


def test_b_and_c_start_from_the_tumours_column(trained: Study) -> None:
    """Adam's first steps are at most about the rate each: the head is still near where it started."""
    column = load_model(trained.start).params["head"]["kernel"][:, 1:]
    rate = trained.runs[0].job.recipe.learning_rate
    a, b, c = (m.params["head"]["kernel"] for m in models(trained))
    assert np.abs(b - column).max() < 4.5 * rate
    assert np.abs(c - column).max() < 4.5 * rate
    assert np.abs(a - column).max() > 4.5 * rate


def test_forgetting_is_measured_where_there_is_something_to_forget(trained: Study) -> None:
    assert (trained.done.target, trained.done.source, trained.done.synthetic) == (
        "tinymr_tumour",
        "tinyct_tumour",
        False,
    )
    a, b, c = (set(scores(r.folder)) for r in trained.runs)
    assert a == {"tinymr_tumour"}
    assert b == c == {"tinymr_tumour", "tinyct_tumour"}
    assert set(scores(trained.start)) == {"tinyct_liver", "tinyct_tumour"}  # before the transfer
    for r in trained.runs[1:]:
        assert scores(r.folder)["tinyct_tumour"]["seen_in_training"] == []


def test_examples_show_all_three_models_beside_the_truth(trained: Study) -> None:
    assert len(trained.done.examples) == 2
    for example in trained.done.examples:
        assert list(example.probability) == ["A", "B", "C"]
        assert all(p.shape == example.truth.shape for p in example.probability.values())
        assert example.truth.any()


def test_a_second_call_trains_nothing(trained: Study, no_step: None) -> None:
    files = {
        p: p.read_bytes() for r in trained.runs for p in r.folder.rglob("*") if p.is_file() and p.name != "run.lock"
    }
    done, said = trained.call(*trained.runs)
    assert said.count("reusing") == 3
    assert {p: p.read_bytes() for p in files} == files
    assert (done.target, done.source) == (trained.done.target, trained.done.source)
    for x, y in zip(done.examples, trained.done.examples, strict=True):
        assert same(dict(x.probability), dict(y.probability))


def test_what_is_not_this_very_run_is_not_taken_for_done(trained: Study, tmp_path: Path) -> None:
    """Another setting, start or state of the start, in a folder that holds a finished run."""
    a, b, _ = trained.runs
    recipe = dataclasses.replace(a.job.recipe, learning_rate=0.5)
    other = [
        (dataclasses.replace(a, job=dataclasses.replace(a.job, recipe=recipe)), "job.recipe.learning_rate"),
        (dataclasses.replace(a, job=dataclasses.replace(a.job, seed=1)), "job.seed"),
        (dataclasses.replace(b, job=dataclasses.replace(b.job, freeze="first_two")), "job.freeze"),
        (dataclasses.replace(a, start=trained.start), "pretrained"),
        (dataclasses.replace(b, start=None), "pretrained"),
    ]
    for planned, named in other:
        with pytest.raises(InputError, match=r"was made with other settings") as e:
            trained.call(planned)
        assert named in str(e.value)
    folder = Path(shutil.copytree(b.folder, tmp_path / "B"))
    settings = read_json(folder / "settings.json")
    settings["pretrained"]["step"] += 1  # as if the pre-training had gone on elsewhere since
    write_json(folder / "settings.json", settings)
    with pytest.raises(InputError, match=r"was made with other settings \(pretrained\.step"):
        trained.call(dataclasses.replace(b, folder=folder))


def test_an_unscored_or_unfinished_run_goes_on(trained: Study, tmp_path: Path, quick: list[Any]) -> None:
    """Its training is there, so no step is taken, and the missing scores are made."""
    a = trained.runs[0]
    folder = Path(shutil.copytree(a.folder, tmp_path / "A"))
    summary = read_json(folder / "summary.json")
    write_json(folder / "summary.json", summary | {"test_sets": {}})
    quick.clear()
    _, said = trained.call(dataclasses.replace(a, folder=folder))
    assert "reusing" not in said
    assert not any(quick)
    assert scores(folder) == scores(a.folder)


def test_forgetting_is_not_measured_where_the_pre_task_cannot_show_it(
    trained: Study, tmp_path: Path, no_step: None
) -> None:
    """And is made up for, without training, once the pre-task's test set is there."""
    b = trained.runs[1]
    folder = Path(shutil.copytree(b.folder, tmp_path / "B"))
    summary = read_json(folder / "summary.json")
    target_only = {k: v for k, v in summary["test_sets"].items() if k == "tinymr_tumour"}
    write_json(folder / "summary.json", summary | {"test_sets": target_only})
    copy = dataclasses.replace(b, folder=folder)
    livers = small_store(
        tmp_path / "livers", spec={"name": "livers", "structures": ["liver"], "label_values": [[1]]}
    )
    untested = small_store(tmp_path / "untested", spec={"name": "tinyct"}, test=0)
    for source, why in ((livers, "livers or its model does not show tumour"), (untested, "tinyct has no test volumes")):
        done, said = trained.call(copy, source=source)
        assert done.source is None
        assert f"{why}, so forgetting is not measured." in said
        assert set(scores(folder)) == {"tinymr_tumour"}
    done, _ = trained.call(copy)
    assert done.source == "tinyct_tumour"
    assert scores(folder)["tinyct_tumour"] == scores(b.folder)["tinyct_tumour"]


def test_a_target_without_test_volumes_is_refused_before_training(
    trained: Study, tmp_path: Path, no_step: None
) -> None:
    store = small_store(tmp_path / "s", spec={"name": "tinymr"} | TUMOUR_ONLY, test=0)
    with pytest.raises(InputError, match=r"has no test volumes to compare models on: .*--test_volumes") as e:
        compare.train_all(trained.place, store, trained.source, trained.start, trained.runs)
    assert "\n" not in str(e.value)
