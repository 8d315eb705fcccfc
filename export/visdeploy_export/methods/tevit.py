"""TeViT's step graph: one clip of any length in, raw results of its best pairs out (specification sections 2 to 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from visdeploy.manifest import TensorSpec
from visdeploy_export.step import StepGraph
from visdeploy_training.methods.tevit import ClipStep
from visdeploy_training.methods.tevit.config import MASK_SIZE, SIZE_MULTIPLE, TeViTConfig
from visdeploy_training.methods.tevit.inference import inference_settings
from visdeploy_training.model import VISModel

FRAMES = 3
"""Of the example clip."""


def build(model: VISModel) -> StepGraph:
    """The step graph of a TeViT network in evaluation mode; frames, rows and columns are free."""
    step, config = ClipStep(model), model.config
    settings = inference_settings(config)
    rows, columns = (SIZE_MULTIPLE * torch.export.Dim(name, min=2) for name in ("rows", "columns"))
    return StepGraph(
        module=step,
        inputs=(TensorSpec(name="frames", dtype="float32", shape=["frames", 3, "height", "width"]),),
        outputs=_outputs(),
        state=(),
        example=(_example(config),),
        dynamic_shapes=({0: torch.export.Dim("frames", min=1, max=config.window), 2: rows, 3: columns},),
        preprocessing=settings.preprocessing,
        window=settings.window,
        decode=settings.decode,
        tracking=settings.tracking,
        size_multiple=SIZE_MULTIPLE,
    )


def _example(config: TeViTConfig) -> Tensor:
    """A clip with padding at the right and bottom, as the network finds out the size of the picture."""
    clip = torch.randn(FRAMES, 3, config.height, config.width, generator=torch.Generator().manual_seed(0))
    clip[..., -SIZE_MULTIPLE // 2 :, :] = 0
    clip[..., -SIZE_MULTIPLE // 2 :] = 0
    return clip


def _outputs() -> tuple[TensorSpec, ...]:
    """In the order of `ClipStep.output_names`; a pair is a query and a class, best first."""
    side = 2 * MASK_SIZE
    return (
        TensorSpec(name="scores", dtype="float32", shape=["frames", "pairs"], measure="ranking"),
        TensorSpec(name="labels", dtype="int64", shape=["pairs"], measure="identity"),
        TensorSpec(name="queries", dtype="int64", shape=["pairs"], measure="identity"),
        TensorSpec(name="boxes", dtype="float32", shape=["frames", "pairs", 4]),
        TensorSpec(name="mask_logits", dtype="float32", shape=["frames", "pairs", side, side]),
    )
