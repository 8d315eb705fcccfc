"""The data of a recipe as a Lightning data module."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import lightning as L
import torch
from torch.utils.data import DataLoader

from visdeploy.errors import ConfigError
from visdeploy_training.clip import ClipBatch
from visdeploy_training.datasets import (
    ClipDataset,
    ClipPart,
    ClipRecord,
    CountedBatches,
    ImageStore,
    MixedBatches,
    ValidationClip,
    collate,
    read_records,
    select,
    validation_clips,
)
from visdeploy_training.datasets.mixture import shares
from visdeploy_training.engine.recipe import DataRecipe, Recipe


def records_of(recipe: Recipe, part: DataRecipe, classes: tuple[str, ...]) -> list[ClipRecord]:
    """Return the records of one data set of a recipe."""
    annotations = recipe.path(part.annotations)
    records = read_records(
        annotations,
        recipe.path(part.images),
        layout=part.layout,
        classes=classes,
        class_map=part.class_map,
        licenses=part.licenses,
        only=part.only,
        sizes=None if part.sizes is None else recipe.path(part.sizes),
        strict=part.strict,
    )
    return select(
        records,
        min_area=part.min_area,
        max_objects=part.max_objects,
        empty_frames=part.empty_frames,
        source=str(annotations),
    )


class RecipeData(L.LightningDataModule):
    """Data module of a recipe. The constructor reads and checks all annotations; images are loaded later.

    Args:
        recipe: The recipe.
        classes: Class names, in label order.
        height: Rows of the network input.
        width: Columns of the network input.
        multiple: Divisor of the height and width to which batches are padded; 1 if the network accepts no padded
            frames.

    Raises:
        ConfigError: Clips of a batch would have to be padded, but the network accepts no padded frames.
        DataError: A data set is malformed or incomplete.
    """

    def __init__(self, recipe: Recipe, classes: tuple[str, ...], *, height: int, width: int, multiple: int = 1) -> None:
        super().__init__()
        self.recipe, self.multiple = recipe, multiple
        self._batches_done = 0
        store = ImageStore(keep=recipe.keep_images)
        chains = [recipe.transforms(part).sized(height, width) for part in recipe.train]
        if multiple == 1 and recipe.batch_size > 1 and any(chain.output_size() is None for chain in chains):
            raise ConfigError(
                f"{recipe.method} accepts no padded frames, but clips have different sizes after these transforms",
                seen=f"batch_size {recipe.batch_size}",
                expected="batch_size 1",
                hint="Alternatively, end augment with crop or moving_window.",
            )
        self.parts = [
            ClipPart(
                records_of(recipe, part, classes),
                chain,
                clip_length=recipe.clip_length,
                window=recipe.window,
                sampling=recipe.sampling,
                paste=recipe.paste,
                store=store,
                duplicate=part.duplicate,
                ignore_background=part.ignore_background,
                span=part.span,
                seed=recipe.seed,
            )
            for part, chain in zip(recipe.train, chains, strict=True)
        ]
        if recipe.keep_images:  # before the workers start, so that they share the memory
            for part in self.parts:
                for record in part.records:
                    for file in record.files:
                        store(file, record.height, record.width, shrink=record.shrink)
        found = [record for part in recipe.val for record in records_of(recipe, part, classes)]
        self.clips = validation_clips(found, pseudo_frames=recipe.pseudo_frames)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the loader of this process: endless batches, starting after those used by a resumed run."""
        ratios = [part.ratio for part in self.recipe.train]
        parts, batches = self._sampler(ratios)
        return DataLoader(
            ClipDataset(parts, ratios),
            batch_sampler=batches,
            collate_fn=partial(collate, multiple=self.multiple),
            num_workers=self.recipe.workers,
            persistent_workers=self.recipe.workers > 0,
            worker_init_fn=_one_thread,
            pin_memory=torch.cuda.is_available(),
        )

    def _sampler(self, ratios: Sequence[float]) -> tuple[list[ClipPart], MixedBatches | CountedBatches]:
        """Return the data sets and the sampler of this process."""
        trainer, recipe = self.trainer, self.recipe
        rank, world = (trainer.global_rank, trainer.world_size) if trainer else (0, 1)
        options = {"seed": recipe.seed, "rank": rank, "world": world, "start": self._batches_done}
        if recipe.mixture == "drawn":
            return self.parts, MixedBatches(self.parts, ratios, recipe.batch_size, **options)
        total = recipe.iterations * recipe.accumulate * recipe.batch_size * world
        parts = [replace(part, clips=count) for part, count in zip(self.parts, shares(ratios, total), strict=True)]
        return parts, CountedBatches(parts, ratios, recipe.batch_size, total=total, **options)

    def val_dataloader(self) -> DataLoader[ValidationClip]:
        """Return the loader of validation clips, one at a time; every process predicts all of them."""
        return DataLoader(self.clips, batch_size=None, shuffle=False)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a training batch to the device. A validation clip stays on the host; its frames are moved one by one."""
        return batch.to(device) if isinstance(batch, ClipBatch) else batch

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches used by this process. Checkpoints contain whole iterations only."""
        accumulate = self.recipe.accumulate
        each = accumulate // self.recipe.steps
        batches = self.trainer.global_step * each if self.trainer else self._batches_done
        return {"batches": batches, "accumulate": accumulate, "steps": self.recipe.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue after the batches that were used.

        Raises:
            ConfigError: The resumed run accumulated another number of batches, or had other optimiser steps.
        """
        accumulated = int(state_dict.get("accumulate", 1))
        if accumulated != self.recipe.accumulate:
            raise ConfigError(
                "a resumed run must accumulate as many batches as before",
                seen=f"accumulate {self.recipe.accumulate}",
                expected=str(accumulated),
                hint="Start a new run with init=model.safetensors to change it.",
            )
        steps = int(state_dict.get("steps", 1))
        if steps != self.recipe.steps:
            raise ConfigError(
                "a resumed run must change the weights as often as before",
                seen=f"step_every_micro_batch {str(self.recipe.step_every_micro_batch).lower()}",
                expected=str(steps > 1).lower(),
                hint="Start a new run with init=model.safetensors to change it.",
            )
        self._batches_done = int(state_dict["batches"])


def _one_thread(worker: int) -> None:
    """Limit a worker to one thread, so that workers do not compete with the training for the CPU."""
    torch.set_num_threads(1)
