"""Backbones of few blocks: what an export takes grows with the number of blocks, and blocks of a kind export alike."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from visdeploy_training.backbones import MessengerPVT, SwinTransformer, efficientnet_lite, resnet

GROUPS = ((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (1, 5, 2, 6, 40), (1, 5, 2, 6, 112), (1, 5, 2, 6, 320))
"""EfficientNet's, see `efficientnet_lite.BLOCKS`: only the second group has a block with a shortcut."""
DEPTHS = (2, 1, 1, 1)
"""Blocks per stage: PVT's messengers move there and back, Swin's windows lie straight and shifted."""


@contextmanager
def shallow_backbones() -> Iterator[None]:
    """Networks created meanwhile have all four stages of their backbone, and at least one block of each kind.

    Weights of such a network fit no other one: what is saved must be loaded and run meanwhile, too.
    """
    with (
        patch.object(efficientnet_lite, "BLOCKS", GROUPS),
        patch.object(efficientnet_lite, "STAGES", {2: "res2", 3: "res3", 4: "res4", 5: "res5"}),
        patch.dict(resnet.DEPTHS, {50: (1, 1, 1, 2)}),
        patch.dict(MessengerPVT.__init__.__kwdefaults__, depths=DEPTHS),
        patch.dict(SwinTransformer.__init__.__kwdefaults__, dim=24, depths=DEPTHS, heads=(1, 2, 4, 8)),
    ):
        yield
