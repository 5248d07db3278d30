"""Training on slices: lengths, losses against NumPy, restricted regions, dropout, resumption and refusals."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.checkpoints.test_checkpoint import assert_same_bits
from tests.conftest import csv_rows
from tests.train.power_cut import power_cut
from tests.train.slice_runs import NETWORK, TUMOUR_ONLY, first_variables, pretrained, small_job, small_store, train
from tlseg_jax.checkpoints.checkpoint import load_model
from tlseg_jax.checkpoints.state import TrainState, init_state
from tlseg_jax.evaluate.slice_inference import predict_planes
from tlseg_jax.models.unet import UNetConfig
from tlseg_jax.preprocess.store.slice_store import SliceStore
from tlseg_jax.preprocess.store.store import Store
from tlseg_jax.runtime.errors import InputError
from tlseg_jax.train import planes as planes_module
from tlseg_jax.train.job_settings import JobSettings
from tlseg_jax.train.optimiser import make_optimiser
from tlseg_jax.train.planes import DRAW, even_batch
from tlseg_jax.train.predictors import load_predictor, make_predictor
from tlseg_jax.train.pretrained import Pretrained
from tlseg_jax.train.step import make_test_loss, make_train_step
from tlseg_jax.train.task_data import TaskData
from tlseg_jax.transfer.freeze import get_rules, label_parameters

pytestmark = pytest.mark.usefixtures("quick_compile", "quick_start")

PLANES = 7
TUMOUR = dataclasses.replace(NETWORK, outputs=("tumour",))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    """Two volumes to train and two for test, seven slices each; liver and tumour."""
    return small_store(tmp_path_factory.mktemp("both") / "store", PLANES)


@pytest.fixture(scope="module")
def tumours(tmp_path_factory: pytest.TempPathFactory) -> SliceStore:
    """The same, whose labels show the tumour only."""
    return small_store(tmp_path_factory.mktemp("tumours") / "store", PLANES, spec=TUMOUR_ONLY)


def state_of(network: UNetConfig, seed: int = 1) -> TrainState:
    v = first_variables(network, seed)
    return TrainState(jnp.int32(0), v["params"], v["batch_stats"], None)


def cross_entropy(p: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.float64]:
    """Of each pixel and output, in float64."""
    p = p.astype(np.float64)
    return np.where(truth, -np.log(p), -np.log1p(-p))


def predict(network: UNetConfig, state: TrainState, image: NDArray[Any]) -> NDArray[np.float32]:
    """Probabilities of slices, in batches of one size so that one program serves all tests."""
    return predict_planes(image, make_predictor(network, state.params, state.batch_stats))


def truths(bits: NDArray[np.uint8], outputs: int) -> NDArray[np.bool_]:
    return np.stack([(bits & 2**i) > 0 for i in range(outputs)], -1)


# How long a run is.


@pytest.mark.parametrize("batch", [1, 3, 4, 7, 14, 20])
def test_an_epoch_ends_with_the_step_that_shows_its_last_slice(batch: int, store: SliceStore) -> None:
    """Counted out: slice by slice, 14 an epoch, batch by batch."""
    data = TaskData(store, small_job(batch=batch, epochs=5), None)
    shown, ends = 0, []
    for step in range(1, 100):
        before, shown = shown // 14, shown + batch
        ends += [step] * (shown // 14 - before)
    got = data.sampler.length(store.subjects("train"))
    assert got.epoch_ends == tuple(ends[:5])
    assert got.steps == ends[4]
    by_steps = TaskData(store, small_job(batch=batch, steps=9, epochs=0), None).sampler.length(store.subjects("train"))
    assert by_steps.steps == 9
    assert by_steps.epoch_ends == tuple(e for e in ends if e <= 9)


def test_the_recipes_epochs_are_used_where_none_are_given(store: SliceStore) -> None:
    job = small_job(epochs=0)
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, epochs=3))
    assert TaskData(store, job, None).sampler.length(("vol-0",)).epoch_ends == (2, 4, 6)


@pytest.mark.parametrize("count", [1, 3, 5, 11, 14, 23, 36, 37, 40, 46, 288])
def test_even_batches(count: int) -> None:
    size = even_batch(count)
    assert 1 <= size <= min(20, count)
    divisors = [d for d in range(4, 21) if count % d == 0]
    assert size == (max(divisors) if divisors else min(20, count))


# Losses of the test set.


@pytest.mark.parametrize("planes", [7, 23])
def test_the_whole_test_loss_is_the_mean_over_all_test_pixels(planes: int, tmp_path: Path) -> None:
    """Against NumPy, from the predictor's probabilities; 23 slices fill no batch evenly."""
    store = small_store(tmp_path / "s", planes, test=1)
    assert planes == 7 or planes % even_batch(planes)
    watch = TaskData(store, small_job(), None).watch()
    assert watch is not None
    state = state_of(NETWORK)
    p = predict(NETWORK, state, store.volume_image("vol-2"))
    expected = cross_entropy(p, truths(store.codes("vol-2"), 2)).mean()
    assert watch.whole(state) == pytest.approx(expected, rel=1e-5)


