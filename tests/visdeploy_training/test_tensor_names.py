import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from visdeploy.errors import CheckpointError
from visdeploy_training.checkpoint_file import from_object
from visdeploy_training.tensor_names import plain_names

PLAIN = ["backbone.conv.weight", "head.bias"]


@pytest.mark.parametrize(
    "names",
    [
        PLAIN,
        [f"module.{name}" for name in PLAIN],
        [f"module.module.{name}" for name in PLAIN],
        [f"_orig_mod.{name}" for name in PLAIN],
        [f"module._orig_mod.{name}" for name in PLAIN],
        [f"_orig_mod.module.{name}" for name in PLAIN],
        ["backbone._orig_mod.conv.weight", "head.bias"],
        ["_fsdp_wrapped_module.backbone._checkpoint_wrapped_module.conv.weight", "_fsdp_wrapped_module.head.bias"],
        ["n_averaged", *(f"module.{name}" for name in PLAIN)],
        ["module.n_averaged", *(f"module.module.{name}" for name in PLAIN)],
    ],
)
def test_names_of_wrappers_are_removed(names):
    assert sorted(plain_names(dict.fromkeys(names), "x")) == sorted(PLAIN)


@pytest.mark.parametrize("names", [["module.a", "b"], ["n_averaged", "a"], ["modules.a"], ["a._orig_module.b"]])
def test_names_of_the_network_itself_are_kept(names):
    assert list(plain_names(dict.fromkeys(names), "x")) == names


def test_what_pytorch_writes():
    network = torch.nn.Sequential(torch.nn.Linear(2, 3))
    for wrapped in (AveragedModel(network), torch.compile(network), AveragedModel(torch.compile(network))):
        assert from_object({"model": wrapped.state_dict()}).tensors.keys() == network.state_dict().keys()


def test_two_tensors_of_one_name():
    with pytest.raises(CheckpointError, match=r"some.pth contains two tensors of one name.*a.b and a._orig_mod.b"):
        plain_names({"a.b": 1, "a._orig_mod.b": 2}, "some.pth")
