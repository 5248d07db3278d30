"""Whole small runs: resumed bit for bit, stopped where they should be, rebuilt from the folder alone."""

import csv
import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from tests.checkpoints.test_checkpoint import assert_same_bits
from tests.conftest import MakeStore, he_variables
from tests.train.power_cut import power_cut
from tlseg_jax.checkpoints.checkpoint import SavedModel, load_model
from tlseg_jax.checkpoints.checkpoint_files import steps_in
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.runtime.files import lock_folder
from tlseg_jax.runtime.programs import Programs
from tlseg_jax.studies.runs import train_and_assess
from tlseg_jax.studies.workplace import Workplace
from tlseg_jax.train import step_maker as step_maker_module
from tlseg_jax.train.execution import Execution
from tlseg_jax.train.job import train_job
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.predictors import load_predictor
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.recipes import get_recipe
from tlseg_jax.train.run import prepare_run
from tlseg_jax.train.seen import seen_subjects
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.train.trainer import Fit, LoopSettings

pytestmark = pytest.mark.usefixtures("quick_compile", "quick_start")

STEPS = 6


@pytest.fixture
def settings(tiny_network: UNetConfig) -> JobSettings:
    recipe = dataclasses.replace(
        get_recipe("paper"), loss="cross_entropy_dice", epsilon=1e-3, learning_rate=1e-2, schedule="cosine"
    )
    return JobSettings(tiny_network, recipe, STEPS, checkpoint_every=2)


PROGRAMS = Programs()


def train(store: Store, job: JobSettings, folder: Path, pretrained: Pretrained | None = None) -> Fit:
    with lock_folder(folder):
        return train_job(store, job, folder, pretrained, programs=PROGRAMS, progress=False)


def history(folder: Path) -> list[list[str]]:
    with (folder / "history.csv").open(newline="") as f:
        return list(csv.reader(f))


