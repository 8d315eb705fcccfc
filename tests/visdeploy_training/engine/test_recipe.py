from contextlib import nullcontext

import pytest
import torch
import yaml

from visdeploy.errors import ConfigError
from visdeploy_training.datasets import class_list
from visdeploy_training.datasets.transforms import Crop, Flip, Rescale, Resize, Rotate
from visdeploy_training.engine import load_recipe, shipped_recipes
from visdeploy_training.engine.optim import learning_rate_factor
from visdeploy_training.registry import create_model

SMALL = {
    "method": "visolo",
    "variant": "tiny",
    "classes": ["person"],
    "train": [{"annotations": "a.json", "images": "i", "layout": "ytvis"}],
    "iterations": 10,
    "output": "out",
}


def backbone_factor(optim):
    (group,) = [group for group in optim.groups if group.name == "backbone"]
    return group.lr_factor


@pytest.mark.parametrize("name", shipped_recipes())
def test_shipped_recipes_are_valid_and_name_no_machine(name):
    recipe = load_recipe(name)
    with torch.device("meta"):
        model = create_model(recipe.method, recipe.variant, classes=class_list(recipe.classes), **recipe.model)
    assert len(model.info.classes) in (1, 2, 4, 40, 80)
    paths = [
        recipe.data_root,
        recipe.output,
        *(p for d in recipe.train + recipe.val for p in (d.annotations, d.images)),
    ]
    assert not any(path.startswith(("/", "~")) for path in paths)


def test_published_settings_of_defvis():
    """Published recipe: one clip of 36 frames per device, four devices, 60 epochs, a step after 40."""
    recipe = load_recipe("defvis_inst_r50_ytvis2019")
    optim, videos = recipe.optim, 2238
    assert (optim.kind, optim.lr, optim.weight_decay, optim.clip_norm) == ("adamw", 1e-4, 1e-4, 0.1)
    assert backbone_factor(optim) == 0.1
    assert (optim.schedule.gamma, optim.warmup, recipe.ema) == (0.1, 0, 0)
    assert (recipe.clip_length, recipe.sampling) == (36, "cyclic")
    assert (recipe.batch_size, recipe.devices) == (1, 4)
    assert [4 * optim.schedule.milestones[0], 4 * recipe.iterations] == [40 * videos, 60 * videos]
    assert recipe.augment[:2] == [Flip(mode="clip"), Resize(shorter=range(480, 769, 32), longest=800)]
    assert recipe.paste == 0


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
    final = recipe.transforms(recipe.train[0]).sized(config.height, config.width).steps[-1]
    assert (final.shorter, final.longest) == ((short,), round(1.8 * short))


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
    """Published recipe: clips of 5 frames, 16 clips over 8 devices, scales, rates, steps, warm-up."""
    recipe = load_recipe(f"tevit_{variant}_ytvis2019")
    optim = recipe.optim
    assert recipe.augment == [Rescale(limits=scales, between=between), Flip(mode="clip")]
    assert (recipe.variant, recipe.paste) == (variant, 0)
    assert (recipe.clip_length, recipe.sampling, recipe.ema) == (5, "distinct", 0)
    assert (recipe.batch_size * int(recipe.devices), recipe.iterations) == (16, 9200)
    assert (optim.kind, optim.lr, optim.weight_decay, optim.clip_norm) == ("adamw", 2.5e-4, 1e-4, 0.1)
    assert (optim.schedule.milestones, optim.schedule.gamma) == ([6100, 8500], 0.1)
    assert (optim.warmup, optim.warmup_start, backbone_factor(optim)) == (770, 0.001, 0.1)
    assert "queryinst" in str(recipe.pretrained)


SCALES = Rescale(limits=[(649, 360), (960, 480)], between=True, antialias=True)


