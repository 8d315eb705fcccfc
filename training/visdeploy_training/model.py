"""What every network of the project is: a module that knows which method, variant and classes it was made for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True)
class ModelInfo:
    """How to make the same (untrained) network again; this is what checkpoints of ours carry.

    Attributes:
        method: Name of the method.
        variant: Name of the variant.
        classes: Class names, in label order.
        overrides: Fields of the variant's configuration that were changed.
    """

    method: str
    variant: str
    classes: tuple[str, ...]
    overrides: Mapping[str, Any] = field(default_factory=dict)


class VISModel(nn.Module):
    """Base of the networks.

    Attributes:
        info: Filled by `create_model`.
        config: The method's frozen configuration.
    """

    info: ModelInfo
    config: Any

    def forward_padded(self, clips: Tensor, sizes: Tensor) -> Any:
        """The training forward of clips that were padded to one size.

        Networks that must know where a clip ends override this; to the others padding is image.

        Args:
            clips: Normalised RGB, float, `[B, T, 3, H, W]`, padded with zeros at the right and bottom.
            sizes: Rows and columns of each clip without padding, `[B, 2]` int64.
        """
        return self(clips)
