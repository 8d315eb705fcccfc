"""Accumulated gradients, resumed runs, and the checkpoints that a run leaves behind."""

import json
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader

from tests.visdeploy_training.material import CLASSES
from visdeploy.errors import ConfigError
from visdeploy_training.clip import ClipBatch
from visdeploy_training.engine import load_recipe, run_recipe
from visdeploy_training.engine.callbacks import Checkpoints
from visdeploy_training.engine.data import RecipeData
from visdeploy_training.engine.module import TrainingModule
from visdeploy_training.engine.training import build_trainer
from visdeploy_training.model import ModelInfo, VISModel


class Brightness(VISModel):
    """Network of four weights, which shows how the engine uses gradients."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 1, 1)
        self.info = ModelInfo("visolo", "tiny", CLASSES)
        self.config = SimpleNamespace(pixel_mean=(100.0,) * 3, pixel_std=(50.0,) * 3, channel_order="rgb")

    def forward(self, clips):
        return self.conv(clips.flatten(0, 1)).mean(dim=(1, 2, 3))


class Recorded(TrainingModule):
    """Module that records every batch and its loss."""

    def __init__(self, recipe):
        super().__init__(Brightness(), recipe.optim, iterations=recipe.iterations)
        self._losses = lambda output, targets, config: {"fit": (output - 1).square().mean()}
        self.seen = []

    def training_step(self, batch, batch_index):
        loss = super().training_step(batch, batch_index)
        self.seen.append((float(batch.images.float().mean()), float(loss.detach())))
        return loss


def fit(recipe, data=None, resume=None):
    module = Recorded(recipe)
    data = data or RecipeData(recipe, CLASSES, height=32, width=48)
    build_trainer(recipe, validate=False).fit(module, data, ckpt_path=resume, weights_only=True)
    return module


def batches(*sizes):
    """Return batches of different clips, which do not depend on the sizes of the batches."""
    images = torch.randint(0, 256, (sum(sizes), 2, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    parts = images.to(torch.uint8).split(sizes)
    return DataLoader([ClipBatch(part, (), ((8, 8),) * len(part)) for part in parts], batch_size=None)


def test_accumulated_gradients_are_those_of_one_larger_batch(recipe):
    plain = ["ema=0", "val=[]", "iterations=1", "optim={kind: sgd, lr: 1.0, weight_decay: 0, clip_norm: 0.01}"]
    before = Brightness()
    large = fit(load_recipe(recipe, plain), batches(6)).model
    small = fit(load_recipe(recipe, [*plain, "accumulate=3"]), batches(2, 2, 2)).model
    pairs = zip(large.parameters(), before.parameters(), strict=True)
    moved = torch.stack([(after - start).detach().norm() for after, start in pairs])
    assert float(moved.norm()) == pytest.approx(0.01, rel=1e-4)  # the accumulated gradient is clipped, not its parts
    for a, b in zip(large.parameters(), small.parameters(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.fixture
def saved(monkeypatch):
    """Record the name of every checkpoint, with the number of optimiser steps and of batches at that time."""
    files, save = [], Trainer.save_checkpoint

    def record(trainer, path, *args, **kwargs):
        files.append((path.name, trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.total.ready))
        save(trainer, path, *args, **kwargs)

    monkeypatch.setattr(Trainer, "save_checkpoint", record)
    return files


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_resumed_run_goes_on_with_the_next_batch_and_the_same_loss(recipe, tmp_path, saved, accumulate):
    options = ["ema=0", "val=[]", f"accumulate={accumulate}", "optim={kind: sgd, lr: 0.1, momentum: 0.9, warmup: 3}"]
    whole = fit(load_recipe(recipe, [*options, f"output={tmp_path / 'whole'}"]))
    assert saved == [("last.ckpt", 2, 2 * accumulate), ("last.ckpt", 4, 4 * accumulate)]
    assert len(set(whole.seen)) == len(whole.seen) == 4 * accumulate
    saved.clear()
    first = fit(load_recipe(recipe, [*options, "iterations=2"]))
    second = fit(load_recipe(recipe, options), resume=tmp_path / "out" / "last.ckpt")
    torch.testing.assert_close(torch.tensor([*first.seen, *second.seen]), torch.tensor(whole.seen))
    # nothing is written between two optimiser steps, right after resuming either
    assert saved == [("last.ckpt", 2, 2 * accumulate), ("last.ckpt", 4, 4 * accumulate)]
    with pytest.raises(ConfigError, match=f"seen: accumulate 7; expected: {accumulate}"):
        fit(load_recipe(recipe, [*options, "accumulate=7"]), resume=tmp_path / "out" / "last.ckpt")


@pytest.fixture
def scores(monkeypatch):
    """Replace validation by one whose AP is taken from the returned list."""
    left = []
    monkeypatch.setattr(TrainingModule, "validation_step", lambda self, clip, index: None)
    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", lambda self: self.log("val/AP", left.pop(0)))
    return left


def weights(path):
    """Return the weights of the network in a checkpoint of Lightning or of ours."""
    if path.suffix == ".safetensors":
        return load_file(path)
    state = torch.load(path, weights_only=True)["state_dict"]
    return {name.removeprefix("model."): value for name, value in state.items()}


def equal(first, second):
    first, second = weights(first), weights(second)
    return first.keys() == second.keys() and all(torch.equal(value, second[name]) for name, value in first.items())


def test_the_best_and_every_so_many_checkpoints_are_kept(recipe, tmp_path, scores, saved):
    """A lower score later, also of a resumed run, does not replace the best; all hold the averaged weights."""
    out = tmp_path / "out"
    options = ["validate_every=1", "keep_every=2", "checkpoint_every=3", "batch_size=1"]
    scores += [0.0, 0.25, 0.125]
    run_recipe(load_recipe(recipe, [*options, "iterations=3"]))
    expected = ["best.ckpt", "best.ckpt", "iteration_2.ckpt", "last.ckpt"]
    assert sorted(name for name, *_ in saved) == expected
    assert equal(out / "iteration_2.ckpt", out / "best.safetensors")
    assert not equal(out / "model.safetensors", out / "best.safetensors")

    scores += [0.2, 0.25]
    run_recipe(load_recipe(recipe, [*options, "iterations=5", "resume=true"]))
    assert scores == []
    assert {path.name for path in out.iterdir()} == {
        "recipe.yaml",
        "logs",
        "last.ckpt",
        "iteration_2.ckpt",
        "iteration_4.ckpt",
        "best.ckpt",
        "best.safetensors",
        "model.safetensors",
    }
    assert equal(out / "best.ckpt", out / "iteration_2.ckpt")
    assert equal(out / "best.safetensors", out / "iteration_2.ckpt")
    with safe_open(out / "best.safetensors", "pt") as file:
        notes = json.loads(file.metadata()["visdeploy"])["notes"]
    assert notes == {"iterations": 2, "val/AP": 0.25}


def test_a_best_score_counts_only_where_its_file_is_there(tmp_path):
    state = {"best_score": 0.5, "best_iteration": 7}
    callback = Checkpoints(tmp_path, every=1, best=True)
    callback.load_state_dict(state)
    assert callback.best_score is None
    (tmp_path / "best.ckpt").touch()
    callback.load_state_dict(state)
    assert callback.state_dict() == state


def test_a_group_that_matches_nothing_is_found_before_the_data_are_read(recipe):
    with pytest.raises(ConfigError, match=r"optim\.groups\.0 matches no parameter.*nowhere"):
        run_recipe(load_recipe(recipe, ["optim.groups=[{name: nowhere, lr_factor: 2}]", "train.0.annotations=gone"]))


def test_clips_of_different_sizes_need_a_network_that_takes_padding(recipe):
    options = ["augment=[{resize: {shorter: [32]}}]", "paste=0"]
    with pytest.raises(ConfigError, match=r"visolo accepts no padded frames.*batch_size 2"):
        RecipeData(load_recipe(recipe, options), CLASSES, height=32, width=48)
    RecipeData(load_recipe(recipe, options), CLASSES, height=32, width=48, multiple=32)
    RecipeData(load_recipe(recipe, [*options, "batch_size=1"]), CLASSES, height=32, width=48)


def test_machines_and_accumulation_reach_the_trainer(recipe, monkeypatch):
    asked = {}
    monkeypatch.setattr("visdeploy_training.engine.training.L.Trainer", lambda **options: asked.update(options))
    build_trainer(load_recipe(recipe, ["num_nodes=3", "accumulate=4", "validate_every=2"]), validate=True)
    assert (asked["num_nodes"], asked["accumulate_grad_batches"], asked["val_check_interval"]) == (3, 4, 8)
