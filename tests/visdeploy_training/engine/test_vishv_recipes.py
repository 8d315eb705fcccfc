"""Recipes of VIShv and STEm-Seg: published settings, and clips of small data sets in place of the real ones."""

import json
from collections import Counter

import pytest
import torch
import yaml

from tests.support import edit_json
from tests.visdeploy_training.material import HEIGHT, WIDTH, stemseg_images, stemseg_videos
from visdeploy.errors import ConfigError
from visdeploy_training import convert_checkpoint, create_model, train
from visdeploy_training.datasets import class_list
from visdeploy_training.datasets.locations import VARIABLES
from visdeploy_training.datasets.transforms import Fit, SyntheticClip
from visdeploy_training.engine import load_recipe, shipped_recipes
from visdeploy_training.engine.data import RecipeData
from visdeploy_training.engine.optim import learning_rate_factor

NAMES = [name for name in shipped_recipes() if name.startswith("vishv_") and "tiny" not in name]
LENGTH = 19
"""Frames of a video: more than the span of 16 and one."""


def config_of(recipe):
    with torch.device("meta"):
        return create_model(recipe.method, recipe.variant, classes=class_list(recipe.classes), **recipe.model).config


def test_all_recipes_of_the_family_are_here():
    assert len(NAMES) == 11


@pytest.mark.parametrize(
    ("name", "lr", "factor", "period", "start", "iterations", "batch"),
    [
        ("hierarchical_r50_ytvis2019", 5e-5, 0.01, 100_000, 60_000, 160_000, 4),
        ("hierarchical_r101_ytvis2019", 5e-5, 0.01, 100_000, 60_000, 160_000, 4),
        ("hierarchical_r50_ytvis2021", 5e-5, 0.01, 100_000, 60_000, 160_000, 4),
        ("stemseg_r50_ytvis2019", 1e-3, 0.01, 100_000, 60_000, 160_000, 2),
        ("stemseg_r101_ytvis2019", 1e-3, 0.01, 100_000, 60_000, 160_000, 2),
        ("stemseg_r101_davis_1", 1e-3, 0.1, 10_000, 40_000, 50_000, 2),
        ("stemseg_r101_davis_2", 1e-3, 1, 1, 1, 10_000, 2),
        ("hierarchical_r50_davis_1", 1e-3, 0.1, 10_000, 40_000, 50_000, 4),
        ("hierarchical_r50_davis_2", 1e-3, 1, 1, 1, 10_000, 4),
        ("stemseg_r50_kitti_mots_1", 1e-3, 0.1, 20_000, 60_000, 80_000, 2),
        ("stemseg_r50_kitti_mots_2", 1e-3, 1, 1, 1, 20_000, 2),
    ],
)
def test_published_optimisation(name, lr, factor, period, start, iterations, batch):
    recipe = load_recipe(f"vishv_{name}")
    optim = recipe.optim
    assert (optim.kind, optim.momentum, optim.nesterov, optim.weight_decay) == ("sgd", 0.9, True, 1e-4)
    assert (optim.lr, optim.clip_norm, optim.warmup, optim.groups) == (lr, 0, 0, [])
    assert (recipe.batch_size, recipe.accumulate, recipe.devices) == (1, batch, 1)
    assert (recipe.iterations, recipe.checkpoint_every, recipe.step_every_micro_batch) == (iterations, 10_000, False)
    at = learning_rate_factor(optim, iterations)
    step = factor ** (1 / period)
    assert [at(i) for i in (0, start - 1, start, start + 1)] == pytest.approx([1, 1, step, step**2], rel=1e-12)
    assert at(iterations - 1) == pytest.approx(step ** (iterations - start))


