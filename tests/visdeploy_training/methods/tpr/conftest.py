"""Small TPR networks with both kinds of routing layers, whose gates are partly open and whose samples move."""

from typing import Any

import pytest
import torch

from visdeploy_training import create_model
from visdeploy_training.methods.tpr import TPR

SMALL: dict[str, Any] = {
    "channels": 16, "num_groups": 4, "cpr_depths": (1, 1, 1, 1, 1), "tower_depth": 1, "basis_channels": 8,
    "num_bases": 2, "attention_size": 4, "mask_size": 8, "track_dim": 8, "height": 96, "width": 160,
    "shortest_edge": 160, "longest_edge": 288,
}  # fmt: skip


def small_network(variant: str = "tiny", *, spread: float = 0.2, **changes: Any) -> TPR:
    """Return a network in evaluation mode; offsets, routing and gates have an effect.

    Args:
        variant: Name of the variant.
        spread: Standard deviation of the weights of offsets and gates. The default gives samples that are several
            pixels away, so that rounding errors grow from frame to frame; with 0.02 they do not.
        changes: Fields of the configuration.
    """
    torch.manual_seed(0)
    model = create_model("tpr", variant, **({"num_classes": 3} | SMALL | changes))
    assert isinstance(model, TPR)
    for name, parameter in model.named_parameters():
        if name.endswith(("gate_conv.weight", "conv_offset.weight", "offset.weight", "offset_gen.3.weight")):
            torch.nn.init.normal_(parameter, std=spread)
        elif name.endswith("scale_weight"):
            torch.nn.init.constant_(parameter, 0.5)
        elif ".Pconv." in name and name.endswith(("0.weight", "1.weight", "2.weight")):
            torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def pyramid(height: int, width: int, *, batch: int = 1, channels: int = 16, seed: int = 0) -> list[torch.Tensor]:
    """Return random levels p3 to p7 of images of this size."""
    generator = torch.Generator().manual_seed(seed)
    levels = []
    for stride in (8, 16, 32, 64, 128):
        levels.append(torch.randn(batch, channels, -(-height // stride), -(-width // stride), generator=generator))
    return levels


@pytest.fixture(scope="module", params=["tiny", "tiny_sepc"])
def network(request: pytest.FixtureRequest) -> TPR:
    """Return a network of each kind of routing layer; tests must not change it."""
    return small_network(request.param)
