"""DefVIS (Deformable VisTR, Yarram et al., ICASSP 2022), an offline method that processes a whole clip at once."""

from visdeploy_training.method import Method
from visdeploy_training.methods.defvis.config import VARIANTS, DefVISConfig
from visdeploy_training.methods.defvis.inference import inference_settings
from visdeploy_training.methods.defvis.losses import defvis_losses
from visdeploy_training.methods.defvis.network import DefVIS, DefVISOutput
from visdeploy_training.methods.defvis.step import ClipStep
from visdeploy_training.methods.defvis.untrained import show_objects
from visdeploy_training.methods.defvis.weights import OFFICIAL, load_backbone

METHOD = Method(
    name="defvis",
    variants=VARIANTS,
    build=DefVIS,
    load_backbone=load_backbone,
    official=OFFICIAL,
    losses=defvis_losses,
    online_step=ClipStep,
    inference=inference_settings,
    show_objects=show_objects,
)

__all__ = ["METHOD", "VARIANTS", "ClipStep", "DefVIS", "DefVISConfig", "DefVISOutput", "defvis_losses"]
