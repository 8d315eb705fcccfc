from itertools import pairwise

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from torch import Tensor

from tests.visdeploy_training.material import CLASSES, ytvis_set
from visdeploy.errors import CheckpointError, ConfigError, DataError
from visdeploy_training import convert_checkpoint, create_model, train
from visdeploy_training.clip import ClipBatch
from visdeploy_training.engine.callbacks import AtomicCheckpointIO
from visdeploy_training.engine.data import RecipeData
from visdeploy_training.engine.loading import load_recipe
from visdeploy_training.engine.module import TrainingModule
from visdeploy_training.engine.optim import OptimRecipe
from visdeploy_training.engine.training import build_model, build_trainer


def test_training_writes_a_checkpoint_that_loads_and_resumes_exactly(recipe, tmp_path):
    """Stopped after two of four iterations and resumed, the weights equal those of the run in one go."""
    whole = train(recipe, [f"output={tmp_path / 'whole'}", "optim.schedule=constant"])
    train(recipe, [f"output={tmp_path / 'parts'}", "iterations=2"])
    parts = train(recipe, [f"output={tmp_path / 'parts'}", "resume=true"])
    first, second = convert_checkpoint(whole), convert_checkpoint(parts)
    assert first.classes == CLASSES
    assert first.report.ok
    for name, tensor in first.state.items():
        torch.testing.assert_close(tensor, second.state[name], rtol=1e-4, atol=1e-5, msg=name)
    files = {p.name for p in (tmp_path / "whole").iterdir()}
    assert files == {"recipe.yaml", "last.ckpt", "logs", "model.safetensors"}
    assert load_recipe(tmp_path / "whole" / "recipe.yaml").iterations == 4
    averaged = convert_checkpoint(tmp_path / "whole" / "last.ckpt")
    for name, tensor in first.state.items():
        torch.testing.assert_close(tensor, averaged.state[name], msg=name)


def test_fine_tuning_keeps_all_but_the_class_predictor(recipe, tmp_path):
    start = train(recipe, ["iterations=1", "val=[]", f"output={tmp_path / 'a'}"])
    more = [f"init={start}", "classes=[person, vehicle, bird]", "iterations=1", "val=[]", "optim.lr=1e-9"]
    tuned = train(recipe, [*more, f"output={tmp_path / 'b'}"])
    old, new = convert_checkpoint(start).state, convert_checkpoint(tuned).state
    changed = {k for k in old if old[k].shape != new[k].shape or (old[k] - new[k]).abs().max() > 1e-4}
    assert changed == {"Category_branch_post.pred.weight", "Category_branch_post.pred.bias"}


@pytest.mark.parametrize(
    ("overrides", "error", "match"),
    [
        (["train.0.annotations=gone.json"], DataError, "gone.json"),
        (["val.0.only=[clip7]"], ConfigError, "clip7"),
        (["classes=[person]"], DataError, "vehicle"),
        (["variant=huge"], ConfigError, "huge"),
        (["model.colour=1"], ConfigError, "colour"),
        (["init=gone.safetensors"], CheckpointError, "gone.safetensors"),
        (["precision=7-bit"], ConfigError, "7-bit"),
    ],
)
def test_mistakes_are_found_before_the_first_iteration(recipe, overrides, error, match):
    with pytest.raises(error, match=match):
        train(recipe, overrides)


def test_published_augmentation_trains_with_mixed_precision(recipe, tmp_path):
    chain = "[{resize: {shorter: [70, 80], larger_than: [input, input]}}, {flip: {mode: frame}}, rotate, crop]"
    options = [f"augment={chain}", "precision=bf16-mixed", "val=[]"]
    result = train(recipe, [*options, "iterations=1", "model.height=64"])
    assert convert_checkpoint(result).report.ok


DEFVIS = {
    "method": "defvis",
    "model": {"height": 64, "width": 96, "num_frames": 4, "hidden_dim": 48, "num_heads": 4, "mask_groups": 1},
    "clip_length": 4,
    "sampling": "consecutive",
}


def defvis_recipe(recipe, **changes):
    fields = yaml.safe_load(recipe.read_text()) | DEFVIS | changes
    recipe.write_text(yaml.safe_dump(fields))
    return recipe


