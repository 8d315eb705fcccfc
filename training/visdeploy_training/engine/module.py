"""Lightning module of a training: losses, optimiser, validation of tracks."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from visdeploy.evaluation import AnnotationSet, evaluate
from visdeploy.results import VideoResult
from visdeploy_training.checkpoint_file import METADATA_KEY
from visdeploy_training.checkpoint_info import metadata
from visdeploy_training.clip import ClipBatch
from visdeploy_training.datasets import ValidationClip
from visdeploy_training.engine.optim import OptimRecipe, create_optimiser, learning_rate_factor
from visdeploy_training.model import VISModel
from visdeploy_training.predict import predict_clip
from visdeploy_training.registry import get_method


def _channels_last(model: VISModel) -> VISModel:
    """Convert the weights of 2-D convolutions to this layout; `Module.to` would fail for 3-D convolutions."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


class TrainingModule(L.LightningModule):
    """Training and validation of one network.

    Args:
        model: Network created by `create_model`.
        optim: Optimiser, parameter groups and schedule.
        iterations: Number of iterations, for the schedule.
        truth: Ground truth of the validation clips; None if there is no validation.
        channels_last: Memory layout of the network's input.
        steps: Number of optimiser steps in an iteration; the gradient of each one is added to that of those before, and
            divided by this number.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        model: VISModel,
        optim: OptimRecipe,
        *,
        iterations: int,
        truth: AnnotationSet | None = None,
        channels_last: bool = False,
        steps: int = 1,
    ) -> None:
        super().__init__()
        self.model = _channels_last(model) if channels_last else model
        self.optim, self.iterations, self.truth, self.channels_last = optim, iterations, truth, channels_last
        self.steps = steps
        self._losses = get_method(model.info.method).losses
        self._predicted: list[VideoResult] = []
        mean, std = model.config.pixel_mean, model.config.pixel_std
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def normalise(self, batch: ClipBatch) -> Tensor:
        """Return the images as input of the network, float32 `[B, T, 3, H, W]`; padding is zero."""
        images = batch.images.flip(2) if self.model.config.channel_order == "bgr" else batch.images
        flat = (images.flatten(0, 1) - self.pixel_mean) / self.pixel_std
        if self.channels_last:
            flat = flat.contiguous(memory_format=torch.channels_last)
        clips: Tensor = flat.unflatten(0, batch.images.shape[:2])
        for clip, (rows, columns) in zip(clips, batch.sizes, strict=True):
            clip[..., rows:, :] = 0
            clip[..., columns:] = 0
        return clips

    def _forward(self, batch: ClipBatch) -> Any:
        """Return the training output of the network."""
        images = self.normalise(batch)
        return self.model.forward_padded(images, torch.tensor(batch.sizes, device=images.device))

    def training_step(self, batch: ClipBatch, batch_index: int) -> Tensor:
        """Return the sum of the losses of a batch, and log each of them."""
        self.model.start_iteration(self.global_step // self.steps)
        losses = self._losses(self._forward(batch), batch.targets, self.model.config)
        total = torch.stack(list(losses.values())).sum()
        self.log_dict({f"train/{name}": value.detach() for name, value in losses.items()})
        self.log("train/loss", total.detach(), prog_bar=True)
        return total / self.steps

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Clear the gradients at the start of an iteration."""
        if self.global_step % self.steps == 0:
            optimizer.zero_grad()

    def validation_step(self, clip: ValidationClip, batch_index: int) -> None:
        """Predict one clip in the same way as the exported graph."""
        self._predicted.append(predict_clip(self.model, clip.frames(), name=clip.record.name))

    def on_validation_epoch_end(self) -> None:
        """Evaluate the predictions; every process evaluates all clips of its own loader."""
        predicted, self._predicted = self._predicted, []
        if self.truth is None or self.trainer.sanity_checking:
            return
        ids = {video.name: video.id for video in self.truth.videos}
        scores = evaluate(predicted, self.truth, video_ids=ids)["ytvis"]
        for name in ("AP", "AP50", "AP75", "AR1", "AR10"):
            self.log(f"val/{name}", float(scores[name]), prog_bar=name in ("AP", "AP50"), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return the optimiser of the recipe, with a schedule that sets the learning rates after every step.

        Raises:
            ConfigError: A parameter group matches no parameter.
        """
        optimiser = create_optimiser(self.model, self.optim)
        factor = learning_rate_factor(self.optim, self.iterations)
        schedule = LambdaLR(optimiser, lambda step: factor(step // self.steps))
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the description of the network, so that the checkpoint can be exported without further options."""
        checkpoint[METADATA_KEY] = metadata(self.model.info)