def test_the_draw_is_of_ten_fixed_test_slices_by_seed(store: SliceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planes_module, "make_test_loss", lambda *_: lambda state, batch: batch)
    test = [(s, p) for s in store.subjects("test") for p in range(PLANES)]
    images = {store.image(s, p).tobytes(): store.label(s, p) for s, p in test}
    drawn = {}
    for seed in range(3):
        watch, again = (TaskData(store, small_job(seed=seed), None).watch() for _ in range(2))
        assert watch is not None and again is not None
        batch: Any = watch.draw(state_of(NETWORK))
        keys = [image.tobytes() for image in np.asarray(batch["image"])]
        assert len(set(keys)) == len(keys) == DRAW == 10
        for k, label in zip(keys, np.asarray(batch["label"]), strict=True):
            np.testing.assert_array_equal(label, images[k])
        for look in (watch, again):
            assert_same_bits(look.draw(state_of(NETWORK, 2)), batch)
        drawn[seed] = tuple(keys)
    assert len(set(drawn.values())) == 3


def test_fewer_than_ten_test_slices_are_all_drawn_and_none_are_not_watched(tmp_path: Path) -> None:
    few = small_store(tmp_path / "few", PLANES, test=1)
    watch = TaskData(few, small_job(), None).watch()
    assert watch is not None
    state = state_of(NETWORK)
    assert float(watch.draw(state)) == watch.whole(state)
    assert TaskData(small_store(tmp_path / "none", 4, test=0), small_job(), None).watch() is None


# Dropout.


@pytest.mark.slow
def test_dropout_acts_in_training_by_seed_and_step_and_not_in_the_test_loss(store: SliceStore) -> None:
    data = TaskData(store, small_job(), None)
    batch = {"image": store.volume_image("vol-0")[:4], "label": store.codes("vol-0")[:4]}
    v = first_variables(NETWORK)
    labels = label_parameters(v["params"], get_rules("none"))
    optimiser = make_optimiser(small_job().recipe, 9, labels)

    def run(step: Any, first: int = 0, seed: int = 0) -> tuple[list[float], Any]:
        state = dataclasses.replace(init_state(jax.tree.map(jnp.array, v), optimiser, seed), step=jnp.int32(first))
        losses = []
        for _ in range(2):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        return losses, jax.device_get(state.params)

    def make() -> Any:
        return make_train_step(NETWORK, optimiser, data.loss(), labels, inputs=data.inputs())

    step = make()
    one, again, later, other = run(step), run(make()), run(step, 7), run(step, seed=1)
    assert one[0] == again[0]
    assert_same_bits(one[1], again[1])
    assert len({one[0][0], later[0][0], other[0][0]}) == 3  # the same parameters, other values dropped
    test_losses = [
        float(make_test_loss(dataclasses.replace(NETWORK, dropout=d), data.loss(), data.inputs())(state, batch))
        for d in (0.5, 0.0)
        for state in [state_of(NETWORK), dataclasses.replace(state_of(NETWORK), step=jnp.int32(7))]
    ]
    assert len(set(test_losses)) == 1


# Losses that count in the liver only.


def masked_mean(p: NDArray[Any], truth: NDArray[Any], weights: NDArray[Any]) -> float:
    """Of each output over its own pixels, then of the outputs."""
    ce = cross_entropy(p, truth)
    return float(np.mean([ce[..., i][weights[..., i]].mean() for i in range(ce.shape[-1])]))


