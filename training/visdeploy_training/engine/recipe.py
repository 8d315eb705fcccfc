"""Recipes: one flat YAML file for each training, validated completely before the training starts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from visdeploy_training.datasets.locations import existing, expand
from visdeploy_training.datasets.reading import Layout
from visdeploy_training.datasets.sampling import Sampling
from visdeploy_training.datasets.selection import EmptyFrames
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
        annotations: JSON file, relative to the `data_root` of the recipe, as is `images`. `$NAME` in either is the
            value of an environment variable.
        images: Folder that the file names in `annotations` are relative to.
        layout: `ytvis` for videos, `coco` for images, `stemseg` for files of STEm-Seg with either.
        ratio: Probability of a batch of this set, or share of the samples, relative to the others (training).
        class_map: Map from category name or id to class, or the name of a map of this package. Categories without an
            entry are dropped; the key `*` stands for all of them. Pixels of the class `ignore` have no known label.
        licenses: Keep only images with these licence ids.
        augment: Transforms of this set, instead of those of the recipe.
        only: Use only these videos (folder names) or images (ids).
        sizes: JSON file with the width and height of each image, to which larger images are scaled (stemseg).
        min_area: Minimum area of an object in its largest frame, in pixels.
        max_objects: Maximum number of objects of a video or image; the pixels of smaller ones have no known label.
        empty_frames: `keep` all frames, `drop` those without objects, or `cut` videos where at least six successive
            frames have none. `drop` and `cut` drop images without objects, too.
        ignore_background: Pixels outside all objects have no known label, because not all objects are annotated.
        duplicate: Duplicate the object in training clips that contain exactly one.
        span: Minimum and maximum distance from the first to the last frame of a clip (sampling `span`); by default,
            both are `clip_length`.
        strict: Refuse objects without pixels and polygons of fewer than three points, which are otherwise left out.
    """

    annotations: str
    images: str
    layout: Layout
    ratio: Annotated[float, Field(ge=0)] = 1.0
    class_map: str | dict[int | str, str] | None = None
    licenses: list[int] | None = None
    augment: list[Step] | None = None
    only: list[str] | None = None
    sizes: str | None = None
    min_area: Count = 0
    max_objects: Positive | None = None
    empty_frames: EmptyFrames = "keep"
    ignore_background: bool = False
    duplicate: bool = False
    span: tuple[Positive, Positive] | None = None
    strict: bool = False

    @field_validator("span")
    @classmethod
    def _ordered(cls, value: tuple[int, int] | None) -> tuple[int, int] | None:
        if value is not None and value[0] > value[1]:
            raise ValueError("the first number must not exceed the second")
        return value

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
            false. `$NAME` is the value of an environment variable, as in `init`.
        init: Checkpoint to start from; class predictors for another number of classes keep their random initialisation.
        data_root: Folder that the paths of the data sets are relative to.
        train: Data sets for training.
        mixture: `drawn`: the data set of each batch is drawn by `ratio`. `counted`: the training uses each data set for
            exactly its share of all samples, its items equally often, in random order; a batch can have clips of
            several sets, see `mixture_indices`.
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
        step_every_micro_batch: Change the weights after each of the `accumulate` batches, with the sum of the gradients
            of those batches so far, as the published training of VIShv does. Otherwise, they change once, with the
            whole sum. Gradients are divided by `accumulate` in both cases.
        iterations: Number of optimiser steps, the unit of all other fields that count iterations. With
            `step_every_micro_batch`, an iteration has `accumulate` optimiser steps.
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
    mixture: Literal["drawn", "counted"] = "drawn"
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
    step_every_micro_batch: bool = False
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
        if self.steps > 1 and (self.precision.startswith("16") or self.optim.clip_norm):
            raise ValueError("step_every_micro_batch: gradients are kept, so they cannot be clipped or scaled (fp16)")
        sizes = {self.transforms(part).output_size() for part in self.train}
        if self.paste and (None in sizes or len(sizes) > 1):
            raise ValueError("paste needs frames of one size: end augment with crop or moving_window")
        return self

    @property
    def folder(self) -> Path:
        """Output folder."""
        return Path(self.output)

    @property
    def steps(self) -> int:
        """Number of optimiser steps in an iteration."""
        return self.accumulate if self.step_every_micro_batch else 1

    def path(self, name: str) -> Path:
        """Return the path of a data file, given relative to `data_root`; `val` may be called `valid`, and vice versa.

        Raises:
            ConfigError: The name contains an environment variable that is not set.
        """
        path = Path(expand(name))
        # the folder of a recipe that names absolute paths alone need not exist
        return existing(path if path.is_absolute() else Path(expand(self.data_root)).expanduser() / path)

    def transforms(self, part: DataRecipe) -> Chain:
        """Return the augmentation of one training set."""
        return Chain(tuple(self.augment if part.augment is None else part.augment))
