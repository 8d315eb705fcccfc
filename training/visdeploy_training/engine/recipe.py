"""Recipes: one small flat YAML file for each training, checked in full before anything runs."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from visdeploy.errors import ConfigError
from visdeploy_training.datasets.sampling import Sampling
from visdeploy_training.overrides import parse_override

Positive = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataRecipe(_Strict):
    """One annotation file.

    Attributes:
        annotations: JSON file; like `images` relative to the recipe's `data_root`.
        images: Folder that its file names start from.
        layout: `ytvis` for videos, `coco` for images.
        ratio: Probability of a batch of this set, relative to the others (training).
        class_map: Category name or id → class, or the name of a shipped map; what it leaves out is dropped.
        licenses: Keep only images of these licence ids.
        motion: Overrides the recipe's `motion` for this set, for example more for still images.
        only: Use these videos (their folder names) or images (their ids) only.
    """

    annotations: str
    images: str
    layout: Literal["ytvis", "coco"]
    ratio: Annotated[float, Field(ge=0)] = 1.0
    class_map: str | dict[int | str, str] | None = None
    licenses: list[int] | None = None
    motion: Share | None = None
    only: list[str] | None = None


class AugmentRecipe(_Strict):
    """Augmentation of training clips.

    Attributes:
        style: `published`: VISOLO's resize, flip, rotate, crop (spec 11.3); `detr`: DefVIS's flip, resize, photometric
            distortion, crop (spec 5.1), which leaves clips of different sizes; `scaled`: TeViT's scaling and flip
            (spec 7.2), whose clips a batch pads to one size; `window`: a moving window cut straight to size.
        sizes: Shorter edges to draw from (published, detr).
        max_size: Largest longer edge (published, detr).
        scales: Pairs of a longer and a shorter edge that a clip is scaled into, keeping its shape (scaled).
        between: Draw each edge on its own between its smallest and largest in `scales`, not one of the pairs (scaled).
        flip: One decision a clip, or one a frame, or none.
        rotation: Largest angle, in degrees.
        zoom: Smallest and largest window, as a share of the picture (window).
        motion: Largest shift and change of size of the window within a clip (window).
        aspect: Largest change of the aspect ratio, as a logarithm (window).
        on_object: Probability that the window starts around an object (window).
        colour: Strength of colour jitter; the published recipes have none.
        paste: Probability that objects of another clip are pasted in; the published recipes do not.
    """

    style: Literal["published", "detr", "scaled", "window"] = "published"
    sizes: Annotated[list[Positive], Field(min_length=1)] = [360, 480]
    max_size: Positive = 1333
    scales: Annotated[list[tuple[Positive, Positive]], Field(min_length=1)] = [(640, 360)]
    between: bool = False
    flip: Literal["clip", "frame", "none"] = "clip"
    rotation: Annotated[float, Field(ge=0, le=180)] = 15.0
    zoom: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=2, max_length=2)] = [0.5, 1.2]
    motion: Share = 0.2
    aspect: Share = 0.2
    on_object: Share = 0.5
    colour: Share = 0.0
    paste: Share = 0.0


class OptimRecipe(_Strict):
    """AdamW and its schedule.

    Attributes:
        lr: Base learning rate.
        backbone_factor: Its factor for every parameter whose name contains "backbone".
        factors: Its factors for other parameters, by a part of their names; the longest part that a name contains
            counts, "backbone" among them.
        weight_decay: On everything, norms and biases included, but for what `decay_factors` says.
        decay_factors: Its factors, by a part of the parameters' names; the longest part that a name contains counts.
        clip_norm: Largest global norm of the gradient; 0 does not clip.
        schedule: `step` multiplies by `gamma` at every milestone; `cosine` falls to zero at the end.
        milestones: Iterations of the steps.
        gamma: Factor of a step.
        warmup: Iterations of linear warm-up.
        warmup_start: Factor of the learning rate at the first of them; None: one step of `warmup + 1`.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-4
    backbone_factor: Annotated[float, Field(ge=0)] = 0.1
    factors: dict[str, Annotated[float, Field(ge=0)]] = {}
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    decay_factors: dict[str, Annotated[float, Field(ge=0)]] = {}
    clip_norm: Annotated[float, Field(ge=0)] = 0.01
    schedule: Literal["step", "cosine"] = "step"
    milestones: list[Positive] = []
    gamma: Annotated[float, Field(gt=0)] = 0.1
    warmup: Annotated[int, Field(ge=0)] = 0
    warmup_start: Share | None = None