def test_the_labelled_liver_is_the_region(store: SliceStore) -> None:
    data = TaskData(store, small_job(loss="liver_bce"), None)
    batch = next(data.batches(("vol-0",)))
    assert "region" not in batch  # the label shows it
    state = state_of(NETWORK)
    p = predict(NETWORK, state, batch["image"])
    truth = truths(batch["label"], 2)
    liver = truth[..., :1]
    expected = masked_mean(p, truth, np.concatenate([np.ones_like(liver), liver], -1))
    got = make_test_loss(NETWORK, data.loss(), data.inputs())(state, {k: batch[k] for k in ("image", "label")})
    assert float(got) == pytest.approx(expected, rel=1e-5)
    plain = TaskData(store, small_job(), None)
    other = make_test_loss(NETWORK, plain.loss(), plain.inputs())(state, {k: batch[k] for k in ("image", "label")})
    assert float(other) == pytest.approx(cross_entropy(p, truth).mean(), rel=1e-5)
    assert abs(float(other) - float(got)) > 1e-3


def test_the_predicted_liver_is_the_region_where_the_label_shows_none(tumours: SliceStore) -> None:
    """Every slice of every batch has the region that the pre-trained model predicts in that slice."""
    before = pretrained()
    predictor = load_predictor(before.saved)
    data = TaskData(tumours, small_job(TUMOUR, "liver_bce"), before)
    subjects = tumours.subjects("train")
    batches = data.batches(subjects)
    share = []
    for _ in range(4):
        batch = next(batches)
        expected = predict_planes(batch["image"], predictor)[..., 0] > 0.5
        np.testing.assert_array_equal(batch["region"], expected)
        share.append(expected.mean())
    assert 0.05 < np.mean(share) < 0.95
    assert {k: (v.shape, v.dtype) for k, v in data.batch_shapes().items()} == {
        k: (v.shape, v.dtype) for k, v in batch.items() if k != "index"
    }


def test_the_test_loss_is_restricted_to_the_predicted_liver_too(tumours: SliceStore, tmp_path: Path) -> None:
    before = pretrained()
    store = small_store(tmp_path / "s", PLANES, spec=TUMOUR_ONLY, test=1)
    watch = TaskData(store, small_job(TUMOUR, "liver_bce"), before).watch()
    assert watch is not None
    state = state_of(TUMOUR)
    image = store.volume_image("vol-2")
    region = predict_planes(image, load_predictor(before.saved))[..., :1] > 0.5
    p = predict(TUMOUR, state, image)
    expected = masked_mean(p, truths(store.codes("vol-2"), 1), region)
    assert watch.whole(state) == pytest.approx(expected, rel=1e-5)
    assert float(watch.draw(state)) == pytest.approx(expected, rel=1e-5)


def without_liver() -> Pretrained:
    """A model that finds nothing anywhere."""
    before = pretrained()
    head = {"kernel": before.saved.params["head"]["kernel"] * 0, "bias": np.full(2, -9, np.float32)}
    return dataclasses.replace(
        before, saved=dataclasses.replace(before.saved, params=before.saved.params | {"head": head})
    )


def test_a_liver_that_nothing_shows_is_refused(tumours: SliceStore, tmp_path: Path) -> None:
    job = small_job(TUMOUR, "liver_bce")
    three = dataclasses.replace(NETWORK, channels=3)
    cases: list[tuple[Any, str]] = [
        (None, r"neither the labels nor the pre-trained model show one: name a pre-trained model with a liver output"),
        (pretrained(TUMOUR), r"neither the labels nor the pre-trained model show one"),
        (pretrained(three), r"same number of slice channels \(1\)"),
        (without_liver(), r"finds no liver in 2 volume\(s\) of .*: choose another `loss`"),
    ]
    for before, said in cases:
        with pytest.raises(InputError, match=said) as e:
            train(tumours, job, tmp_path / "run", before)
        assert "`loss=liver_bce`" in str(e.value)
        assert "\n" not in str(e.value)


