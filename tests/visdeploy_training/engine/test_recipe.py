from contextlib import nullcontext

import pytest
import torch
import yaml

from visdeploy.errors import ConfigError
from visdeploy_training.datasets import class_list
from visdeploy_training.engine import load_recipe, shipped_recipes
from visdeploy_training.engine.data import build_transform
from visdeploy_training.registry import create_model

SMALL = {
    "method": "visolo",
    "variant": "tiny",
    "classes": ["person"],
    "train": [{"annotations": "a.json", "images": "i", "layout": "ytvis"}],
    "iterations": 10,
    "output": "out",
}


def test_the_shipped_recipes():
    assert shipped_recipes() == [
        "defvis_inst_r50_ytvis2019",
        "defvis_tiny_composite",
        "defvis_tiny_overfit",
        "defvis_tiny_two",
        "tevit_msgshift_mst_ytvis2019",
        "tevit_msgshift_ytvis2019",
        "tevit_r50_mst_ytvis2019",
        "tevit_r50_ytvis2019",
        "tevit_swin_l_ytvis2019",
        "tevit_tiny_composite",
        "tevit_tiny_two",
        "visolo_r50_coco",
        "visolo_r50_ytvis2019",
        "visolo_tiny_demo",
        "visolo_tiny_mini",
        "visolo_tiny_overfit",
    ]


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_name_no_machine(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = create_model(recipe.method, recipe.variant, classes=class_list(recipe.classes), **recipe.model)
    assert len(model.info.classes) in (4, 40, 80)
    paths = [
        recipe.data_root,
        recipe.output,
        *(p for d in recipe.train + recipe.val for p in (d.annotations, d.images)),
    ]
    assert not any(path.startswith(("/", "~")) for path in paths)


def test_published_settings_of_defvis():
    """Specification 5.1 and 5.4: one clip of 36 frames a device, four devices, 60 epochs, a step after 40."""
    recipe = load_recipe("defvis_inst_r50_ytvis2019")
    optim, videos = recipe.optim, 2238
    assert (optim.lr, optim.backbone_factor, optim.weight_decay, optim.clip_norm) == (1e-4, 0.1, 1e-4, 0.1)
    assert (optim.gamma, optim.warmup, recipe.ema, recipe.clip_length, recipe.sampling) == (0.1, 0, 0, 36, "cyclic")
    assert (recipe.batch_size, recipe.devices) == (1, 4)
    assert [4 * optim.milestones[0], 4 * recipe.iterations] == [40 * videos, 60 * videos]
    assert recipe.augment.sizes == list(range(480, 769, 32))
    assert (recipe.augment.max_size, recipe.augment.flip, recipe.augment.paste) == (800, "clip", 0)


@pytest.mark.parametrize(
    ("overrides", "short", "dilated"),
    [
        (["variant=enc_r50"], 300, False),
        (["variant=inst_r101", "model.height=280", "model.width=504"], 280, False),
        (["variant=inst_r50_dc5"], 300, True),
    ],
)
def test_the_recipe_of_defvis_serves_its_other_networks(overrides, short, dilated):
    recipe = load_recipe("defvis_inst_r50_ytvis2019", overrides)
    with torch.device("meta"):
        config = create_model(recipe.method, recipe.variant, num_classes=40, **recipe.model).config
    assert (config.height, config.dilated, config.recompute) == (short, dilated, True)
    final = build_transform(recipe.augment, config.height, config.width).steps[-1]
    assert (final.sizes, final.max_size) == ((short,), round(1.8 * short))


@pytest.mark.parametrize(
    ("variant", "scales", "between"),
    [
        ("msgshift", [(640, 360), (960, 480)], True),
        ("msgshift_mst", [(640, 360), (960, 480)], False),
        ("r50", [(640, 360), (960, 480)], True),
        ("r50_mst", [(640, 360), (960, 480)], False),
        ("swin_l", [(1333, short) for short in range(320, 801, 32)], False),
    ],
)
def test_published_settings_of_tevit(variant, scales, between):
    """Specification 7.1, 7.2 and 7.5: clips of 5 frames, 16 clips over 8 devices, scales, rates, steps, warm-up."""
    recipe = load_recipe(f"tevit_{variant}_ytvis2019")
    optim, augment = recipe.optim, recipe.augment
    assert (recipe.variant, augment.style, augment.scales, augment.between) == (variant, "scaled", scales, between)
    assert (augment.flip, augment.colour, augment.paste) == ("clip", 0, 0)
    assert (recipe.clip_length, recipe.sampling, recipe.ema) == (5, "distinct", 0)
    assert (recipe.batch_size * int(recipe.devices), recipe.iterations) == (16, 9200)
    assert (optim.lr, optim.backbone_factor, optim.weight_decay, optim.clip_norm) == (2.5e-4, 0.1, 1e-4, 0.1)
    assert (optim.milestones, optim.gamma, optim.warmup, optim.warmup_start) == ([6100, 8500], 0.1, 770, 0.001)
    assert "queryinst" in str(recipe.pretrained)


def test_published_settings():
    """Specification 11.1, 11.3, 11.7: sizes, flips, rates, clipping, steps, 16 clips over 4 devices."""
    coco, ytvis = load_recipe("visolo_r50_coco"), load_recipe("visolo_r50_ytvis2019")
    for recipe in (coco, ytvis):
        optim = recipe.optim
        assert (optim.lr, optim.backbone_factor, optim.weight_decay, optim.clip_norm) == (1e-4, 0.1, 1e-4, 0.01)
        assert (optim.gamma, optim.warmup, recipe.ema, recipe.clip_length) == (0.1, 0, 0, 3)
        assert recipe.batch_size * int(recipe.devices) == 16
        assert (recipe.augment.rotation, recipe.augment.colour, recipe.augment.paste) == (15, 0, 0)
    assert (coco.iterations, coco.optim.milestones, coco.augment.flip) == (450_000, [300_000], "frame")
    assert coco.augment.sizes == [480, 512, 544, 576, 608, 640, 672]
    assert (ytvis.iterations, ytvis.optim.milestones, ytvis.augment.flip) == (140_000, [60_000, 100_000], "clip")
    assert ytvis.augment.sizes == [360, 480]
    assert [part.ratio for part in ytvis.train] == [0.75, 0.25]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["optim.lr=3e-4"], nullcontext(lambda r: r.optim.lr == 3e-4)),
        (
            ["train.0.ratio=0.5", "classes=[a, b]"],
            nullcontext(lambda r: (r.train[0].ratio, r.classes) == (0.5, ["a", "b"])),
        ),
        (["model.memory_slots=4"], nullcontext(lambda r: r.model == {"memory_slots": 4})),
        (["optim.lr"], pytest.raises(ConfigError, match="key=value")),
        (["optim.rate=1"], pytest.raises(ConfigError, match=r"optim\.rate")),
        (["iterations=many"], pytest.raises(ConfigError, match="iterations")),
        (["train.3.ratio=1"], pytest.raises(ConfigError, match="leads nowhere")),
        (["method.name=x"], pytest.raises(ConfigError, match="leads nowhere")),
        (["seed=[1"], pytest.raises(ConfigError, match="not YAML")),
        (["optim.milestones=[5, 3]"], pytest.raises(ConfigError, match="rise")),
        (["train.0.ratio=0"], pytest.raises(ConfigError, match="ratios")),
        (["augment.zoom=[2, 1]"], pytest.raises(ConfigError, match="zoom")),
        (["augment.style=detr", "batch_size=2"], pytest.raises(ConfigError, match="batch_size must be 1")),
        (["augment={style: scaled, paste: 0.5}"], pytest.raises(ConfigError, match="pasted")),
        (["augment.scales=[[640]]"], pytest.raises(ConfigError, match="scales")),
        (["train=[]"], pytest.raises(ConfigError, match="train")),
    ],
)
def test_overrides(tmp_path, overrides, expected):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    with expected as check:
        assert check(load_recipe(path, overrides))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (None, "no such recipe"),
        ("", "is no recipe"),
        ("- 1", "is no recipe"),
        ("a: [", "cannot read"),
        ("method: visolo", "variant.*required"),
    ],
)
def test_files_that_are_no_recipes(tmp_path, text, match):
    path = tmp_path / "r.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=match):
        load_recipe(path)
