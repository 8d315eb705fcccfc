"""Optimisers, parameter groups and learning rate of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.optim import SGD, AdamW, Optimizer

from visdeploy.errors import ConfigError
from visdeploy_training.engine.fields import Count, Factor, Share, Strict, refuse_replaced
from visdeploy_training.engine.schedule import Constant, Schedule

Beta = Annotated[float, Field(ge=0, lt=1)]
TYPES: dict[str, tuple[type[nn.Module], ...]] = {
    "norm": (_NormBase, nn.GroupNorm, nn.LayerNorm, nn.RMSNorm),
    "conv": (_ConvNd,),
    "linear": (nn.Linear,),
    "embedding": (nn.Embedding, nn.EmbeddingBag),
}
"""Module types of parameter groups: torch's classes, with the classes derived from them."""
_GROUPS = "groups: [{name: PART_OF_A_NAME, lr_factor: F, decay_factor: F}, ...]; the last group that matches counts"
_SCHEDULE = "schedule: {kind: steps, milestones: [...], gamma: 0.1}"


class GroupRecipe(Strict):
    """Factors for some of the parameters, by name, by the type of their module, or by both.

    Attributes:
        name: Substring of the names of the parameters, for example `backbone`.
        type: Type of the module that directly contains the parameters: `norm`, `conv`, `linear` or `embedding`.
        lr_factor: Factor of the learning rate; None keeps that of earlier groups.
        decay_factor: Factor of the weight decay; None keeps that of earlier groups.
    """

    name: Annotated[str, Field(min_length=1)] | None = None
    type: Literal["norm", "conv", "linear", "embedding"] | None = None
    lr_factor: Factor | None = None
    decay_factor: Factor | None = None

    @model_validator(mode="after")
    def _useful(self) -> GroupRecipe:
        if self.name is None and self.type is None:
            raise ValueError("a group needs a name or a type")
        if self.lr_factor is None and self.decay_factor is None:
            raise ValueError("a group needs lr_factor or decay_factor")
        return self

    def matches(self, name: str, module: nn.Module) -> bool:
        """Return whether a parameter of this name, contained in this module, belongs to the group."""
        named = self.name is None or self.name in name
        return named and (self.type is None or isinstance(module, TYPES[self.type]))


class OptimRecipe(Strict):
    """Optimiser, parameter groups and schedule.

    The learning rate of an iteration is the product of `lr`, the factor of the parameter's group, the factor of the
    schedule and that of the warm-up.

    Attributes:
        kind: `adamw` or `sgd`.
        lr: Base learning rate.
        betas: Decay of the running averages (adamw).
        momentum: Momentum (sgd).
        nesterov: Use Nesterov momentum (sgd).
        weight_decay: Weight decay of all parameters, including norms and biases, before the factors of `groups`.
        groups: Factors for some parameters. If several groups match a parameter, the last one with a factor applies,
            independently for learning rate and weight decay.
        clip_norm: Maximum global norm of the gradient; 0 does not clip.
        schedule: `constant`, `steps`, `polynomial`, `exponential` or `cosine`, with its parameters.
        warmup: Iterations of linear warm-up.
        warmup_start: Factor of the learning rate in the first iteration; by default `1 / (warmup + 1)`.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-4
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    momentum: Beta = 0.0
    nesterov: bool = False
    weight_decay: Factor = 1e-4
    groups: list[GroupRecipe] = Field(default_factory=list)
    clip_norm: Factor = 0.0
    schedule: Schedule = Constant()
    warmup: Count = 0
    warmup_start: Share | None = None

    @model_validator(mode="before")
    @classmethod
    def _replaced(cls, data: Any) -> Any:
        groups = dict.fromkeys(("backbone_factor", "factors", "decay_factors"), _GROUPS)
        return refuse_replaced(data, {**groups, "milestones": _SCHEDULE, "gamma": _SCHEDULE})

    @model_validator(mode="after")
    def _of_the_kind(self) -> OptimRecipe:
        if self.kind == "adamw" and (self.momentum or self.nesterov):
            raise ValueError("momentum and nesterov are parameters of kind sgd")
        if self.kind == "sgd" and self.betas != (0.9, 0.999):
            raise ValueError("betas are parameters of kind adamw")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs a momentum")
        return self


def parameter_groups(model: nn.Module, optim: OptimRecipe) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay.

    Args:
        model: The network.
        optim: Optimiser settings; see `OptimRecipe.groups` for parameters that several groups match.

    Returns:
        Groups for a torch optimiser.

    Raises:
        ConfigError: A group of the recipe matches no parameter of the network, not even a frozen one.
    """
    holders: dict[int, nn.Module] = {}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            holders.setdefault(id(parameter), module)
    groups: dict[tuple[float, float], list[Tensor]] = {}
    unused = set(range(len(optim.groups)))
    for name, parameter in model.named_parameters():
        lr, decay = 1.0, 1.0
        for index, group in enumerate(optim.groups):
            if group.matches(name, holders[id(parameter)]):
                unused.discard(index)
                lr = lr if group.lr_factor is None else group.lr_factor
                decay = decay if group.decay_factor is None else group.decay_factor
        if parameter.requires_grad:
            groups.setdefault((optim.lr * lr, optim.weight_decay * decay), []).append(parameter)
    for index in sorted(unused):
        raise ConfigError(
            f"optim.groups.{index} matches no parameter of the network",
            seen=str(optim.groups[index].model_dump(exclude_none=True)),
            expected=f"a part of names such as {[name for name, _ in model.named_parameters()][:3]}, or another type",
        )
    return [{"params": group, "lr": lr, "weight_decay": decay} for (lr, decay), group in groups.items()]


def create_optimiser(model: nn.Module, optim: OptimRecipe) -> Optimizer:
    """Create the optimiser of a recipe.

    Raises:
        ConfigError: A group of the recipe matches no parameter.
    """
    groups = parameter_groups(model, optim)
    if optim.kind == "sgd":
        return SGD(groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov)
    return AdamW(groups, lr=optim.lr, betas=optim.betas)


def learning_rate_factor(optim: OptimRecipe, iterations: int) -> Callable[[int], float]:
    """Return the function from an iteration to the factor of the learning rate.

    Args:
        optim: Schedule and warm-up.
        iterations: Number of optimiser steps of the whole training.
    """
    start = 1 / (optim.warmup + 1) if optim.warmup_start is None else optim.warmup_start

    def factor(iteration: int) -> float:
        left = max(0.0, 1 - iteration / optim.warmup) if optim.warmup else 0.0
        return (1 - left * (1 - start)) * optim.schedule.factor(iteration, iterations)

    return factor
