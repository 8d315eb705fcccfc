"""The exports of `test_tevit.py` and `test_defvis.py` with all blocks of the backbones, and with the largest one."""

from pathlib import Path

import pytest
import torch

import visdeploy
from tests.visdeploy_export import test_defvis, test_tevit
from tests.visdeploy_training.methods.defvis.conftest import small_network
from visdeploy.parity.certificate import Certificate
from visdeploy_training import create_model, save_checkpoint
from visdeploy_training.methods.defvis import DefVIS

pytestmark = pytest.mark.campaign


@pytest.mark.parametrize("backbone", ["pvt_small", "pvt_v2_b1", "resnet50", "efficientnet_lite0"])
def test_tevit_reproduces_pytorch_on_a_real_video(shared: Path, tmp_path: Path, backbone: str):
    checkpoint = save_checkpoint(test_tevit.make(backbone), tmp_path / "model.safetensors")
    video, frames = shared / test_tevit.VIDEO, test_tevit.FRAMES
    bundle = visdeploy.export(checkpoint, certify_on=video, certify_frames=frames)
    test_tevit.check(bundle.certificate())


def test_the_largest_backbone_reproduces_pytorch_on_a_real_video(shared: Path, tmp_path: Path):
    checkpoint = save_checkpoint(test_tevit.make("swin_l"), tmp_path / "model.safetensors")
    bundle = visdeploy.export(checkpoint, certify_on=shared / test_tevit.VIDEO, certify_frames=3)
    test_tevit.check_clip(Certificate.model_validate(bundle.certificate()), 3)


def tiny() -> DefVIS:
    """The variant as it is; its window has a dozen frames."""
    torch.manual_seed(0)
    model = create_model("defvis", "tiny", num_classes=3)
    assert isinstance(model, DefVIS)
    return model


@pytest.mark.parametrize(("name", "frames"), [("tokens", 8), ("queries", 8), ("dilated", 3), ("tiny", 24)])
def test_defvis_reproduces_pytorch_on_a_real_video(shared: Path, tmp_path: Path, name: str, frames: int):
    options = test_defvis.DILATED if name == "dilated" else {}
    model = tiny() if name == "tiny" else small_network(tokens=name == "tokens", **options)
    checkpoint = save_checkpoint(test_defvis.talkative(model), tmp_path / "model.safetensors")
    bundle = visdeploy.export(checkpoint, certify_on=shared / test_defvis.VIDEO, certify_frames=frames)
    test_defvis.check(bundle.certificate())
