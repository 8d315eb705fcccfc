"""What runs beside the training: atomic checkpoints, averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch import Tensor

from visdeploy.atomic import replacing_file


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
