"""Optimiser steps after every accumulated batch, as in the published training of VIShv."""

import pytest
import torch

from visdeploy.errors import ConfigError
from visdeploy_training import convert_checkpoint, train
from visdeploy_training.engine.data import RecipeData
from visdeploy_training.engine.loading import load_recipe
from visdeploy_training.engine.module import TrainingModule
from visdeploy_training.engine.training import build_model, build_trainer

SGD = [
    "optim={kind: sgd, lr: 0.001, momentum: 0.9, nesterov: true, schedule: {kind: exponential, gamma: 0.25}}",
    "val=[]",
    "ema=0",
    "batch_size=1",
    "accumulate=2",
]
EVERY = "step_every_micro_batch=true"


def by_hand(recipe, *, every):
    """Train with plain torch; return the weights."""
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    data = RecipeData(recipe, model.info.classes, height=64, width=96)
    module = TrainingModule(model, recipe.optim, iterations=recipe.iterations)
    model.train()
    optimiser = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], lr=0.001, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    batches = iter(data.train_dataloader())
    for iteration in range(recipe.iterations):
        optimiser.param_groups[0]["lr"] = 0.001 * 0.25**iteration
        optimiser.zero_grad()
        for last in (False, True):
            batch = next(batches)
            losses = module._losses(module._forward(batch), batch.targets, model.config)
            (torch.stack(list(losses.values())).sum() / 2).backward()
            if every or last:
                optimiser.step()
    return model.state_dict()


@pytest.mark.parametrize("every", [True, False])
def test_weights_are_those_of_a_plain_loop(recipe, tmp_path, every):
    options = [*SGD, "iterations=2", "paste=0", f"step_every_micro_batch={str(every).lower()}"]
    found = convert_checkpoint(train(recipe, options)).state
    expected = by_hand(load_recipe(recipe, options), every=every)
    other = by_hand(load_recipe(recipe, options), every=not every)
    differ = 0.0
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-6, msg=name)
        differ = max(differ, float((tensor.float() - other[name].float()).abs().max()))
    assert differ > 1e-4


def test_a_resumed_run_is_that_in_one_go(recipe, tmp_path):
    """Checkpoints are written after whole iterations, whose number they contain."""
    options = [*SGD, EVERY, "keep_every=1", "iterations=2"]
    whole = train(recipe, [*options, f"output={tmp_path / 'whole'}"])
    kept = {path.name for path in (tmp_path / "whole").glob("iteration_*")}
    assert kept == {f"iteration_{i}.ckpt" for i in (1, 2)}
    assert torch.load(tmp_path / "whole/last.ckpt", weights_only=True)["global_step"] == 4
    train(recipe, [*options, f"output={tmp_path / 'parts'}", "iterations=1"])
    parts = train(recipe, [*options, f"output={tmp_path / 'parts'}", "resume=true"])
    first, second = convert_checkpoint(whole).state, convert_checkpoint(parts).state
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name], rtol=1e-4, atol=1e-5, msg=name)
    with pytest.raises(ConfigError, match="step_every_micro_batch false"):
        train(recipe, [*SGD, f"output={tmp_path / 'parts'}", "resume=true", "iterations=5"])


@pytest.mark.parametrize(
    ("options", "steps", "accumulated", "most"),
    [([], 1, 2, 4), ([EVERY], 2, 1, 8), ([EVERY, "accumulate=1"], 1, 1, 4)],
)
def test_iterations_and_optimiser_steps(recipe, options, steps, accumulated, most):
    loaded = load_recipe(recipe, [*SGD, *options])
    trainer = build_trainer(loaded, validate=False)
    assert (loaded.steps, trainer.accumulate_grad_batches, trainer.max_steps) == (steps, accumulated, most)


@pytest.mark.parametrize("option", ["precision=16-mixed", "optim.clip_norm=1.0"])
def test_kept_gradients_cannot_be_changed(recipe, option):
    with pytest.raises(ConfigError, match="step_every_micro_batch"):
        load_recipe(recipe, [*SGD, EVERY, option])
    load_recipe(recipe, [*SGD, EVERY, option, "accumulate=1"])
