"""Recipes: one small flat YAML file for each training, checked in full before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from visdeploy_training.datasets.sampling import Sampling
from visdeploy_training.datasets.transforms import Chain, Step
from visdeploy_training.engine.fields import Count, Positive, Share, Strict, refuse_replaced
from visdeploy_training.engine.optim import OptimRecipe

_STYLES = {
    "published": "{resize: {shorter: SIZES, longest: 1333, larger_than: [input, input]}}, {flip: {mode: clip}}, "
    "{rotate: {degrees: 15}}, crop",
    "detr": "flip, {resize: {shorter: SIZES, longest: MAX_SIZE}}, photometric_distort, "
    "{resize: {shorter: [400, 500, 600]}}, {crop_between: {smallest: 384, largest: 600}}, "
    "{resize: {shorter: [input], longest: input}}",
    "scaled": "{rescale: {limits: SCALES, between: BETWEEN}}, flip",
    "window": "{moving_window: {zoom: ZOOM, motion: M, rotation: R, aspect: A, on_object: O}}, flip",
}
"""What replaces the styles of an earlier format."""


class DataRecipe(Strict):
    """One annotation file.

    Attributes:
        annotations: JSON file; like `images` relative to the recipe's `data_root`.
        images: Folder that its file names start from.
        layout: `ytvis` for videos, `coco` for images.
        ratio: Probability of a batch of this set, relative to the others (training).
        class_map: Category name or id → class, or the name of a shipped map; what it leaves out is dropped.
        licenses: Keep only images of these licence ids.
        augment: Transforms of this set in place of the recipe's.
        only: Use these videos (their folder names) or images (their ids) only.
    """

    annotations: str
    images: str
    layout: Literal["ytvis", "coco"]
    ratio: Annotated[float, Field(ge=0)] = 1.0
    class_map: str | dict[int | str, str] | None = None
    licenses: list[int] | None = None
    augment: list[Step] | None = None
    only: list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _replaced(cls, data: Any) -> Any:
        return refuse_replaced(data, {"motion": "the whole list of transforms as augment of this data set"})


class Recipe(Strict):
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
        augment: Transforms of training clips, in order: `name: {parameter: value}`, or the name alone. Their names and
            parameters are those of `visdeploy_training.datasets.transforms`; `input` in place of a size is the
            network's own input size. Clips of a batch that differ in size are padded.
        paste: Probability that objects of another clip are pasted in; needs transforms that end with one size.
        optim: Optimisation.
        clip_length: Frames of a training clip; 1 for methods that train on single images.
        sampling: Frames of a clip: `random` ones around a reference frame; `distinct` ones that show objects, in no
            order, and epochs over frames instead of videos; `near` ones, a frame that shows objects and then others at
            most `window` frames from it, with epochs over frames, too; or in order: `consecutive` ones, or `cyclic`
            ones that may run over the end of the video to its start.
        window: Largest distance of a frame from the reference frame (random, near).
        batch_size: Clips of one batch on one device.
        accumulate: Batches of each device whose mean gradient makes one optimiser step.
        iterations: Optimiser steps; all other fields that count iterations count these, too.
        ema: Decay of the running average of the weights that is validated and saved; 0 keeps none.
        output: Folder for checkpoints, logs and the result.
        resume: Continue from `last.ckpt` in the output folder where there is one.
        checkpoint_every: Iterations between checkpoints; each replaces `last.ckpt`.
        keep_every: Iterations between checkpoints that are kept as `iteration_N.ckpt`; 0 keeps none.
        validate_every: Iterations between validations, of which the best one's weights are kept; 0 validates only at
            the end.
        log_every: Iterations between log entries.
        seed: Start of all draws.
        workers: Processes that prepare samples.
        keep_images: Keep all decoded images in memory.
        precision: As Lightning spells it.
        accelerator: As Lightning spells it.
        devices: As Lightning spells it; devices of one machine.
        num_nodes: Machines.
        strategy: As Lightning spells it.
        channels_last: Memory layout of the network; faster for convolutions on most devices.
    """

    method: str
    variant: str
    classes: str | list[str]
    model: dict[str, Any] = Field(default_factory=dict)
    pretrained: bool | str = True
    init: str | None = None
    data_root: str = "."
    train: Annotated[list[DataRecipe], Field(min_length=1)]
    val: list[DataRecipe] = Field(default_factory=list)
    pseudo_frames: Annotated[int, Field(ge=2)] = 8
    augment: list[Step] = Field(default_factory=list)
    paste: Share = 0.0
    optim: OptimRecipe = OptimRecipe()
    clip_length: Positive = 3
    sampling: Sampling = "random"
    window: Positive = 20
    batch_size: Positive = 4
    accumulate: Positive = 1
    iterations: Positive
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    output: str
    resume: bool = False
    checkpoint_every: Positive = 1000
    keep_every: Count = 0
    validate_every: Count = 0
    log_every: Positive = 20
    seed: Count = 0
    workers: Count = 2
    keep_images: bool = False
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int | str | list[int] = "auto"
    num_nodes: Positive = 1
    strategy: str = "auto"
    channels_last: bool = False

    @field_validator("augment", mode="before")
    @classmethod
    def _no_style(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        style = str(value.get("style", "published"))
        now = _STYLES.get(style, "{NAME: {PARAMETER: VALUE}}, ...")
        raise ValueError(
            f"expected a list of transforms; style {style} is now written [{now}], colour as "
            "{colour_jitter: {strength: S}} behind them, and paste beside augment"
        )

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if sum(part.ratio for part in self.train) <= 0:
            raise ValueError("the ratios of the training sets are all 0")
        sizes = {self.transforms(part).output_size() for part in self.train}
        if self.paste and (None in sizes or len(sizes) > 1):
            raise ValueError("paste needs clips of one size: end augment with crop or moving_window")
        return self

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(self.output)

    def path(self, name: str) -> Path:
        """Return a data path, seen from `data_root`."""
        return Path(self.data_root).expanduser() / name

    def transforms(self, part: DataRecipe) -> Chain:
        """Return the augmentation of one training set."""
        return Chain(tuple(self.augment if part.augment is None else part.augment))
