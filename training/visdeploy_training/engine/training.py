"""`train`: train a network as described by a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import lightning as L
import yaml
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from visdeploy.atomic import write_text
from visdeploy.errors import CheckpointError, ConfigError
from visdeploy.outputs import Output, check_inputs_kept, check_new, check_writable
from visdeploy_training.checkpoint import save_checkpoint, start_from
from visdeploy_training.convert import convert_checkpoint
from visdeploy_training.datasets import class_list, expand, to_annotations
from visdeploy_training.engine.callbacks import BEST, LAST, MONITOR, AtomicCheckpointIO, AveragedWeights, Checkpoints
from visdeploy_training.engine.data import RecipeData
from visdeploy_training.engine.loading import load_recipe
from visdeploy_training.engine.module import TrainingModule
from visdeploy_training.engine.optim import parameter_groups
from visdeploy_training.engine.recipe import Recipe
from visdeploy_training.model import VISModel
from visdeploy_training.registry import create_model, get_method

RECIPE = "recipe.yaml"
RESULT = "model.safetensors"
BEST_RESULT = "best.safetensors"


def train(recipe: str | Path, overrides: Sequence[str] = (), *, overwrite: bool = True) -> Path:
    """Train a network.

    The output folder of the recipe then contains `recipe.yaml` (including the overrides), Lightning's `last.ckpt`,
    TensorBoard logs, and `model.safetensors`. With `keep_every`, it also contains Lightning's `iteration_N.ckpt`; with
    `validate_every` and validation sets, Lightning's `best.ckpt` with the highest AP, and `best.safetensors`. Files are
    replaced atomically, so they are complete at any time.

    Args:
        recipe: YAML file, or the name of a recipe of this package.
        overrides: `key=value`, see `load_recipe`.
        overwrite: Replace the results of an earlier run in the output folder.

    Returns:
        Path of `model.safetensors`.

    Raises:
        ConfigError: The recipe is invalid, or Lightning refuses an option.
        DataError: A data set is malformed or incomplete.
        CheckpointError: The checkpoint to start from does not match the network.
        OutputError: The output folder cannot be written, has the results of another run, or an input would be replaced.
    """
    loaded = load_recipe(recipe, overrides)
    if getattr(rank_zero_only, "rank", 0) == 0:  # other processes of the run may start after the first one has written
        _check_outputs(loaded, Path(recipe), overwrite=overwrite)
    return run_recipe(loaded)


def _check_outputs(recipe: Recipe, file: Path, *, overwrite: bool) -> None:
    results = [Output(recipe.folder / name) for name in (RESULT, BEST_RESULT, LAST, BEST)]
    written = Output(recipe.folder / RECIPE)
    inputs = [Path(expand(each)) for each in (recipe.init, recipe.pretrained) if isinstance(each, str)]
    inputs += [recipe.path(part.annotations) for part in (*recipe.train, *recipe.val)]
    check_inputs_kept([*results, written], inputs)
    if recipe.resume:  # usually from the recipe that the run has written
        check_writable([*results, written])
        return
    check_inputs_kept([*results, written], [file])
    if not overwrite:
        check_new(
            [*results, written],
            hint="Pass --overwrite to replace it, resume=true to continue the run, or another output=FOLDER.",
        )
    check_writable([*results, written])


def run_recipe(recipe: Recipe) -> Path:
    """Train a network as described by a validated recipe; see `train`."""
    L.seed_everything(recipe.seed, workers=True, verbose=False)
    model = build_model(recipe)
    parameter_groups(model, recipe.optim)  # raises an error for groups that match nothing before the data are read
    data = RecipeData(
        recipe,
        model.info.classes,
        height=model.config.height,
        width=model.config.width,
        multiple=get_method(recipe.method).inference(model.config).preprocessing.pad_divisor,
    )
    truth = to_annotations([c.record for c in data.clips], model.info.classes) if data.clips else None
    module = TrainingModule(
        model,
        recipe.optim,
        iterations=recipe.iterations,
        truth=truth,
        channels_last=recipe.channels_last,
        steps=recipe.steps,
    )
    write_text(recipe.folder / RECIPE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    trainer = build_trainer(recipe, validate=bool(data.clips))
    last = recipe.folder / LAST
    trainer.fit(module, data, ckpt_path=str(last) if recipe.resume and last.is_file() else None, weights_only=True)
    result = recipe.folder / RESULT
    if trainer.is_global_zero:
        scores = {k: round(float(v), 5) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        save_checkpoint(module.model, result, notes={"iterations": trainer.global_step // recipe.steps, **scores})
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, Checkpoints) and callback.best_score is not None:
                notes = {"iterations": callback.best_iteration, MONITOR: round(callback.best_score, 5)}
                save_checkpoint(convert_checkpoint(recipe.folder / BEST), recipe.folder / BEST_RESULT, notes=notes)
    return result


def build_model(recipe: Recipe) -> VISModel:
    """Create the network of a recipe, with its initial weights.

    Raises:
        ConfigError: A name is unknown, or a value is invalid.
        CheckpointError: The checkpoint to start from does not match the network.
    """
    weights: bool | str = recipe.pretrained if recipe.init is None else False
    model = create_model(
        recipe.method,
        recipe.variant,
        classes=class_list(recipe.classes),
        pretrained=_weights("pretrained", weights) if isinstance(weights, str) else weights,
        **recipe.model,
    )
    if recipe.init is not None:
        start_from(model, convert_checkpoint(_weights("init", recipe.init)))
    return model


def _weights(field: str, value: str) -> str:
    """Return the path of a file of weights in a field of a recipe.

    Raises:
        CheckpointError: There is no such file.
    """
    path = expand(value)
    if not Path(path).is_file():
        raise CheckpointError(
            f"no such checkpoint: {path}",
            seen=f"{field}: {value} in the recipe",
            hint=f"Set {field}=FILE. The comment at the start of a shipped recipe says which file that is.",
        )
    return path


def build_trainer(recipe: Recipe, *, validate: bool) -> L.Trainer:
    """Create Lightning's trainer for a recipe.

    Raises:
        ConfigError: Lightning refuses an option.
    """
    callbacks: list[Callback] = [
        LearningRateMonitor(logging_interval="step"),
        RichProgressBar(),
        Checkpoints(
            recipe.folder,
            every=recipe.checkpoint_every,
            keep_every=recipe.keep_every,
            best=validate and recipe.validate_every > 0,
            steps=recipe.steps,
        ),
    ]
    if recipe.ema:
        callbacks.append(AveragedWeights(recipe.ema))
    every = min(recipe.validate_every or recipe.iterations, recipe.iterations)
    try:
        return L.Trainer(
            max_steps=recipe.iterations * recipe.steps,
            max_epochs=-1,
            accelerator=recipe.accelerator,
            devices=recipe.devices,
            num_nodes=recipe.num_nodes,
            strategy=recipe.strategy,
            precision=recipe.precision,  # type: ignore[arg-type]
            gradient_clip_val=recipe.optim.clip_norm or None,
            gradient_clip_algorithm="norm",
            accumulate_grad_batches=recipe.accumulate // recipe.steps,
            val_check_interval=every * recipe.accumulate if validate else None,  # Lightning counts batches
            check_val_every_n_epoch=None,
            limit_val_batches=None if validate else 0,
            num_sanity_val_steps=0,
            log_every_n_steps=recipe.log_every * recipe.steps,
            logger=TensorBoardLogger(recipe.folder, name="logs", version=""),
            callbacks=callbacks,
            plugins=[AtomicCheckpointIO()],
            use_distributed_sampler=False,
        )
    except (ValueError, TypeError) as error:
        raise ConfigError("the trainer refuses an option of the recipe", seen=str(error)[:200]) from error
