"""`train`: from a recipe to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger

from visdeploy.atomic import write_text
from visdeploy.errors import ConfigError
from visdeploy_training.checkpoint import save_checkpoint, start_from
from visdeploy_training.convert import convert_checkpoint
from visdeploy_training.datasets import class_list, to_annotations
from visdeploy_training.engine.callbacks import AtomicCheckpointIO, AveragedWeights
from visdeploy_training.engine.data import RecipeData
from visdeploy_training.engine.module import TrainingModule
from visdeploy_training.engine.recipe import Recipe, load_recipe
from visdeploy_training.model import VISModel
from visdeploy_training.registry import create_model, get_method

LAST = "last.ckpt"
RESULT = "model.safetensors"


def train(recipe: str | Path, overrides: Sequence[str] = ()) -> Path:
    """Train a network.

    Into the recipe's output folder go `recipe.yaml` (with the overrides in), Lightning's `last.ckpt` (complete at any
    time), TensorBoard logs, and at the end `model.safetensors`.

    Args:
        recipe: YAML file, or the name of a shipped recipe.
        overrides: `key=value`, see `load_recipe`.

    Returns:
        Path of the trained checkpoint of ours.

    Raises:
        ConfigError: The recipe is wrong, or an option cannot work.
        DataError: A data set is malformed or incomplete.
        CheckpointError: The checkpoint to start from does not fit.
    """
    return run_recipe(load_recipe(recipe, overrides))


def run_recipe(recipe: Recipe) -> Path:
    """Train as a checked recipe says; see `train`."""
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    model = build_model(recipe)
    data = RecipeData(
        recipe,
        model.info.classes,
        height=model.config.height,
        width=model.config.width,
        multiple=get_method(recipe.method).inference(model.config).preprocessing.pad_divisor,
    )
    truth = to_annotations([c.record for c in data.clips], model.info.classes) if data.clips else None
    module = TrainingModule(
        model, recipe.optim, iterations=recipe.iterations, truth=truth, channels_last=recipe.channels_last
    )
    write_text(recipe.folder / "recipe.yaml", yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    trainer = build_trainer(recipe, validate=bool(data.clips))
    last = recipe.folder / LAST
    trainer.fit(module, data, ckpt_path=str(last) if recipe.resume and last.is_file() else None, weights_only=True)
    result = recipe.folder / RESULT
    if trainer.is_global_zero:
        scores = {k: round(float(v), 5) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        save_checkpoint(module.model, result, notes={"iterations": trainer.global_step, **scores})
    return result


def build_model(recipe: Recipe) -> VISModel:
    """The network that a recipe starts from.

    Raises:
        ConfigError: Its options cannot work.
        CheckpointError: The checkpoint to start from does not fit.
    """
    model = create_model(
        recipe.method,
        recipe.variant,
        classes=class_list(recipe.classes),
        pretrained=recipe.pretrained if recipe.init is None else False,
        **recipe.model,
    )
    if recipe.init is not None:
        start_from(model, convert_checkpoint(recipe.init))
    return model


def build_trainer(recipe: Recipe, *, validate: bool) -> L.Trainer:
    """Lightning's trainer for a recipe.

    Raises:
        ConfigError: Lightning refuses an option.
    """
    callbacks: list[Callback] = [
        LearningRateMonitor(logging_interval="step"),
        RichProgressBar(),
        ModelCheckpoint(
            dirpath=recipe.folder,
            filename=LAST.removesuffix(".ckpt"),
            every_n_train_steps=recipe.checkpoint_every,
            enable_version_counter=False,
        ),
    ]
    if recipe.ema:
        callbacks.append(AveragedWeights(recipe.ema))
    every = recipe.validate_every or recipe.iterations
    try:
        return L.Trainer(
            max_steps=recipe.iterations,
            max_epochs=-1,
            accelerator=recipe.accelerator,
            devices=recipe.devices,
            strategy=recipe.strategy,
            precision=recipe.precision,  # type: ignore[arg-type]
            gradient_clip_val=recipe.optim.clip_norm or None,
            gradient_clip_algorithm="norm",
            val_check_interval=min(every, recipe.iterations) if validate else None,
            check_val_every_n_epoch=None,
            limit_val_batches=None if validate else 0,
            num_sanity_val_steps=0,
            log_every_n_steps=recipe.log_every,
            logger=TensorBoardLogger(recipe.folder, name="logs", version=""),
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError("the trainer refuses an option of the recipe", seen=str(error)[:200]) from error