def test_what_is_refused_claims_no_run_folder(tumours: SliceStore, tmp_path: Path) -> None:
    """The next try, with what the sentence asks for, may use the same folder."""
    only_liver = small_store(tmp_path / "l", 4, spec={"structures": ["liver"], "label_values": [[1]]})
    liver = dataclasses.replace(NETWORK, outputs=("liver",))
    with pytest.raises(InputError, match="there is none but liver: choose the loss cross_entropy"):
        train(only_liver, small_job(liver, "liver_bce"), tmp_path / "a")
    with pytest.raises(InputError, match="use `sampling=all`"):
        train(only_liver, small_job(liver, sampling="balanced"), tmp_path / "b")
    with pytest.raises(InputError, match="finds no liver"):
        train(tumours, small_job(TUMOUR, "liver_bce"), tmp_path / "c", without_liver())
    with pytest.raises(InputError, match="does not fit"):
        train(tumours, small_job(TUMOUR), tmp_path / "d", pretrained(UNetConfig.residual("tiny2d", (2, 2))))
    for name in "abcd":
        assert not (tmp_path / name / "settings.json").exists()


# Networks and data that do not fit.


def test_outputs_are_those_of_the_data(store: SliceStore, tumours: SliceStore) -> None:
    for data, network, said in (
        (store, TUMOUR, "shows liver, tumour and the network has the outputs tumour"),
        (tumours, NETWORK, "shows tumour and the network has the outputs liver, tumour"),
        (store, dataclasses.replace(NETWORK, outputs=("tumour", "liver")), "has the outputs tumour, liver"),
    ):
        with pytest.raises(InputError, match=f"{said}: they must be the same") as e:
            TaskData(data, small_job(network), None)
        assert str(data.folder) in str(e.value)


def test_volumes_and_slices_are_not_mixed(store: SliceStore, tiny_store: Store, tiny_network: UNetConfig) -> None:
    flat = small_job()
    deep = JobSettings(tiny_network, flat.recipe, 1)
    with pytest.raises(InputError, match=r"holds slices and the network tiny is 3D: use unet2d\.") as e:
        TaskData(store, deep, None)
    assert str(store.folder) in str(e.value)
    with pytest.raises(InputError, match=r"holds volumes and the network tiny2d is 2D: use a 3D one\.") as e:
        TaskData(tiny_store, flat, None)
    assert str(tiny_store.folder) in str(e.value)


# Whole runs.