def test_resumed_runs_equal_one_run_bit_for_bit(
    tiny_store: Store, settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also twice: the second cut comes before anything new was saved."""
    job = dataclasses.replace(settings, validation=1, validate_every=1)
    whole = train(tiny_store, job, tmp_path / "whole")
    with power_cut(3, monkeypatch):
        train(tiny_store, job, tmp_path / "cut")
    assert steps_in(tmp_path / "cut" / "checkpoints")[-1] == 3
    with power_cut(0, monkeypatch):
        train(tiny_store, job, tmp_path / "cut")
    rest = train(tiny_store, job, tmp_path / "cut")
    assert (whole.resumed_at, rest.resumed_at) == (0, 3)
    assert_same_bits(rest.state, whole.state)
    assert rest.losses == whole.losses
    assert rest.validation == whole.validation
    assert [s for s, _ in whole.losses] == [s for s, _ in whole.validation] == list(range(1, STEPS + 1))
    assert (tmp_path / "cut" / "history.csv").read_bytes() == (tmp_path / "whole" / "history.csv").read_bytes()
    assert steps_in(tmp_path / "cut" / "checkpoints") == steps_in(tmp_path / "whole" / "checkpoints")


@pytest.mark.slow
def test_steps_after_the_last_checkpoint_are_done_again(
    tiny_store: Store, settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tiny_store, settings, tmp_path / "whole")
    with power_cut(5, monkeypatch):
        train(tiny_store, settings, tmp_path / "cut")
    assert steps_in(tmp_path / "cut" / "checkpoints") == [2, 4]
    rest = train(tiny_store, settings, tmp_path / "cut")
    assert rest.resumed_at == 4
    assert_same_bits(rest.state, whole.state)
    assert history(tmp_path / "cut") == history(tmp_path / "whole")


@pytest.mark.slow
def test_seeds(tiny_store: Store, settings: JobSettings, tmp_path: Path) -> None:
    first, again, other = (
        train(tiny_store, dataclasses.replace(settings, seed=seed), tmp_path / name)
        for name, seed in [("a", 0), ("b", 0), ("c", 1)]
    )
    assert_same_bits(first.state, again.state)
    assert first.losses == again.losses
    assert first.losses != other.losses
    assert first.losses[-1][1] < first.losses[0][1]


def test_a_finished_run_does_nothing_more(
    tiny_store: Store, settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = train(tiny_store, settings, tmp_path / "run")
    files = {p: p.read_bytes() for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()}
    before = history(tmp_path / "run")
    make = step_maker_module.make_train_step
    monkeypatch.setattr(step_maker_module, "make_train_step", lambda *a, **k: _Unused(make(*a, **k)))
    again = train(tiny_store, settings, tmp_path / "run")
    assert (again.resumed_at, again.losses, again.stopped) == (STEPS, done.losses, "steps")
    assert history(tmp_path / "run") == before
    assert {p: p.read_bytes() for p in (tmp_path / "run" / "checkpoints").rglob("*") if p.is_file()} == files


class _Unused:
    """A step that may be looked at and not taken."""

    def __init__(self, step: Any) -> None:
        self.lower, self.trace = step.lower, step.trace

    def __call__(self, *_: Any) -> Any:
        raise AssertionError("a step was taken")


def test_a_changed_setting_is_refused_and_named(tiny_store: Store, settings: JobSettings, tmp_path: Path) -> None:
    job = dataclasses.replace(settings, steps=1)
    train(tiny_store, job, tmp_path / "run")
    for changed in (dataclasses.replace(job, seed=5), dataclasses.replace(job, network=_wider(job.network))):
        with pytest.raises(InputError, match=r"was made with other settings.*`workdir`") as e:
            train(tiny_store, changed, tmp_path / "run")
        said = "job.seed was 0 and is now 5" if changed.seed else "job.network.bottleneck was [4] and is now [4, 4]"
        assert said in str(e.value)
    train(tiny_store, job, tmp_path / "run")


def test_changed_data_is_refused(make_store: MakeStore, settings: JobSettings, tmp_path: Path) -> None:
    job = dataclasses.replace(settings, steps=1)
    train(make_store("a"), job, tmp_path / "run")
    with pytest.raises(InputError, match=r"data.store was"):
        train(make_store("b", first=50), job, tmp_path / "run")


def _wider(config: UNetConfig) -> UNetConfig:
    return dataclasses.replace(config, bottleneck=(4, 4))


def test_the_network_is_rebuilt_from_the_folder_alone(tiny_store: Store, settings: JobSettings, tmp_path: Path) -> None:
    done = train(tiny_store, settings, tmp_path / "run")
    saved = load_model(tmp_path / "run")
    assert saved.config == settings.network
    assert saved.step == STEPS
    assert_same_bits(saved.params, jax.device_get(done.state.params))
    assert_same_bits(saved.batch_stats, jax.device_get(done.state.batch_stats))
    assert (saved.description["task"], saved.description["pretask"], saved.description["n"]) == ("tiny", "none", 4)
    image = tiny_store.image("sub-5").astype(np.float32)[None]
    variables = {"params": done.state.params, "batch_stats": done.state.batch_stats}
    logits = np.asarray(jax.jit(settings.network.module().apply)(variables, image[..., None]), np.float64)
    expected = 1 / (1 + np.exp(logits[..., :1] - logits[..., 1:]))
    np.testing.assert_allclose(load_predictor(saved)(image), expected, atol=1e-5)


def test_the_best_checkpoint_is_the_one_that_is_loaded(
    tiny_store: Store, settings: JobSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores by hand: best at step 2; two worse ones stop the run at step 4."""
    scores = {1: 0.1, 2: 0.5, 3: 0.5, 4: 0.2}
    monkeypatch.setattr(TaskData, "validator", lambda *_: lambda state: scores[int(state.step)])
    job = dataclasses.replace(settings, validation=1, validate_every=1, patience=2)
    done = train(tiny_store, job, tmp_path / "run")
    assert done.stopped == "patience"
    assert int(done.state.step) == 4
    assert done.validation == list(scores.items())
    assert load_model(tmp_path / "run").step == 2
    assert load_model(tmp_path / "run").description["validation_iou"] == 0.5
    again = train(tiny_store, job, tmp_path / "run")
    assert (again.stopped, again.resumed_at, again.validation) == ("patience", 4, done.validation)


def test_validation_needs_scans(tiny_store: Store, settings: JobSettings, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`patience` needs scans"):
        train(tiny_store, dataclasses.replace(settings, patience=1), tmp_path / "a")
    with pytest.raises(InputError, match="leaves none to train on"):
        train(tiny_store, dataclasses.replace(settings, n=2, validation=2), tmp_path / "b")
    with pytest.raises(InputError, match="n=5 labelled scans"):
        train(tiny_store, dataclasses.replace(settings, n=5), tmp_path / "c")


def test_a_nan_stops_the_run_and_names_step_and_subject(
    make_store: MakeStore, settings: JobSettings, tmp_path: Path
) -> None:
    store = make_store(poison="sub-2")
    job = dataclasses.replace(
        settings, checkpoint_every=1, steps=30, recipe=dataclasses.replace(settings.recipe, batch_size=1)
    )
    with pytest.raises(InputError, match=r"became nan at step \d+, on sub-2: ") as e:
        train(store, job, tmp_path / "run")
    step = int(str(e.value).split("step ")[1].split(",")[0])
    assert 1 <= step <= 4
    assert all(s < step for s in steps_in(tmp_path / "run" / "checkpoints"))
    assert all(row[1] != "nan" for row in history(tmp_path / "run"))
    assert len(history(tmp_path / "run")) == step


def test_no_model_there(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    for folder in ("run", "nowhere"):
        with pytest.raises(InputError, match="There is no trained model in"):
            load_model(tmp_path / folder)


def test_fine_tuning_starts_from_the_pre_trained_network(
    tiny_store: Store, make_store: MakeStore, settings: JobSettings, tmp_path: Path
) -> None:
    train(tiny_store, settings, tmp_path / "pre")
    before = Pretrained.load(tmp_path / "pre")
    target = make_store("target", first=20)
    job = dataclasses.replace(settings, n=2, freeze="encoder", seed=3)
    done = train(target, job, tmp_path / "tuned", before)
    after = load_model(tmp_path / "tuned")
    for block in ("encoder_0", "encoder_1", "bottleneck"):
        assert_same_bits(after.params[block], before.saved.params[block])
        assert_same_bits(after.batch_stats[block], before.saved.batch_stats[block])
    assert not np.array_equal(after.params["head"]["kernel"], before.saved.params["head"]["kernel"])
    assert after.description["pretask"] == "tiny"
    assert done.resumed_at == 0
    assert len(after.description["seen_images"]) == 6
    assert seen_subjects(tiny_store, "train", after.description) == tiny_store.subjects("train")
    assert seen_subjects(tiny_store, "test", after.description) == ()


def test_a_test_subject_of_the_pre_training_is_refused(
    tiny_store: Store, make_store: MakeStore, settings: JobSettings, tmp_path: Path
) -> None:
    v = he_variables(settings.network)
    seen: dict[str, Any] = {"seen_images": ["sha5"], "seen_persons": ["other:person-4"], "task": "x"}
    saved = SavedModel(settings.network, v["params"], v["batch_stats"], seen, 1)
    with pytest.raises(InputError, match=r"1 test subject\(s\) of tiny \(sub-5\) were trained on"):
        train(tiny_store, settings, tmp_path / "run", Pretrained(tmp_path / "pre", saved))
    by_person = seen | {"seen_images": [], "seen_persons": ["tiny:person-4"]}
    saved = dataclasses.replace(saved, description=by_person)
    with pytest.raises(InputError, match=r"sub-4"):
        train(tiny_store, settings, tmp_path / "run", Pretrained(tmp_path / "pre", saved))


def test_a_file_in_the_way_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InputError, match="in the way"), lock_folder(folder):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_a_damaged_settings_file_is_one_sentence(
    content: str, tiny_store: Store, settings: JobSettings, tmp_path: Path
) -> None:
    (tmp_path / "settings.json").write_text(content)
    with pytest.raises(InputError, match=r"settings\.json cannot be read"):
        train(tiny_store, settings, tmp_path)


def test_settings_are_saved_in_full(tiny_store: Store, settings: JobSettings, tmp_path: Path) -> None:
    train(tiny_store, dataclasses.replace(settings, steps=1), tmp_path)
    there = json.loads((tmp_path / "settings.json").read_text())
    assert there["job"]["recipe"]["learning_rate"] == 1e-2
    assert sorted(there["data"]["subjects"]) == list(tiny_store.subjects("train"))
    assert any((tmp_path / "tensorboard").iterdir())


def test_what_a_run_says(tiny_store: Store, settings: JobSettings, tmp_path: Path, said: list[str]) -> None:
    """A run the blocks' parameters, a dry run the FLOPs as well."""
    v = he_variables(settings.network)
    description = {"seen_images": [], "seen_persons": [], "task": "hdt_v"}
    before = Pretrained(tmp_path / "pre", SavedModel(settings.network, v["params"], v["batch_stats"], description, 9))
    job = dataclasses.replace(settings, steps=1, freeze="encoder")
    with lock_folder(tmp_path / "run"):
        train_job(tiny_store, job, tmp_path / "run", before, progress=False)
    text = "\n".join(said)
    assert "FLOPs" not in text  # counting them takes seconds
    assert "pre (step 9); head kept" in text
    (total,) = [line.split() for line in text.splitlines() if line.startswith("total")]
    blocks = {k: sum(x.size for x in jax.tree.leaves(p)) for k, p in v["params"].items()}
    frozen = sum(n for k, n in blocks.items() if k.startswith(("encoder", "bottleneck")))
    assert total[1:] == [f"{sum(blocks.values()) - frozen:,}", f"{frozen:,}"]
    train_job(tiny_store, job, tmp_path / "dry", before, execution=Execution(dry_run=True), progress=False)
    (share,) = re.findall(r"FLOPs a step +[\d.]+ G, (\d+)% of the [\d.]+ G that training all takes", said[-1])
    assert 10 < int(share) < 95


def test_patience_counts_from_the_best() -> None:
    def out(*scores: float, patience: int = 2) -> bool:
        return LoopSettings(9, patience=patience).out_of_patience(list(enumerate(scores)))

    assert not out(0.1, 0.2)
    assert not out(0.3, 0.2, 0.31)
    assert out(0.3, 0.2, 0.3)
    assert not out(0.3, 0.1, 0.1, patience=0)


def test_a_test_set_that_will_have_been_seen_is_refused_before_training(
    tiny_store: Store, make_store: MakeStore, settings: JobSettings, tmp_path: Path
) -> None:
    """By the image under any name, and then the person's other scans too."""
    other = make_store(train=0, test=4, first=20, spec={"name": "other", "split_group": "other"})
    records = {s: dict(r) for s, r in other.manifest["subjects"].items()}
    records["sub-20"]["image_sha256"] = "sha1"
    records["sub-22"]["person"] = records["sub-20"]["person"]
    seen = other.with_manifest(other.manifest | {"subjects": records})
    place = Workplace(tmp_path, progress=False)
    with pytest.raises(InputError, match=r"2 test subject\(s\) of other \(sub-20, sub-22\) were trained on"):
        train_and_assess(place, tiny_store, settings, tmp_path / "run", None, [tiny_store, seen], Execution())
    assert not (tmp_path / "run").exists()


def test_validation_holds_whole_persons(tiny_store: Store, settings: JobSettings, tmp_path: Path) -> None:
    records = {s: dict(r) for s, r in tiny_store.manifest["subjects"].items()}
    for r in records.values():
        r["person"] = "twin" if r["split"] == "train" and r["person"] in ("person-0", "person-1") else r["person"]
    store = tiny_store.with_manifest(tiny_store.manifest | {"subjects": records})
    for seed in range(6):
        job = dataclasses.replace(settings, validation=1, seed=seed)
        run = prepare_run(store, job, tmp_path / "run")
        trained, validating = ({store.persons[s] for s in some} for some in (run.fitted, run.validating))
        assert validating and not trained & validating
