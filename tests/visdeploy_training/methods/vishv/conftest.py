from typing import Any

import pytest
import torch

from visdeploy_training import create_model
from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.vishv import VIShv

SMALL: dict[str, Any] = {
    "pyramid_channels": 16,
    "decoder_channels": (16, 16, 8, 8),
    "semantic_channels": (16, 16, 8, 8),
    "num_groups": 4,
    "appearance_dim": 8,
    "flow_steps": 2,
    "flow_width": 8,
    "window": 2,
    "clip_overlap": 1,
    "height": 96,
    "width": 128,
    "shortest_edge": 96,
    "longest_edge": 128,
}


def small_network(**changes: Any) -> VIShv:
    """Return a network of few channels for clips of two frames, in evaluation mode."""
    torch.manual_seed(0)
    classes = 3 if changes.get("semantic", True) else 1
    model = create_model("vishv", "tiny", num_classes=changes.pop("num_classes", classes), **(SMALL | changes))
    assert isinstance(model, VIShv)
    return model.eval()


@pytest.fixture
def clips() -> torch.Tensor:
    """Return two clips of two frames: `[2, 2, 3, 96, 128]`."""
    return torch.randn(2, 2, 3, 96, 128, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def targets() -> list[ClipTargets]:
    """Return a clip of two objects, one of them absent from the second frame, and a clip of one object."""
    masks = torch.zeros(2, 2, 96, 128, dtype=torch.bool)
    masks[:, 0, 10:50, 20:70] = True
    masks[0, 1, 60:90, 5:45] = True
    labels = torch.tensor([[0, 2], [0, 7]])  # labels of absent objects count for nothing
    return [ClipTargets(masks, labels), ClipTargets(masks[:, :1].roll(16, dims=3), torch.ones(2, 1, dtype=torch.int64))]