class Recipe(_Strict):
    """Everything about one training.

    Attributes:
        method: Name of the method.
        variant: Name of its variant.
        classes: Class names, or the name of a public list.
        model: Fields of the variant's configuration to change.
        pretrained: ImageNet weights for the backbone: true for those a package ships, a torchvision file, or false.
        init: Checkpoint to start from; class predictors of another number of classes stay fresh.
        data_root: Folder that the data sets' paths are relative to.
        train: Data sets to train on.
        val: Data sets to validate on; images become pseudo-video.
        pseudo_frames: Frames of a validation pseudo-video.
        augment: Augmentation.
        optim: Optimisation.
        clip_length: Frames of a training clip.
        sampling: Frames of a clip: `random` ones around a reference frame; `distinct` ones that show objects, in no
            order, and epochs over frames instead of videos; or in order: `consecutive` ones, or `cyclic` ones that may
            run over the end of the video to its start.
        window: Largest distance of a frame from the reference frame (random).
        batch_size: Clips of one batch on one device.
        iterations: Optimiser steps.
        ema: Decay of the running average of the weights that is validated and saved; 0 keeps none.
        output: Folder for checkpoints, logs and the result.
        resume: Go on from `last.ckpt` in the output folder where there is one.
        checkpoint_every: Iterations between checkpoints.
        validate_every: Iterations between validations; 0 validates only at the end.
        log_every: Iterations between log entries.
        seed: Start of all draws.
        workers: Processes that prepare samples.
        keep_images: Keep all decoded images in memory.
        precision: As Lightning spells it.
        accelerator: As Lightning spells it.
        devices: As Lightning spells it.
        strategy: As Lightning spells it.
        channels_last: Memory layout of the network; faster for convolutions on most devices.
    """

    method: str
    variant: str
    classes: str | list[str]
    model: dict[str, Any] = {}
    pretrained: bool | str = True
    init: str | None = None
    data_root: str = "."
    train: Annotated[list[DataRecipe], Field(min_length=1)]
    val: list[DataRecipe] = []
    pseudo_frames: Annotated[int, Field(ge=2)] = 8
    augment: AugmentRecipe = AugmentRecipe()
    optim: OptimRecipe = OptimRecipe()
    clip_length: Annotated[int, Field(ge=2)] = 3
    sampling: Sampling = "random"
    window: Positive = 20
    batch_size: Positive = 4
    iterations: Positive
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    output: str
    resume: bool = False
    checkpoint_every: Positive = 1000
    validate_every: Annotated[int, Field(ge=0)] = 0
    log_every: Positive = 20
    seed: Annotated[int, Field(ge=0)] = 0
    workers: Annotated[int, Field(ge=0)] = 2
    keep_images: bool = False
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    strategy: str = "auto"
    channels_last: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if sum(part.ratio for part in self.train) <= 0:
            raise ValueError("the ratios of the training sets are all 0")
        if self.augment.zoom[0] > self.augment.zoom[1]:
            raise ValueError("augment.zoom: the smallest window comes first")
        if self.augment.style == "detr" and (self.batch_size > 1 or self.augment.paste):
            raise ValueError("augment.style detr leaves clips of different sizes: batch_size must be 1, without paste")
        if self.augment.style == "scaled" and self.augment.paste:
            raise ValueError("augment.style scaled leaves clips of different sizes: nothing can be pasted")
        if self.optim.milestones != sorted(set(self.optim.milestones)):
            raise ValueError("optim.milestones must rise")
        return self

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output)

    def path(self, name: str) -> Path:
        """A data path, seen from `data_root`."""
        return Path(self.data_root).expanduser() / name


def shipped_recipes() -> list[str]:
    """Names of the recipes that come with the package."""
    folder = resources.files("visdeploy_training") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read and check a recipe.

    Args:
        recipe: YAML file, or the name of a shipped recipe.
        overrides: `key=value` with dots between levels and numbers for list positions, for example
            `optim.lr=3e-4` or `train.0.ratio=0.5`; values are YAML.

    Raises:
        ConfigError: The file cannot be read, or a field is unknown or wrong; the message names it.
    """
    path = _find(recipe)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the recipe {path}", seen=str(error).replace("\n", " ")[:160]) from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path} is no recipe", seen=type(data).__name__, expected="fields and values")
    for text in overrides:
        _override(data, text)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        parts = []
        for item in error.errors():
            field = ".".join(str(p) for p in item["loc"]) or "recipe"
            parts.append(f"field {field!r}: {item['msg']}, seen {str(item.get('input'))[:60]!r}")
        raise ConfigError(f"{path}: {'; '.join(parts)}", hint="The fields are described in Recipe.") from error


def _find(recipe: str | Path) -> Path:
    path = Path(recipe)
    if path.is_file():
        return path
    if str(recipe) in shipped_recipes():
        return Path(str(resources.files("visdeploy_training") / "recipes" / f"{recipe}.yaml"))
    raise ConfigError(
        f"no such recipe: {recipe}", expected=f"a YAML file, or one of {shipped_recipes()}", hint="Check the path."
    )


def _override(data: dict[str, Any], text: str) -> None:
    key, value = parse_override(text)
    place: Any = data
    *parents, last = key.split(".")
    try:
        for name in parents:
            place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
        if isinstance(place, list):
            place[int(last)] = value
        else:
            place[last] = value
    except (ValueError, IndexError, TypeError, AttributeError) as error:
        raise ConfigError(f"the override {key!r} leads nowhere", seen=text, hint="Check its levels.") from error