@pytest.mark.parametrize("name", NAMES)
def test_clips_are_those_of_the_network(name):
    recipe = load_recipe(name)
    config = config_of(recipe)
    assert (recipe.sampling, recipe.mixture, recipe.clip_length) == ("span", "counted", config.window)
    shortest = {
        step.shorter for part in recipe.train for step in recipe.transforms(part).steps if isinstance(step, Fit)
    }
    assert shortest == {config.shortest_edge}
    for part in recipe.train:
        synthetic = [s for s in recipe.transforms(part).steps if isinstance(s, SyntheticClip)]
        stem = part.annotations.rpartition("/")[2].removesuffix(".json")
        assert [s.rotation for s in synthetic] == {"coco": [12], "pascal_voc": [10], "mapillary": [10]}.get(stem, [])
        assert [s.blur for s in synthetic] == [0.0 if stem == "mapillary" else 0.25] * len(synthetic)
        assert part.min_area == {"pascal_voc": 50, "mapillary": 30}.get(stem, 0)
        assert part.duplicate == (stem.startswith("youtube_vis") or stem == "davis_train")
        assert part.ignore_background == (stem == "davis_train")
        assert part.empty_frames == ("cut" if stem == "kittimots_train" else "drop")


@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("hierarchical_r50_ytvis2019", {"youtube_vis_train": 0.8, "coco": 0.15, "pascal_voc": 0.05}),
        ("stemseg_r101_ytvis2019", {"youtube_vis_train": 0.6, "coco": 0.3, "pascal_voc": 0.1}),
        ("stemseg_r101_davis_2", {"davis_train": 0.3, "youtube_vis_train": 0.35, "coco": 0.25, "pascal_voc": 0.1}),
        ("stemseg_r50_kitti_mots_1", {"mapillary": 1}),
        ("stemseg_r50_kitti_mots_2", {"kittimots_train": 1}),
    ],
)
def test_published_mixtures(name, shares):
    found = {
        part.annotations.split("/")[-1].removesuffix(".json"): part.ratio for part in load_recipe(f"vishv_{name}").train
    }
    assert found == shares


@pytest.mark.parametrize("first", [name for name in NAMES if name.endswith("_1")])
def test_second_stages_start_from_the_first(first):
    one, two = load_recipe(first), load_recipe(first[:-1] + "2")
    assert two.init == f"{one.output}/model.safetensors"
    assert one.variant == two.variant
    configs = config_of(one), config_of(two)
    assert [c.window for c in configs] == ([8, 16] if "davis" in first else [8, 8])
    assert [c.freeze_backbone for c in configs] == [False, "davis" in first]


