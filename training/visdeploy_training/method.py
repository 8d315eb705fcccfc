"""Interface of a method to the rest of the project."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from visdeploy.manifest import GraphSpec
from visdeploy_training.model import VISModel

StateDict = Mapping[str, Tensor]
Notes = Mapping[str, Any]
"""What the trainer has stored beside the weights, see `TensorFile.notes`."""


@dataclass(frozen=True)
class OfficialLayout:
    """Names and shapes of the weights in the official checkpoints of a method.

    Attributes:
        recognise: Returns whether a state dict (without a leading `module.`) has this layout.
        rename: Converts official names to those of visdeploy, and drops duplicates.
        variant: Returns the variant of such a state dict.
        num_classes: Returns the number of classes, read from a shape.
        class_tensors: Names, in visdeploy, of the tensors whose shape depends on the number of classes.
        spare_rows: Number of rows of these tensors in addition to the classes, for example for "no object".
        overrides: Returns the fields of the variant's configuration that follow from the shapes.
        stated: Returns the fields of the configuration that no tensor shows, but the notes of the trainer state.
        mistaken: Returns, if a recognised state dict belongs to another network with the same names, which one that is,
            and what the user can do. The last argument is whether the user has named the method.
    """

    recognise: Callable[[StateDict], bool]
    rename: Callable[[StateDict], dict[str, Tensor]]
    variant: Callable[[StateDict], str]
    num_classes: Callable[[StateDict], int]
    class_tensors: tuple[str, ...]
    spare_rows: int = 0
    overrides: Callable[[StateDict], dict[str, Any]] = lambda state: {}
    stated: Callable[[Notes], dict[str, Any]] = lambda notes: {}
    mistaken: Callable[[StateDict, Notes, bool], tuple[str, str] | None] = lambda state, notes, named: None


@dataclass(frozen=True)
class Method:
    """Interface of a method to the rest of the project; the package of each method defines one as `METHOD`.

    Attributes:
        name: Name of the method in recipes, checkpoints and bundles.
        variants: Configurations by name, frozen dataclasses with a field `num_classes`.
        build: Creates an untrained network from a configuration.
        load_backbone: Loads ImageNet weights into the backbone; the path is None for weights included in a package.
        official: Layout of official checkpoints; None if there are none.
        losses: Computes weighted losses by name from the training output, the targets of each clip and the
            configuration.
        online_step: Creates the pure step function to export from a network; its inputs, outputs and state are those of
            `inference`, in the same order.
        inference: Returns the description of the exported graph for a configuration.
        show_objects: Modifies initial weights in place so that a network in evaluation mode finds objects, for
            benchmarks and tests without a checkpoint. Their number is approximately the given one, if the method has a
            variable number of objects.
        stage_tensors: Prefixes of the tensors that only some stages of a training have. Fine-tuning starts from a
            checkpoint without them, with initial weights, and ignores those that only the checkpoint has.
        variable_tensors: Names of the tensors whose shape depends on the variant. Fine-tuning from a checkpoint of
            another variant keeps their initial weights if the shapes differ.
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
    stage_tensors: tuple[str, ...] = ()
    variable_tensors: tuple[str, ...] = ()
