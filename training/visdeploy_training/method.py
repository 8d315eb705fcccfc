"""What a method exposes to the rest of the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visdeploy.manifest import GraphSpec
from visdeploy_training.model import VISModel

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class OfficialLayout:
    """How the upstream project of a method names its weights.

    Attributes:
        recognise: Whether a state dict (without a leading `module.`) is of this layout.
        rename: Upstream names to ours; drops what is a duplicate.
        variant: Which variant such a state dict belongs to.
        num_classes: Number of classes, read from a shape.
        class_tensors: Names (ours) of the tensors whose shape depends on the number of classes.
        spare_rows: Rows of these tensors beyond the classes, for example for no object.
        overrides: Fields of the variant's configuration that the shapes tell.
    """

    recognise: Callable[[StateDict], bool]
    rename: Callable[[StateDict], dict[str, Tensor]]
    variant: Callable[[StateDict], str]
    num_classes: Callable[[StateDict], int]
    class_tensors: tuple[str, ...]
    spare_rows: int = 0
    overrides: Callable[[StateDict], dict[str, Any]] = lambda state: {}


@dataclass(frozen=True)
class Method:
    """What a method exposes to the rest of the project; each method's package holds one as `METHOD`.

    Attributes:
        name: Its name in recipes, checkpoints and bundles.
        variants: Named configurations, frozen dataclasses with a field `num_classes`.
        build: Configuration to an untrained network.
        load_backbone: Puts ImageNet weights in; the path is None for weights that a package ships.
        official: Layout of official checkpoints; None where there are none.
        losses: Training output, targets of each clip and configuration to weighted losses by name.
        online_step: Network to the pure step function that is exported; its inputs, outputs and state are those of
            `inference`, in that order.
        inference: Configuration to the exported graph's inputs, outputs and state, and how it is run.
        show_objects: Changes fresh weights in place so that a network in evaluation mode finds objects, about as many
            as asked for where the method leaves their number open: for benchmarks and tests without a checkpoint.
    """

    name: str
    variants: Mapping[str, Any]
    build: Callable[[Any], VISModel]
    load_backbone: Callable[[VISModel, Path | None], None]
    official: OfficialLayout | None
    losses: Callable[[Any, Sequence[Any], Any], dict[str, Tensor]]
    online_step: Callable[[VISModel], nn.Module]
    inference: Callable[[Any], GraphSpec]
    show_objects: Callable[[VISModel, int], None] = lambda model, count: None
