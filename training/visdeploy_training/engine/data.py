"""The data of a recipe as a Lightning data module."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from visdeploy_training.clip import ClipBatch
from visdeploy_training.datasets import (
    ClipDataset,
    ClipPart,
    ClipRecord,
    ImageStore,
    MixedBatches,
    ValidationClip,
    collate,
    read_records,
    validation_clips,
)
from visdeploy_training.datasets.motion import MovingWindow
from visdeploy_training.datasets.transforms import (
    Chain,
    ClipTransform,
    ColourJitter,
    Crop,
    CropBetween,
    Flip,
    PhotometricDistort,
    Rescale,
    Resize,
    Rotate,
)
from visdeploy_training.engine.recipe import AugmentRecipe, DataRecipe, Recipe


def build_transform(augment: AugmentRecipe, height: int, width: int, *, motion: float | None = None) -> ClipTransform:
    """The augmentation of a recipe, to frames of `height` x `width`.

    Of at most that in batches of one with style `detr`, of what the recipe says with style `scaled`.
    """
    flip: list[ClipTransform] = [] if augment.flip == "none" else [Flip(augment.flip)]
    colour: list[ClipTransform] = [ColourJitter(augment.colour)] if augment.colour else []
    if augment.style == "window":
        window = MovingWindow(
            height,
            width,
            zoom=(augment.zoom[0], augment.zoom[1]),
            motion=augment.motion if motion is None else motion,
            rotation=augment.rotation,
            aspect=augment.aspect,
            on_object=augment.on_object,
        )
        return Chain([window, *flip, *colour])
    if augment.style == "scaled":
        return Chain([Rescale(augment.scales, between=augment.between), *flip, *colour])
    if augment.style == "detr":
        final = Resize([min(height, width)], max_size=max(height, width), minimum=(1, 1))
        first = Resize(augment.sizes, max_size=augment.max_size, minimum=(1, 1))
        middle: list[ClipTransform] = [Resize([400, 500, 600], max_size=1 << 20, minimum=(1, 1)), CropBetween(384, 600)]
        return Chain([*flip, first, PhotometricDistort(), *middle, final, *colour])
    resize = Resize(augment.sizes, max_size=augment.max_size, minimum=(height + 1, width + 1))
    turn: list[ClipTransform] = [Rotate(augment.rotation)] if augment.rotation else []
    return Chain([resize, *flip, *turn, Crop(height, width), *colour])


def records_of(recipe: Recipe, part: DataRecipe, classes: tuple[str, ...]) -> list[ClipRecord]:
    """The records of one data set of a recipe."""
    return read_records(
        recipe.path(part.annotations),
        recipe.path(part.images),
        layout=part.layout,
        classes=classes,
        class_map=part.class_map,
        licenses=part.licenses,
        only=part.only,
    )


class RecipeData(L.LightningDataModule):
    """Reads and checks all annotations when it is made; loads images later.

    Args:
        recipe: The recipe.
        classes: Class names, in label order.
        height: Rows of the network input.
        width: Columns of the network input.
        multiple: Batches are padded to multiples of this.

    Raises:
        DataError: A data set is malformed or incomplete.
    """

    def __init__(self, recipe: Recipe, classes: tuple[str, ...], *, height: int, width: int, multiple: int = 1) -> None:
        super().__init__()
        self.recipe, self.multiple = recipe, multiple
        self._batches_done = 0
        store = ImageStore(keep=recipe.keep_images)
        self.parts = [
            ClipPart(
                records_of(recipe, part, classes),
                build_transform(recipe.augment, height, width, motion=part.motion),
                clip_length=recipe.clip_length,
                window=recipe.window,
                sampling=recipe.sampling,
                paste=recipe.augment.paste,
                store=store,
            )
            for part in recipe.train
        ]
        if recipe.keep_images:  # before the workers start, so that they share the memory
            for part in self.parts:
                for record in part.records:
                    for file in record.files:
                        store(file, record.height, record.width)
        found = [record for part in recipe.val for record in records_of(recipe, part, classes)]
        self.clips = validation_clips(found, pseudo_frames=recipe.pseudo_frames)

    def train_dataloader(self) -> DataLoader[Any]:
        """Endless batches of this process, from where a resumed run stopped."""
        trainer, recipe = self.trainer, self.recipe
        ratios = [part.ratio for part in recipe.train]
        batches = MixedBatches(
            self.parts,
            ratios,
            recipe.batch_size,
            seed=recipe.seed,
            rank=trainer.global_rank if trainer else 0,
            world=trainer.world_size if trainer else 1,
            start=self._batches_done,
        )
        return DataLoader(
            ClipDataset(self.parts, ratios),
            batch_sampler=batches,
            collate_fn=partial(collate, multiple=self.multiple),
            num_workers=recipe.workers,
            persistent_workers=recipe.workers > 0,
            worker_init_fn=_one_thread,
            pin_memory=torch.cuda.is_available(),
        )

    def val_dataloader(self) -> DataLoader[ValidationClip]:
        """One clip at a time; every process predicts all of them."""
        return DataLoader(self.clips, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Training batches go to the device; validation clips stay, their frames are moved one by one."""
        return batch.to(device) if isinstance(batch, ClipBatch) else batch

    def state_dict(self) -> dict[str, Any]:
        """How many batches were used; kept in checkpoints."""
        return {"batches": self.trainer.global_step if self.trainer else self._batches_done}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on behind the batches that were used."""
        self._batches_done = int(state_dict["batches"])


def _one_thread(worker: int) -> None:
    """Workers must not fight with the training for the processor."""
    torch.set_num_threads(1)
