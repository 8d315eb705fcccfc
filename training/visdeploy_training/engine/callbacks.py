"""What runs beside the training: atomic checkpoints, averaged weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.fabric.utilities.types import _PATH
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.plugins.io import TorchCheckpointIO
from torch.optim.swa_utils import get_ema_avg_fn

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
        self._updates = 0
        rising = [get_ema_avg_fn(min(decay, (1 + n) / (10 + n))) for n in range(int(10 / (1 - decay)) + 1)]

        def average(old: Any, new: Any, count: Any) -> Any:
            return rising[min(int(count), len(rising) - 1)](old, new, count)

        super().__init__(avg_fn=average)