@pytest.mark.parametrize(
    ("variant", "batch", "iterations", "steps"),
    [
        ("r50_sepc", 64, 11_520, [7_680, 10_560]),
        ("r101_sepc", 64, 11_520, [7_680, 10_560]),
        ("swin_l_routing", 32, 5_760, [3_840, 5_280]),
        ("swin_b_routing", 32, 5_760, [3_840, 5_280]),
        ("swin_t_routing", 32, 5_760, [3_840, 5_280]),
    ],
)
def test_published_settings_of_tpr(variant, batch, iterations, steps):
    """Published recipe: pairs at most two frames apart, scales, batches over 8 devices, rates, steps, warm-up."""
    recipe = load_recipe(f"tpr_{variant}_ytvis2019")
    optim = recipe.optim
    assert recipe.augment == [SCALES, Flip(mode="clip")]
    assert (recipe.variant, recipe.clip_length, recipe.sampling, recipe.window) == (variant, 2, "near", 2)
    assert (recipe.batch_size * int(recipe.devices), recipe.devices, recipe.iterations) == (batch, 8, iterations)
    assert (optim.kind, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 0.005, 0.9, 1e-4)
    assert (optim.schedule.milestones, optim.schedule.gamma, optim.clip_norm) == (steps, 0.1, 0)
    assert [(g.type, g.decay_factor, g.lr_factor) for g in optim.groups] == [("norm", 0, None)]
    factor = learning_rate_factor(optim, iterations)
    assert [factor(i) for i in (0, 500, 1000)] == pytest.approx([1 / 80, 0.5 / 80 + 0.5, 1])
    assert recipe.init == f"runs/tpr_{variant.rsplit('_', 1)[0]}_coco/model.safetensors"
    assert load_recipe(f"tpr_{variant.rsplit('_', 1)[0]}_coco").output == recipe.init.rpartition("/")[0]


@pytest.mark.parametrize(
    ("backbone", "kind", "lr", "iterations", "steps"),
    [
        ("r50", "sgd", 0.01, 90_000, [60_000, 80_000]),
        ("r101", "sgd", 0.01, 270_000, [210_000, 250_000]),
        ("r101_dcn", "sgd", 0.01, 270_000, [210_000, 250_000]),
        ("swin_t", "adamw", 1e-4, 270_000, [210_000, 250_000]),
        ("swin_b", "adamw", 1e-4, 270_000, [210_000, 250_000]),
        ("swin_l", "adamw", 1e-4, 270_000, [210_000, 250_000]),
    ],
)
def test_published_settings_of_blendmask(backbone, kind, lr, iterations, steps):
    """Pre-training on COCO: single images with objects, 16 over 8 devices, short edges of 640..800."""
    recipe = load_recipe(f"tpr_{backbone}_coco")
    optim = recipe.optim
    assert (recipe.variant, recipe.clip_length, recipe.sampling) == (f"{backbone}_image", 1, "distinct")
    assert recipe.augment == [Resize(shorter=range(640, 801, 32), longest=1333), Flip(mode="clip")]
    assert (recipe.batch_size * int(recipe.devices), recipe.iterations) == (16, iterations)
    assert (optim.kind, optim.lr, optim.clip_norm) == (kind, lr, float(kind == "adamw"))
    assert (optim.schedule.milestones, optim.schedule.gamma) == (steps, 0.1)
    assert [group.decay_factor for group in optim.groups] == [0.0] * (1 + (kind == "adamw"))


