"""Recipes: one flat YAML file for each training, validated completely before the training starts."""

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
"""Map from a style of an earlier recipe format to the transforms that replace it."""


class DataRecipe(Strict):
    """Data set of a recipe, described by one annotation file.

    Attributes:
        annotations: JSON file, relative to the `data_root` of the recipe, as is `images`.
        images: Folder that the file names in `annotations` are relative to.
        layout: `ytvis` for videos, `coco` for images.
        ratio: Probability of a batch of this set, relative to the others (training).
        class_map: Map from category name or id to class, or the name of a map of this package. Categories without an
            entry are dropped.
        licenses: Keep only images with these licence ids.
        augment: Transforms of this set, instead of those of the recipe.
        only: Use only these videos (folder names) or images (ids).
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
    """Complete description of one training.

    Attributes:
        method: Name of the method.
        variant: Name of its variant.
        classes: Class names, or the name of a public list.
        model: Fields of the variant's configuration to change.
        pretrained: ImageNet weights for the backbone: true for weights included in a package, a torchvision file, or
            false.
        init: Checkpoint to start from; class predictors for another number of classes keep their random initialisation.
        data_root: Folder that the paths of the data sets are relative to.
        train: Data sets for training.
        val: Data sets for validation; images are converted to pseudo-videos.
        pseudo_frames: Number of frames of a pseudo-video for validation.
        augment: Transforms of training clips, in order: `name: {parameter: value}`, or the name alone. Their names and
            parameters are those of `visdeploy_training.datasets.transforms`; the size `input` is the input size of the
            network. Clips of a batch that differ in size are padded.
        paste: Probability that objects of another clip are pasted; the transforms must return frames of one size.
        optim: Optimiser, parameter groups and schedule.
        clip_length: Number of frames of a training clip; 1 for methods that train on single images.
        sampling: Sampling of the frames of a clip. `random`: around a reference frame. `distinct`: different frames
            with objects, in random order; an epoch is one pass over frames instead of videos. `near`: a frame with
            objects, then others at most `window` frames from it; an epoch is one pass over frames. `consecutive`: in
            order. `cyclic`: in order, continued at the start of the video after its end.
        window: Maximum distance of a frame from the reference frame (random, near).
        batch_size: Number of clips of one batch on one device.
        accumulate: Number of batches of each device whose mean gradient is used for one optimiser step.
        iterations: Number of optimiser steps, the unit of all other fields that count iterations.
        ema: Decay of the moving average of the weights that is validated and saved; 0 for no average.
        output: Folder for checkpoints, logs and the result.
        resume: Continue from `last.ckpt` in the output folder, if it exists.
        checkpoint_every: Iterations between checkpoints; each replaces `last.ckpt`.
        keep_every: Iterations between checkpoints that are kept as `iteration_N.ckpt`; 0 keeps none.
        validate_every: Iterations between validations; the weights of the best one are kept. 0 validates only at the
            end.
        log_every: Iterations between log entries.
        seed: Seed of all random number generators.
        workers: Number of processes that load samples.
        keep_images: Keep all decoded images in memory.
        precision: Option of Lightning's trainer.
        accelerator: Option of Lightning's trainer.
        devices: Option of Lightning's trainer: the devices of one machine.
        num_nodes: Number of machines.
        strategy: Option of Lightning's trainer.
        channels_last: Use the memory layout `channels_last`, which is faster for convolutions on most devices.
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
            "{colour_jitter: {strength: S}} after them, and paste as a field of the recipe"
        )

    @model_validator(mode="after")
    def _possible(self) -> Recipe:
        if sum(part.ratio for part in self.train) <= 0:
            raise ValueError("the ratios of the training sets are all 0")
        sizes = {self.transforms(part).output_size() for part in self.train}
        if self.paste and (None in sizes or len(sizes) > 1):
            raise ValueError("paste needs frames of one size: end augment with crop or moving_window")
        return self

    @property
    def folder(self) -> Path:
        """Output folder."""
        return Path(self.output)

    def path(self, name: str) -> Path:
        """Return the path of a data file, given relative to `data_root`."""
        return Path(self.data_root).expanduser() / name

    def transforms(self, part: DataRecipe) -> Chain:
        """Return the augmentation of one training set."""
        return Chain(tuple(self.augment if part.augment is None else part.augment))