@pytest.mark.slow
def test_a_run_cut_in_mid_epoch_goes_on_as_if_it_had_not_been(
    store: SliceStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout; epochs end at steps 4, 7 and 11, so a cut after 9 steps goes on from the checkpoint of step 8."""
    assert NETWORK.dropout == 0.5
    job = small_job(epochs=3, watch_every=2, checkpoint_every=4)
    whole = train(store, job, tmp_path / "whole")
    assert not (tmp_path / "whole" / "checkpoints_best").exists()
    with power_cut(9, monkeypatch):
        train(store, job, tmp_path / "cut")
    rest = train(store, job, tmp_path / "cut")
    assert (whole.resumed_at, rest.resumed_at, int(rest.state.step)) == (0, 8, 11)
    assert_same_bits(rest.state, whole.state)
    assert (rest.losses, rest.test_losses) == (whole.losses, whole.test_losses)
    assert (tmp_path / "cut" / "history.csv").read_bytes() == (tmp_path / "whole" / "history.csv").read_bytes()
    a, b = ([r | {"seconds": ""} for r in csv_rows(tmp_path / f / "epochs.csv")] for f in ("whole", "cut"))
    assert a == b
    assert [(r["epoch"], r["step"]) for r in a] == [("1", "4"), ("2", "7"), ("3", "11")]
    assert [r | {"seconds": ""} for r in whole.epochs] == [r | {"seconds": ""} for r in rest.epochs] == a


def test_what_a_runs_csv_files_hold(store: SliceStore, tmp_path: Path) -> None:
    """history.csv: every loss, the draw's at step 1 and every third, validation; epochs.csv: means and whole losses."""
    job = small_job(epochs=3, watch_every=3, validation=1, validate_every=2)
    done = train(store, job, tmp_path / "run")
    assert int(done.state.step) == math.ceil(3 * PLANES / 4) == 6
    table = csv_rows(tmp_path / "run" / "history.csv")
    assert list(table[0]) == ["step", "loss", "validation_iou", "test_loss"]
    found = {c: [(int(r["step"]), float(r[c])) for r in table if r[c]] for c in list(table[0])[1:]}
    assert all(sum(bool(r[c]) for c in found) == 1 for r in table)
    assert [s for s, _ in found["loss"]] == [1, 2, 3, 4, 5, 6]
    assert [s for s, _ in found["test_loss"]] == [1, 3, 6]
    assert [s for s, _ in found["validation_iou"]] == [2, 4, 6]
    assert (found["loss"], found["test_loss"], found["validation_iou"]) == (
        done.losses,
        done.test_losses,
        done.validation,
    )
    epochs = csv_rows(tmp_path / "run" / "epochs.csv")
    assert list(epochs[0]) == ["epoch", "step", "seconds", "train_loss", "test_loss"]
    assert [(r["epoch"], r["step"]) for r in epochs] == [("1", "2"), ("2", "4"), ("3", "6")]
    losses = [v for _, v in found["loss"]]
    assert [float(r["train_loss"]) for r in epochs] == pytest.approx([np.mean(losses[i : i + 2]) for i in (0, 2, 4)])
    assert all(float(r["seconds"]) > 0 for r in epochs)
    state = done.state
    ce = [
        cross_entropy(predict(NETWORK, state, store.volume_image(s)), truths(store.codes(s), 2))
        for s in store.subjects("test")
    ]
    assert float(epochs[-1]["test_loss"]) == pytest.approx(np.mean(ce), rel=1e-4)


def test_the_validation_score_is_the_targets_mean_iou(store: SliceStore) -> None:
    state = state_of(NETWORK, 4)
    ious = []
    for s in store.subjects("test"):
        found = predict(NETWORK, state, store.volume_image(s))[..., 1] > 0.5
        truth = (store.codes(s) & 2) > 0
        ious.append((found & truth).sum() / (found | truth).sum())
    got = TaskData(store, small_job(), None).validator(store.subjects("test"))(state)
    assert got == pytest.approx(np.mean(ious), abs=1e-6)
    assert got > 0


def test_three_slice_channels_are_seen_by_training_validation_and_the_test_loss(store: SliceStore) -> None:
    """All read the same neighbours: a network of three channels scores alike wherever it is asked."""
    three = dataclasses.replace(NETWORK, channels=3)
    data = TaskData(store, small_job(three), None)
    assert next(data.batches(store.subjects("train")))["image"].shape == data.batch_shapes()["image"].shape
    state, watch = state_of(three), data.watch()
    p = [predict(three, state, store.volume_image(s, 3)) for s in store.subjects("test")]
    truth = [truths(store.codes(s), 2) for s in store.subjects("test")]
    assert watch is not None
    assert watch.whole(state) == pytest.approx(np.mean(cross_entropy(np.array(p), np.array(truth))), rel=1e-5)
    found, there = (np.array(p)[..., 1] > 0.5), np.array(truth)[..., 1]
    iou = [(a & b).sum() / (a | b).sum() for a, b in zip(found, there, strict=True)]
    assert data.validator(store.subjects("test"))(state) == pytest.approx(np.mean(iou), abs=1e-6)


def test_the_frozen_level_stays_bit_for_bit_and_so_do_its_running_averages(tumours: SliceStore, tmp_path: Path) -> None:
    freeze, frozen = "first_two_convolutions", ("encoder_0",)
    before = pretrained()
    train(tumours, small_job(TUMOUR, freeze=freeze, epochs=0, steps=2), tmp_path / "run", before)
    after = load_model(tmp_path / "run")
    for tree, old in ((after.params, before.saved.params), (after.batch_stats, before.saved.batch_stats)):
        for block in old:
            if block in frozen:
                assert_same_bits(tree[block], old[block])
            elif block != "head":
                for path, leaf in jax.tree_util.tree_leaves_with_path(tree[block]):
                    was = old[block]
                    for k in path:
                        was = was[k.key]
                    assert not np.array_equal(leaf, was), (block, path)
    assert after.description["pretask"] == "before"