@pytest.mark.parametrize(("name", "spans"), [("davis_1", {16, 8}), ("davis_2", {16})])
def test_spans_of_davis(name, spans):
    recipe = load_recipe(f"vishv_stemseg_r101_{name}")
    assert {side for part in recipe.train for side in part.span or ()} == spans


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Small data sets under the names of the published ones, with their category ids."""
    annotations = tmp_path / "annotations"
    annotations.mkdir()
    videos, frames = stemseg_videos(tmp_path / "v", length=LENGTH)
    stills, images = stemseg_images(tmp_path / "i")
    person, car = {"1": "person", "2": "sedan"}, {"1": "car", "2": "pedestrian", "3": "ignore"}
    for name, labels in (("youtube_vis_train", person), ("davis_train", person), ("kittimots_train", car),
                         ("youtube_vis_2021_train", {"1": "person", "2": "car"})):  # fmt: skip
        data = json.loads(videos.read_text()) | {"meta": {"category_labels": labels}}
        (annotations / f"{name}.json").write_text(json.dumps(data))
    edit_json(
        annotations / "kittimots_train.json", lambda d: [s.update(categories={"3": 2, "7": 3}) for s in d["sequences"]]
    )
    for name, ids in (("coco", [1, 2]), ("pascal_voc", [15, 1]), ("mapillary", [20, 57])):
        data = json.loads(stills.read_text())
        data["meta"]["category_labels"] = {str(i): f"class {i}" for i in ids}
        data["images"] = [image | {"categories": ids} for image in data["images"]]
        (annotations / f"{name}.json").write_text(json.dumps(data))
    (annotations / "mapillary_sizes.json").write_text(json.dumps({f"{i}.png": [WIDTH, HEIGHT] for i in (1, 2, 3)}))
    for variable in VARIABLES:
        folder = annotations if "JSON" in variable else frames if "BASE" in variable else images
        monkeypatch.setenv(variable, str(folder))
    return tmp_path


def data_of(name, *options):
    recipe = load_recipe(name, ["workers=0", "iterations=5", *options])
    return recipe, RecipeData(recipe, class_list(recipe.classes), height=352, width=640, multiple=32)


@pytest.mark.parametrize("name", NAMES)
def test_clips_of_every_recipe(folders, name):
    recipe, data = data_of(name)
    batch = next(iter(data.train_dataloader()))
    assert batch.images.shape[:3] == (1, recipe.clip_length, 3)
    assert all(side % 32 == 0 for side in batch.images.shape[3:])
    assert len(data.parts) == len(recipe.train)
    for part, options in zip(data.parts, recipe.train, strict=True):
        torch.manual_seed(0)
        sample = part.draw(part.items[0][0])
        limits = recipe.transforms(options).steps[-1]
        assert max(sample.images.shape[2:]) in (limits.longest, round(limits.shorter * WIDTH / HEIGHT))
        assert sample.masks.shape[0] == recipe.clip_length
        assert int(sample.labels.max()) < len(class_list(recipe.classes))
        stem = options.annotations.split("/")[-1]
        hidden = stem in ("pascal_voc.json", "coco.json", "mapillary.json", "davis_train.json", "kittimots_train.json")
        assert (sample.ignore is not None) == hidden
        if options.ignore_background:
            assert torch.equal(sample.ignore, ~sample.masks.any(dim=1))


def test_the_mixture_has_the_published_shares(folders):
    _, data = data_of("vishv_stemseg_r50_ytvis2019")
    batches = data.train_dataloader().batch_sampler
    assert Counter(part for part, _ in batches.samples) == {0: 6, 1: 3, 2: 1}
    assert len(batches.parts[0].items) == 6  # the clips of the videos are as many as the training needs


def test_classes_of_mapillary_and_kitti_mots(folders):
    _, data = data_of("vishv_stemseg_r50_kitti_mots_1")
    (record, *_) = data.parts[0].records
    assert [i.label for i in record.instances] == [1]
    assert record.ignore[0].area == 256 + 4 * HEIGHT  # the ignored class and the ignored pixels
    _, data = data_of("vishv_stemseg_r50_kitti_mots_2")
    assert [[i.label for i in record.instances] for record in data.parts[0].records] == [[1], [1]]
    assert sum(mask is not None for mask in data.parts[0].records[0].ignore) > 5


def test_a_missing_variable_is_named(folders, monkeypatch):
    monkeypatch.delenv("COCO_TRAIN_IMAGES_DIR")
    with pytest.raises(ConfigError, match=r"COCO_TRAIN_IMAGES_DIR is not set.*\$COCO_TRAIN_IMAGES_DIR"):
        data_of("vishv_stemseg_r50_ytvis2019")
    monkeypatch.delenv("STEMSEG_MODELS_DIR")
    with pytest.raises(ConfigError, match="STEMSEG_MODELS_DIR is not set"):
        train("vishv_stemseg_r50_ytvis2019")


def test_spans_in_the_wrong_order_are_refused():
    with pytest.raises(ConfigError, match=r"train\.0\.span.*first number"):
        load_recipe("vishv_stemseg_r50_kitti_mots_2", ["train.0.span=[8, 4]"])


def test_a_small_network_trains_on_all_kinds_of_data(folders):
    """The recipe for DAVIS with a small network: videos with ignored background, videos, images, ignore masks."""
    model = {
        "backbone": "efficientnet_lite0",
        "freeze_at": 0,
        "pixel_mean": [127.0, 127.0, 127.0],
        "pixel_std": [128.0, 128.0, 128.0],
        "pyramid_channels": 16,
        "decoder_channels": [16, 16, 8, 8],
        "num_groups": 4,
        "window": 2,
        "clip_overlap": 1,
        "height": 96,
        "width": 160,
    }
    fields = yaml.safe_load(yaml.safe_dump(load_recipe("vishv_stemseg_r101_davis_1").model_dump(mode="json")))
    fields |= {"model": model, "pretrained": True, "clip_length": 2, "iterations": 3, "workers": 0}
    fields |= {
        "output": str(folders / "out"),
        "accelerator": "cpu",
        "augment": [{"fit": {"shorter": 96, "longest": 160}}],
    }
    for part in fields["train"]:
        if part["augment"]:
            part["augment"] = [part["augment"][0], *fields["augment"]]
    path = folders / "recipe.yaml"
    path.write_text(yaml.safe_dump(fields))
    result = convert_checkpoint(train(path))
    assert result.report.ok
    assert all(torch.isfinite(value.float()).all() for value in result.state.values())
