"""Small DefVIS networks of both layouts, with weights that make slots and frames differ."""

from typing import Any

import pytest
import torch

from visdeploy_training import create_model
from visdeploy_training.methods.defvis import DefVIS

SMALL: dict[str, Any] = {
    "num_frames": 3, "hidden_dim": 48, "num_heads": 4, "num_points": 2, "encoder_layers": 2, "decoder_layers": 2,
    "feedforward_dim": 32, "mask_groups": 1, "sequence_dim": 4, "height": 64, "width": 96,
}  # fmt: skip
TOKENS: dict[str, Any] = {"instance_groups": 2, "tokens_per_group": 5, "queries_per_frame": 1}


def small_network(*, tokens: bool, **changes: Any) -> DefVIS:
    """Return a network with 2 slots (with tokens) or 4 slots (without)."""
    torch.manual_seed(0)
    model = create_model("defvis", "tiny", num_classes=3, **(SMALL | (TOKENS if tokens else {}) | changes))
    for name, parameter in model.named_parameters():
        if name.endswith(("sampling_offsets.weight", "attention_weights.weight", "conv_offset.weight")):
            torch.nn.init.normal_(parameter, std=0.1)
    assert isinstance(model, DefVIS)
    return model


@pytest.fixture(scope="session", params=[True, False], ids=["tokens", "queries"])
def network(request: pytest.FixtureRequest) -> DefVIS:
    return small_network(tokens=request.param).eval()
