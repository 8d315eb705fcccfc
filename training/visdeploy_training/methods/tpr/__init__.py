"""TPR: Temporal Pyramid Routing for video instance segmentation on BlendMask (Li et al., TPAMI 2023)."""

from visdeploy_training.method import Method
from visdeploy_training.methods.tpr.config import VARIANTS, TPRConfig
from visdeploy_training.methods.tpr.inference import inference_settings
from visdeploy_training.methods.tpr.losses import tpr_losses
from visdeploy_training.methods.tpr.network import TPR
from visdeploy_training.methods.tpr.output import TPROutput
from visdeploy_training.methods.tpr.step import OnlineStep
from visdeploy_training.methods.tpr.untrained import show_objects
from visdeploy_training.methods.tpr.weights import OFFICIAL, load_backbone

METHOD = Method(
    name="tpr",
    variants=VARIANTS,
    build=TPR,
    load_backbone=load_backbone,
    official=OFFICIAL,
    losses=tpr_losses,
    online_step=OnlineStep,
    inference=inference_settings,
    show_objects=show_objects,
    stage_tensors=("temporal_align.", "track_head.", "basis_module.semantic."),
)

__all__ = ["METHOD", "TPR", "VARIANTS", "OnlineStep", "TPRConfig", "TPROutput", "tpr_losses"]
