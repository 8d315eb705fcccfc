"""Atomic writing of checkpoints, and the trainer's callbacks: checkpoints and averaged weights."""

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
    """Writer of checkpoints that never leaves an incomplete file."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: _PATH, storage_options: Any | None = None) -> None:
        """Write a temporary file in the same folder, then rename it."""
        with replacing_file(Path(path)) as temporary:
            try:
                super().save_checkpoint(checkpoint, temporary, storage_options)
            except RuntimeError as error:  # PyTorch's writer of archives does not say why a write failed
                raise OSError(str(error).splitlines()[0]) from error


class AveragedWeights(WeightAveraging):
    """Exponential moving average of the weights, which is validated and saved in place of the weights.

    The decay rises to its final value, so that the initial weights soon have no influence.

    Args:
        decay: Final decay, the share of the previous average in the next one.
    """

    def __init__(self, decay: float) -> None:
        def average(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
            return old.lerp(new, 1 - min(decay, (1 + int(count)) / (10 + int(count))))

        super().__init__(avg_fn=average)


class Checkpoints(Checkpoint):
    """Callback that writes Lightning checkpoints: the last one, periodic ones that are kept, and the best one.

    They are written right after an iteration, never while gradients are accumulated, so that a resumed run loses
    no gradient. Lightning's `ModelCheckpoint` would write again after the first batch of a resumed run.

    Args:
        folder: Folder of the files.
        every: Iterations between checkpoints that replace `last.ckpt`.
        keep_every: Iterations between checkpoints that are kept as `iteration_N.ckpt`; 0 keeps none.
        best: Write `best.ckpt` when the validation AP exceeds all previous ones.
        steps: Number of optimiser steps in an iteration.

    Attributes:
        best_score: Highest validation AP so far; None before the first validation.
        best_iteration: Number of iterations before that validation.
    """

    def __init__(self, folder: Path, *, every: int, keep_every: int = 0, best: bool = False, steps: int = 1) -> None:
        self.folder, self.every, self.keep_every, self.best, self.steps = folder, every, keep_every, best, steps
        self.best_score: float | None = None
        self.best_iteration = 0
        self._step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start at the number of optimiser steps of the resumed run."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the files that are due if the batch completed an iteration."""
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        step, rest = divmod(self._step, self.steps)
        if rest:
            return
        if self.keep_every and step % self.keep_every == 0:
            trainer.save_checkpoint(self.folder / f"iteration_{step}.ckpt")
        if step % self.every == 0:
            trainer.save_checkpoint(self.folder / LAST)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the best checkpoint if this validation is better than all previous ones."""
        if not self.best or trainer.sanity_checking:
            return
        score = float(trainer.callback_metrics[MONITOR])
        if self.best_score is None or score > self.best_score:
            self.best_score, self.best_iteration = score, trainer.global_step // self.steps
            trainer.save_checkpoint(self.folder / BEST)

    def state_dict(self) -> dict[str, Any]:
        """Return the best score and its iteration."""
        return {"best_score": self.best_score, "best_iteration": self.best_iteration}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the best score of the resumed run, unless its checkpoint no longer exists."""
        if (self.folder / BEST).is_file():
            self.best_score, self.best_iteration = state_dict["best_score"], state_dict["best_iteration"]
