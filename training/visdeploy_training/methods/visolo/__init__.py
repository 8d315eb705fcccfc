"""VISOLO: grid-based space-time aggregation for online video instance segmentation (Han et al., CVPR 2022)."""

from visdeploy_training.method import Method
from visdeploy_training.methods.visolo.config import VARIANTS, VISOLOConfig
from visdeploy_training.methods.visolo.inference import inference_settings
from visdeploy_training.methods.visolo.losses import visolo_losses
from visdeploy_training.methods.visolo.network import VISOLO, VISOLOOutput
from visdeploy_training.methods.visolo.online import OnlineStep
from visdeploy_training.methods.visolo.targets import ClipTargets
from visdeploy_training.methods.visolo.untrained import show_objects
from visdeploy_training.methods.visolo.weights import OFFICIAL, load_backbone

METHOD = Method(
    name="visolo",
    variants=VARIANTS,
    build=VISOLO,
    load_backbone=load_backbone,
    official=OFFICIAL,
    losses=visolo_losses,
    online_step=OnlineStep,
    inference=inference_settings,
    show_objects=show_objects,
)

__all__ = ["METHOD", "VARIANTS", "VISOLO", "ClipTargets", "OnlineStep", "VISOLOConfig", "VISOLOOutput", "visolo_losses"]
