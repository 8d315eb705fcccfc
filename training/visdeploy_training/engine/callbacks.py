"""Callbacks of the trainer: checkpoints written atomically, averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.types import _PATH
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from visdeploy.atomic import replacing_file

LAST = "last.ckpt"
BEST = "best.ckpt"
MONITOR = "val/AP"


class AtomicCheckpointIO(TorchCheckpointIO):
    """Checkpoints that appear complete or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write beside, then rename."""
        with replacing_file(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)


class AveragedWeights(WeightAveraging):
    """A running average of the weights; it is what gets validated and saved.

    The decay rises from 0 to its value, so that the untrained start is soon forgotten.

    Args:
        decay: Share of the old average in the new one.
    """

    def __init__(self, decay: float) -> None:
        def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
            return old.lerp(new, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

        super().__init__(avg_fn=average)


class Checkpoints(Checkpoint):
    """Write Lightning checkpoints: the last one, some that are kept, and the best one.

    They are written right after an optimiser step, never while gradients are accumulated, so that a resumed run loses
    no gradient. Lightning's own `ModelCheckpoint` would write again after the first batch of a resumed run.

    Args:
        folder: Folder of the files.
        every: Optimiser steps between checkpoints that replace `last.ckpt`.
        keep_every: Optimiser steps between checkpoints that are kept as `iteration_N.ckpt`; 0 keeps none.
        best: Write `best.ckpt` when the validation AP has risen.

    Attributes:
        best_score: Highest validation AP so far; None before the first validation.
        best_iteration: Optimiser steps at that validation.
    """

    def __init__(self, folder: Path, *, every: int, keep_every: int = 0, best: bool = False) -> None:
        self.folder, self.every, self.keep_every, self.best = folder, every, keep_every, best
        self.best_score: float | None = None
        self.best_iteration = 0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the steps of a resumed run as done."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the files that are due where the batch ended an optimiser step."""
        step = trainer.global_step
        if step == self._step:
            return
        self._step = step
        if self.keep_every and step % self.keep_every == 0:
            trainer.save_checkpoint(self.folder / f"iteration_{step}.ckpt")
        if step % self.every == 0:
            trainer.save_checkpoint(self.folder / LAST)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the best checkpoint where this validation is better than all before."""
        if not self.best or trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics[MONITOR])
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_iteration = score, trainer.global_step
            trainer.save_checkpoint(self.folder / BEST)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and its iteration."""
        return {"best_score": self.best_score, "best_iteration": self.best_iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare with the best score of the resumed run, unless its file is gone."""
        if (self.folder / BEST).is_file():
            self.best_score, self.best_iteration = state_dict["best_score"], state_dict["best_iteration"]