def test_a_method_of_whole_clips_trains_and_resumes_exactly(recipe, tmp_path):
    """As for single frames; the validation clips of five frames are longer than the network's and run in windows."""
    defvis_recipe(recipe)
    whole = train(recipe, [f"output={tmp_path / 'whole'}", "optim.schedule=constant"])
    train(recipe, [f"output={tmp_path / 'parts'}", "iterations=2"])
    parts = train(recipe, [f"output={tmp_path / 'parts'}", "resume=true"])
    first, second = convert_checkpoint(whole), convert_checkpoint(parts)
    assert (first.method, first.report.ok) == ("defvis", True)
    for name, tensor in first.state.items():
        torch.testing.assert_close(tensor, second.state[name], rtol=1e-4, atol=1e-5, msg=name)


def test_a_method_of_whole_clips_trains_with_mixed_precision(recipe):
    result = train(defvis_recipe(recipe), ["precision=bf16-mixed", "val=[]", "iterations=1"])
    assert convert_checkpoint(result).report.ok


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_training_with_two_phases(recipe, tmp_path, precision):
    """In the first iteration only the flow learns."""
    model = {
        "pyramid_channels": 16,
        "decoder_channels": [16, 16, 8, 8],
        "semantic_channels": [16, 16, 8, 8],
        "num_groups": 4,
        "flow_steps": 1,
        "flow_width": 4,
        "flow_iterations": 1,
        "height": 96,
        "width": 128,
        "window": 2,
        "clip_overlap": 1,
    }
    changes = {"method": "vishv", "model": model, "clip_length": 2, "sampling": "consecutive", "val": []}
    fields = yaml.safe_load(recipe.read_text()) | changes
    recipe.write_text(yaml.safe_dump(fields))
    options = [f"precision={precision}", "ema=0", "optim.weight_decay=0", "pretrained=true"]
    torch.manual_seed(load_recipe(recipe).seed)
    states = [build_model(load_recipe(recipe, options)).state_dict()]
    for n in (1, 2):
        result = train(recipe, [*options, f"iterations={n}", f"output={tmp_path / str(n)}"])
        states.append(convert_checkpoint(result).state)
    assert all(torch.isfinite(value.float()).all() for value in states[2].values())
    first, second = ({k for k, v in a.items() if not torch.equal(v, b[k])} for a, b in pairwise(states))
    assert first
    assert [name for name in first if not name.startswith("offset_head.")] == []
    assert {"embedding_head.conv_embedding.weight", "semseg_head.conv_out.weight"} <= second


TEVIT = [
    "model={num_queries: 3, num_stages: 1, hidden_dim: 16, dynamic_dim: 2, feedforward_dim: 8, max_results: 2}",
    "augment.0.rescale.limits=[[60, 40], [96, 64]]",
    "classes=[person, vehicle]",
    "train=[{annotations: v/ytvis.json, images: v/frames, layout: ytvis}]",
    "devices=1",
    "strategy=auto",
    "accelerator=cpu",
    "pretrained=false",
    "iterations=2",
    "workers=0",
]


@pytest.mark.parametrize("variant", ["msgshift", "r50"])
def test_published_steps_of_tevit(tmp_path, variant):
    """The recipe but for its data and sizes, clips of different sizes in a batch."""
    ytvis_set(tmp_path / "v")
    name = f"tevit_{variant}_ytvis2019"
    result = convert_checkpoint(train(name, [*TEVIT, f"data_root={tmp_path}", f"output={tmp_path / 'out'}"]))
    assert (result.variant, result.report.ok) == (variant, True)
    with pytest.raises(DataError, match="clip_length, 6"):
        train(name, [*TEVIT, f"data_root={tmp_path}", f"output={tmp_path / 'out'}", "clip_length=6"])


def test_a_clip_length_that_is_not_the_network_s_is_named(recipe):
    with pytest.raises(ConfigError, match="clip_length"):
        train(defvis_recipe(recipe), ["clip_length=3", "val=[]"])


