"""A VISOLO network small enough for many runs, with weights that give spread scores."""

import numpy as np
import pytest
import torch

from tests.goldens.seeded import seeded_array, seeded_frames
from visdeploy_training import create_model
from visdeploy_training.methods.visolo import VISOLO

SMALL = {"grid": (6, 8), "head_width": 16, "mask_width": 16, "track_dim": 16, "neck_width": 16, "memory_slots": 16}


def seed_heads(model: VISOLO) -> VISOLO:
    """Set deterministic heads, with scores spread so that thresholds are rarely close."""
    for name, value in model.state_dict().items():
        if not name.startswith("backbone"):
            value.copy_(torch.from_numpy(np.array(seeded_array(name, value.shape))))
    with torch.no_grad():
        model.Mask_branch.pred.norm.bias.add_(0.1)
        model.Kernel_branch.pred.norm.bias.sub_(0.1)
        model.Category_branch_post.pred.weight.mul_(2.0)
        model.Category_branch_post.pred.bias.sub_(2.0)
    return model


@pytest.fixture(scope="session")
def small_model() -> VISOLO:
    model = create_model("visolo", "tiny", num_classes=5, pretrained=True, **SMALL)
    return seed_heads(model).eval()


@pytest.fixture(scope="session")
def frames() -> torch.Tensor:
    """Return 20 normalised frames, `[20, 1, 3, 64, 96]`."""
    clip = torch.from_numpy(seeded_frames("small", 20, 64, 96)).float().permute(0, 3, 1, 2)
    return ((clip - 116.0) / 57.0).unsqueeze(1)
