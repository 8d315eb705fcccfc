"""Base class of all networks: a module with its method, variant, classes and configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class ModelInfo:
    """Description of a network from which the untrained network can be created again; stored in checkpoints.

    Attributes:
        method: Name of the method.
        variant: Name of the variant.
        classes: Class names, in label order.
        overrides: Changed fields of the variant's configuration.
    """

    method: str
    variant: str
    classes: tuple[str, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)


class VISModel(nn.Module):
    """Base class of the networks.

    Attributes:
        info: Description of the network, set by `create_model`.
        config: Configuration of the method, immutable.
    """

    info: ModelInfo
    config: Any

    def start_iteration(self, iteration: int) -> None:
        """Prepare the network for a training iteration; the engine calls this before every training batch.

        Networks whose training has phases override this method; for all others nothing changes.

        Args:
            iteration: Number of completed iterations.
        """

    def forward_padded(self, clips: Tensor, sizes: Tensor) -> Any:
        """Compute the training output of clips that were padded to a common size.

        Networks that need the size without padding override this method; for all others padding is part of the image.

        Args:
            clips: Normalised RGB, float, `[B, T, 3, H, W]`, padded with zeros at the right and bottom.
            sizes: Rows and columns of each clip without padding, `[B, 2]` int64.
        """
        return self(clips)