@pytest.mark.parametrize("variant", ["msgshift", "msgshift_mst", "r50", "swin_l"])
def test_published_batches_of_tevit(tmp_path, variant):
    """Two clips of five different frames each, at most as large as the recipe says, padded to multiples of 32."""
    ytvis_set(tmp_path / "v", length=7)
    part = "train=[{annotations: v/ytvis.json, images: v/frames, layout: ytvis}]"
    options = [f"data_root={tmp_path}", "classes=[person, vehicle]", part, "workers=0"]
    recipe = load_recipe(f"tevit_{variant}_ytvis2019", options)
    data = RecipeData(recipe, CLASSES, height=352, width=640, multiple=32)
    assert len(data.parts[0].items) == 2 * 7  # epochs go over frames
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape[:3] == (2, 5, 3)
    assert all(side % 32 == 0 for side in batch.images.shape[3:])
    longest = max(long for long, _ in recipe.augment[0].limits)
    for clip, target, (rows, columns) in zip(batch.images, batch.targets, batch.sizes, strict=True):
        assert target.masks.shape == (5, 2, *batch.images.shape[3:])
        assert max(rows, columns) <= longest
        assert rows / columns == pytest.approx(48 / 80, abs=0.01)
        assert not clip[..., rows:, :].any()
        assert not target.masks[..., columns:].any()
        red = [int(mask.any(dim=0).nonzero()[0]) for mask in target.masks[:, 0]]
        assert len(set(red)) == 5  # the square moves, so five positions are five frames


def test_normalisation_is_the_runtime_s():
    model = create_model("visolo", "tiny", num_classes=2, head_width=16, mask_width=16, neck_width=16, track_dim=16)
    module = TrainingModule(model, OptimRecipe(), iterations=1)
    images = torch.randint(0, 256, (2, 2, 3, 4, 5), dtype=torch.uint8)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (model.config.pixel_mean, model.config.pixel_std))
    found, expected = module.normalise(ClipBatch(images, (), ((4, 5), (3, 4)))), (images - mean) / std
    torch.testing.assert_close(found[0], expected[0])
    torch.testing.assert_close(found[1, ..., :3, :4], expected[1, ..., :3, :4])
    assert not found[1, ..., 3:, :].any()
    assert not found[1, ..., 4:].any()


def test_an_interrupted_checkpoint_leaves_the_old_one(tmp_path, monkeypatch):
    path, io = tmp_path / "last.ckpt", AtomicCheckpointIO()
    io.save_checkpoint({"a": torch.ones(1)}, path)

    def broken(self, checkpoint, path, storage_options=None):
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr("lightning.pytorch.plugins.io.TorchCheckpointIO.save_checkpoint", broken)
    with pytest.raises(OSError, match="disk full"):
        io.save_checkpoint({"a": torch.zeros(1)}, path)
    assert torch.load(path, weights_only=True)["a"].item() == 1
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_clipping_and_strategy_reach_the_trainer(recipe):
    trainer = build_trainer(load_recipe(recipe, ["optim.clip_norm=0.01"]), validate=False)
    assert isinstance(trainer, Trainer)
    assert (trainer.gradient_clip_val, trainer.gradient_clip_algorithm, trainer.max_steps) == (0.01, "norm", 4)


@pytest.mark.parametrize("method", ["defvis", "tevit", "visolo"])
def test_another_memory_layout_changes_no_result(method):
    small = {"visolo": {"head_width": 16, "mask_width": 16, "neck_width": 16, "track_dim": 16}}
    small["defvis"] = {"num_frames": 3, "hidden_dim": 48, "num_heads": 4, "mask_groups": 1, "queries_per_frame": 2}
    small["tevit"] = {"num_queries": 4, "hidden_dim": 16, "feedforward_dim": 16}
    torch.manual_seed(0)
    model = create_model(method, "tiny", num_classes=2, height=64, width=96, **small[method]).eval()
    batch = ClipBatch(torch.randint(0, 256, (1, 3, 3, 64, 96), dtype=torch.uint8), (), ((64, 96),))
    plain = TrainingModule(model, OptimRecipe(), iterations=1)
    expected = [value.detach().clone() for value in plain.model(plain.normalise(batch)) if isinstance(value, Tensor)]
    other = TrainingModule(model, OptimRecipe(), iterations=1, channels_last=True)
    assert expected
    assert any(p.ndim == 4 and not p.is_contiguous() for p in other.model.parameters())
    found = [value for value in other.model(other.normalise(batch)) if isinstance(value, Tensor)]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4 * max(1.0, float(b.abs().max())), rtol=0)  # boxes are in pixels
