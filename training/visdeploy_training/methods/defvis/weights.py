"""Where DefVIS's weights come from: official checkpoints, COCO-trained relatives, ImageNet backbones (spec 5.4, 6)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from visdeploy_training.backbones.resnet import from_torchvision
from visdeploy_training.methods.defvis.config import VARIANTS
from visdeploy_training.registry import OfficialLayout

PREFIX = "vistr."
BODY = "backbone.0.body."
OFFSETS = "transformer.encoder.layers.0.self_attn.sampling_offsets.weight"
TOKENS = "transformer.instance_encoders.weight"
UNUSED = ("resizer.", "text_encoder.", "vistr.resizer.", "vistr.text_encoder.")


def recognise(state: Mapping[str, Tensor]) -> bool:
    """Whether these are the names of an official checkpoint of either layout (VisTR's own has no deformable encoder)."""
    return PREFIX + OFFSETS in state and "insmask_head.0.weight" in state


def rename(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Official names to ours: `vistr.` goes, the backbone takes the project's names, unused branches are dropped."""
    kept = {k.removeprefix(PREFIX): v for k, v in state.items() if not k.startswith(UNUSED)}
    body = {k.removeprefix(BODY): v for k, v in kept.items() if k.startswith(BODY)}
    renamed = {k: v for k, v in kept.items() if not k.startswith(BODY)}
    return renamed | {f"backbone.{k}": v for k, v in from_torchvision(body).items()}


def variant(state: Mapping[str, Tensor]) -> str:
    """`inst` or `enc` by the instance tokens, `r50` or `r101` by the depth."""
    depth = "r101" if f"{PREFIX}{BODY}layer3.6.conv1.weight" in state else "r50"
    return f"{'inst' if PREFIX + TOKENS in state else 'enc'}_{depth}"


def overrides(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The clip length, which the rows of the sampling offsets tell, where it is not the variant's."""
    config = VARIANTS[variant(state)]
    levels = state[PREFIX + OFFSETS].shape[0] // (2 * config.num_heads * config.num_points)
    frames = levels - (config.num_levels - config.num_frames)
    return {} if frames == config.num_frames else {"num_frames": frames}


OFFICIAL = OfficialLayout(
    recognise=recognise,
    rename=rename,
    variant=variant,
    num_classes=lambda state: int(state[f"{PREFIX}class_embed.weight"].shape[0]) - 2,
    class_tensors=("class_embed.weight", "class_embed.bias"),
    spare_rows=2,
    overrides=overrides,
)
