from collections.abc import Callable

import pytest
import torch

from visdeploy_training import VISModel, create_model
from visdeploy_training.clip import ClipTargets


def small_network(**changes: object) -> VISModel:
    """Return a network of a few kilobytes in evaluation mode, its proposals spread over the picture."""
    torch.manual_seed(0)
    options = {"num_queries": 5, "num_stages": 2, "hidden_dim": 16, "dynamic_dim": 4, "feedforward_dim": 16}
    model = create_model("tevit", "tiny", num_classes=3, **(options | changes)).eval()
    with torch.no_grad():
        boxes = model.get_parameter("rpn_head.init_proposal_bboxes.weight")
        boxes.copy_(0.2 + 0.5 * torch.rand(boxes.shape))
    return model


@pytest.fixture
def small() -> Callable[..., VISModel]:
    """See `small_network`."""
    return small_network


@pytest.fixture
def clip() -> torch.Tensor:
    """Return two clips of three frames, the second one with padding: `[2, 3, 3, 64, 96]`."""
    clips = torch.randn(2, 3, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    clips[1, ..., 50:, :] = 0
    clips[1, ..., 70:] = 0
    return clips


@pytest.fixture
def sizes() -> torch.Tensor:
    """Return rows and columns of the two clips without padding."""
    return torch.tensor([[64, 96], [50, 70]])


@pytest.fixture
def targets() -> tuple[ClipTargets, ...]:
    """Return a clip of two objects, one of them absent from the middle frame, and a clip of one object."""
    masks = torch.zeros(3, 2, 64, 96, dtype=torch.bool)
    masks[:, 0, 10:30, 20:50] = True
    masks[[0, 2], 1, 40:60, 5:45] = True
    labels = torch.tensor([[0, 2]] * 3)
    return ClipTargets(masks, labels), ClipTargets(masks[:, :1].roll(8, dims=3), torch.ones(3, 1, dtype=torch.int64))
