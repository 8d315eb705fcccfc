"""VIShv: hierarchical embeddings for video instance segmentation (ACM MM 2021), and STEm-Seg (ECCV 2020)."""

from visdeploy_training.method import Method
from visdeploy_training.methods.vishv.config import VIShvConfig
from visdeploy_training.methods.vishv.inference import inference_settings
from visdeploy_training.methods.vishv.losses import vishv_losses
from visdeploy_training.methods.vishv.network import VIShv, VIShvOutput
from visdeploy_training.methods.vishv.step import ClipStep
from visdeploy_training.methods.vishv.untrained import show_objects
from visdeploy_training.methods.vishv.variants import VARIANTS
from visdeploy_training.methods.vishv.weights import OFFICIAL, load_backbone

METHOD = Method(
    name="vishv",
    variants=VARIANTS,
    build=VIShv,
    load_backbone=load_backbone,
    official=OFFICIAL,
    losses=vishv_losses,
    online_step=ClipStep,
    inference=inference_settings,
    show_objects=show_objects,
    stage_tensors=("offset_head.", "offset_decoder."),
    variable_tensors=(
        "embedding_head.conv_embedding.weight",
        "embedding_head.conv_variance.weight",
        "embedding_head.conv_variance.bias",
    ),
)

__all__ = ["METHOD", "VARIANTS", "ClipStep", "VIShv", "VIShvConfig", "VIShvOutput", "vishv_losses"]
