"""The PyTorch networks are ours: same outputs, loss and gradients; and what would be another network is found out."""

import jax
import numpy as np
import pytest

from benchmarks.peers.agreement import compare_arrays, compare_gradients
from benchmarks.peers.carry import carry
from benchmarks.peers.case import Case
from benchmarks.peers.worker import Worker, WorkerError
from benchmarks.sizes import Size, get_size
from tlseg_jax.models.networks import NETWORKS, count_parameters, get_network, variable_shapes
from tlseg_jax.runtime.errors import InputError

# A program that calls oneDNN runs, and cannot be written down for the next start.
pytestmark = pytest.mark.filterwarnings("ignore:Error writing persistent compilation cache entry")


def caller(thing):
    return lambda method, *given: getattr(thing, method)(*given)


@pytest.fixture
def torch_side():
    pytest.importorskip("torch")
    pytest.importorskip("monai")
    from benchmarks.peers import pytorch

    return pytorch


SMALL = Size("switch8x2", 1, (16, 16, 16), "noise")


@pytest.mark.slow
@pytest.mark.parametrize("size", [SMALL, *(pytest.param(get_size(n), id=n) for n in NETWORKS)])
def test_the_pytorch_network_has_our_outputs_loss_and_gradients(size, torch_side):
    from benchmarks.compare import TOLERANCES, checked
    from benchmarks.peers.ours import Ours

    case = Case(size)
    found = checked(caller(Ours(case)), caller(torch_side.Pytorch(case)), "float32")
    assert set(found) == {*TOLERANCES["float32"], "draw"}


@pytest.mark.slow
def test_another_network_is_found_out(torch_side, monkeypatch):
    from benchmarks import compare
    from benchmarks.peers import torch_networks
    from benchmarks.peers.ours import Ours

    monkeypatch.setattr(compare, "DRAWS", 1)
    forward = torch_networks.Block.forward
    monkeypatch.setattr(torch_networks.Block, "forward", lambda self, x: 1.01 * forward(self, x))
    case = Case(SMALL)
    with pytest.raises(InputError, match="not the same network, and nothing was timed"):
        compare.checked(caller(Ours(case)), caller(torch_side.Pytorch(case)), "float32")


@pytest.mark.slow
def test_our_side_is_timed_with_adam_as_pytorchs_is():
    from benchmarks.peers.ours import Ours

    side = Ours(Case(Size("switch32", 1, (8, 8, 8), "noise")))
    side.build()
    moments, parameters = (sum(x.size for x in jax.tree.leaves(t)) for t in (side._state.opt_state, side._state.params))
    assert moments - 2 * parameters in range(5)  # two of each, which Muon has not of kernels; and counts


@pytest.mark.parametrize("name", NETWORKS)
def test_the_pytorch_network_has_as_many_parameters(name, torch_side):
    side = torch_side.Pytorch(Case(get_size(name)))
    assert side.parameters(torch_side.Form()) == count_parameters(variable_shapes(get_network(name))["params"])
    assert all(side.parameters(form) > 0 for form in torch_side.monai_forms())


def test_the_layout_after_un_pooling_is_kept_and_changes_nothing(torch_side):
    import torch

    from benchmarks.peers import torch_networks

    network = torch_networks.UNet(get_network("switch8x2")).to(memory_format=torch.channels_last_3d)
    x = torch.randn(1, 1, 8, 16, 8).contiguous(memory_format=torch.channels_last_3d)
    kept = network(x)
    network.keep_layout = False
    assert torch.allclose(kept, network(x), atol=1e-5)


def test_a_missing_weight_is_named(torch_side):
    side = torch_side.Pytorch(Case(get_size("switch32")))
    with pytest.raises(ValueError, match=r"is not given .*head\.bias"):
        side._network(get_network("switch32"), {})


def test_kernels_are_carried_to_pytorchs_axes():
    kernel = np.arange(3 * 3 * 3 * 2 * 4, dtype=np.float32).reshape(3, 3, 3, 2, 4)
    up = np.arange(2 * 2 * 2 * 3 * 5, dtype=np.float32).reshape(2, 2, 2, 3, 5)
    tree = {
        "encoder_0": {"conv_0": {"kernel": kernel}, "bn_0": {"scale": np.ones(4), "mean": np.zeros(4)}},
        "up_0": {"kernel": up, "bias": np.ones(5)},
        "head": {"kernel": np.ones((4, 2)), "bias": np.zeros(2)},
    }
    found = carry(tree, 3)
    assert found["encoder_0.conv_0.weight"].shape == (4, 2, 3, 3, 3)
    assert found["encoder_0.conv_0.weight"][3, 1, 0, 1, 2] == kernel[0, 1, 2, 1, 3]
    assert found["up_0.weight"][2, 4, 1, 0, 1] == up[1, 0, 1, 2, 4]
    assert found["head.weight"].shape == (2, 4, 1, 1, 1)
    assert {"encoder_0.bn_0.weight", "encoder_0.bn_0.running_mean", "up_0.bias"} <= set(found)


def test_gradients_of_other_parameters_are_not_compared():
    a = {"x": np.ones(2, np.float32)}
    assert compare_gradients(a, {"x": np.array([1, 2], np.float32)}) == 0.5
    with pytest.raises(ValueError, match="only one side has"):
        compare_gradients(a, {"y": np.ones(2, np.float32)})
    with pytest.raises(ValueError, match="compared"):
        compare_arrays(np.ones(2), np.ones(3))


class Thing:
    def __init__(self, start):
        self.value = start

    def add(self, number):
        self.value += number
        return self.value

    def fail(self):
        raise RuntimeError("first line\nsecond line")

    def end(self):
        raise SystemExit(3)


def test_a_worker_keeps_its_object_tells_its_faults_and_its_end():
    worker = Worker(Thing, 1)
    assert [worker.call("add", 2), worker.call("add", 3)] == [3, 6]
    with pytest.raises(WorkerError, match=r"^RuntimeError: first line$"):
        worker.call("fail")
    assert worker.call("add", 0) == 6
    with pytest.raises(WorkerError, match="ended with code 3"):
        worker.call("end")
    with pytest.raises(WorkerError):
        worker.call("add", 1)
    worker.close()
