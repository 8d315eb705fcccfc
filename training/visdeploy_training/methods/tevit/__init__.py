"""TeViT: temporally efficient vision transformer for video instance segmentation (Yang et al., CVPR 2022)."""

from visdeploy_training.method import Method
from visdeploy_training.methods.tevit.config import VARIANTS, TeViTConfig
from visdeploy_training.methods.tevit.inference import inference_settings
from visdeploy_training.methods.tevit.losses import tevit_losses
from visdeploy_training.methods.tevit.network import TeViT, TeViTOutput
from visdeploy_training.methods.tevit.step import ClipStep
from visdeploy_training.methods.tevit.untrained import show_objects
from visdeploy_training.methods.tevit.weights import OFFICIAL, load_backbone

METHOD = Method(
    name="tevit",
    variants=VARIANTS,
    build=TeViT,
    load_backbone=load_backbone,
    official=OFFICIAL,
    losses=tevit_losses,
    online_step=ClipStep,
    inference=inference_settings,
    show_objects=show_objects,
)

__all__ = ["METHOD", "VARIANTS", "ClipStep", "TeViT", "TeViTConfig", "TeViTOutput", "tevit_losses"]