def test_published_settings():
    """Published recipe: sizes, flips, rates, clipping, steps, 16 clips over 4 devices."""
    coco, ytvis = load_recipe("visolo_r50_coco"), load_recipe("visolo_r50_ytvis2019")
    for recipe in (coco, ytvis):
        optim = recipe.optim
        assert (optim.kind, optim.lr, optim.weight_decay, optim.clip_norm) == ("adamw", 1e-4, 1e-4, 0.01)
        assert (optim.schedule.gamma, optim.warmup, backbone_factor(optim)) == (0.1, 0, 0.1)
        assert (recipe.ema, recipe.clip_length, recipe.paste) == (0, 3, 0)
        assert recipe.batch_size * int(recipe.devices) == 16
    assert (coco.iterations, coco.optim.schedule.milestones) == (450_000, [300_000])
    assert (ytvis.iterations, ytvis.optim.schedule.milestones) == (140_000, [60_000, 100_000])
    sizes = {"frame": [480, 512, 544, 576, 608, 640, 672], "clip": [360, 480]}
    for recipe, mode in ((coco, "frame"), (ytvis, "clip")):
        resize = Resize(shorter=sizes[mode], longest=1333, larger_than=("input", "input"))
        assert recipe.augment == [resize, Flip(mode=mode), Rotate(degrees=15), Crop()]
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
        (["clip_length=1", "sampling=near"], nullcontext(lambda r: (r.clip_length, r.sampling) == (1, "near"))),
        (["clip_length=0"], pytest.raises(ConfigError, match="clip_length")),
        (["sampling=nearest"], pytest.raises(ConfigError, match="sampling")),
        (["optim.rate=1"], pytest.raises(ConfigError, match=r"optim\.rate")),
        (["iterations=many"], pytest.raises(ConfigError, match="iterations")),
        (["train.3.ratio=1"], pytest.raises(ConfigError, match="matches no field of the recipe")),
        (["method.name=x"], pytest.raises(ConfigError, match="matches no field of the recipe")),
        (["seed=[1"], pytest.raises(ConfigError, match="not YAML")),
        (["optim.schedule={kind: steps, milestones: [5, 3]}"], pytest.raises(ConfigError, match="in ascending order")),
        (["train.0.ratio=0"], pytest.raises(ConfigError, match="ratios")),
        (
            ["augment=[{resize: {shorter: [480]}}, flip]", "augment.0.resize.longest=800"],
            nullcontext(lambda r: r.augment == [Resize(shorter=[480], longest=800), Flip()]),
        ),
        (
            ["augment=[{flip: {}}, {resize: {shorter: small}}]"],
            pytest.raises(ConfigError, match=r"'augment\.1\.resize\.shorter'.*seen 'small'"),
        ),
        (["augment=[bend]"], pytest.raises(ConfigError, match=r"'augment\.0'.*unknown transform.*'bend'")),
        (
            ["train.0.augment=[{crop: {height: tall}}]"],
            pytest.raises(ConfigError, match=r"'train\.0\.augment\.0\.crop\.height'"),
        ),
        (
            ["augment=[{rotate: {degrees: 3}}]", "paste=0.5"],
            pytest.raises(ConfigError, match="paste needs frames of one"),
        ),
        (["augment=[crop]", "train.0.augment=[flip]", "paste=0.5"], pytest.raises(ConfigError, match="paste needs")),
        (["augment=[crop]", "paste=0.5"], nullcontext(lambda r: r.paste == 0.5)),
        (["accumulate=0"], pytest.raises(ConfigError, match="'accumulate'")),
        (["num_nodes=2"], nullcontext(lambda r: r.num_nodes == 2)),
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
        ("", "is not a recipe"),
        ("- 1", "is not a recipe"),
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


@pytest.mark.parametrize(
    ("old", "now"),
    [
        ("augment={style: published, sizes: [360]}", r"larger_than: \[input, input\].*rotate.*crop"),
        ("augment={sizes: [360], flip: none}", "larger_than"),
        ("augment={style: detr}", "crop_between: {smallest: 384"),
        ("augment={style: scaled}", "rescale: {limits: SCALES"),
        ("augment={style: window, paste: 0.5}", "moving_window: {zoom.*paste as a field of the recipe"),
        ("train.0.motion=0.1", "'train.0': motion was replaced: write .*augment of this data set"),
        ("optim.backbone_factor=0.1", "'optim': backbone_factor was replaced: write groups: .*lr_factor"),
        ("optim.factors={mask: 2}", "factors was replaced: write groups"),
        ("optim.decay_factors={norm: 0}", "decay_factors was replaced: write groups"),
        ("optim.milestones=[6100]", "milestones was replaced: write schedule: {kind: steps"),
        ("optim.gamma=0.1", "gamma was replaced: write schedule"),
        ("optim.schedule=step", "'optim.schedule'.*'steps'"),
    ],
)
def test_fields_of_the_earlier_format_say_what_to_write(tmp_path, old, now):
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    with pytest.raises(ConfigError, match=now):
        load_recipe(path, [old])


@pytest.mark.parametrize("name", ["defvis_inst_r50_ytvis2019", "tevit_swin_l_ytvis2019", "visolo_tiny_mini"])
def test_a_written_recipe_is_read_again_as_it_was(tmp_path, name):
    """As `train` writes it into the output folder."""
    recipe = load_recipe(name, ["seed=7"])
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
    assert load_recipe(path) == recipe


def test_a_data_set_may_have_transforms_of_its_own():
    recipe = load_recipe("visolo_tiny_mini")
    motions = [recipe.transforms(part).steps[0].motion for part in recipe.train]
    assert motions == [0.1, 0.2, 0.2]


def test_the_folder_of_the_data_is_needed_for_relative_paths_only(tmp_path, monkeypatch):
    monkeypatch.delenv("VISDEPLOY_DATA", raising=False)
    recipe = load_recipe("visolo_tiny_mini")
    assert recipe.path(str(tmp_path / "a.json")) == tmp_path / "a.json"
    with pytest.raises(ConfigError, match="VISDEPLOY_DATA is not set"):
        recipe.path("a.json")
