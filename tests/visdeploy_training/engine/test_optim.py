"""Optimisers, parameter groups, schedules: against numbers worked out by hand."""

import math

import pytest
import torch
import yaml
from torch import nn

from visdeploy.errors import ConfigError
from visdeploy_training import create_model
from visdeploy_training.engine import load_recipe
from visdeploy_training.engine.optim import OptimRecipe, create_optimiser, learning_rate_factor, parameter_groups


def rates(optim, iterations, at, factor=1.0):
    """Return the learning rates that torch's scheduler sets, for a single parameter."""
    return [optim.lr * factor * learning_rate_factor(optim, iterations)(i) for i in at]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", {0: 1, 99: 1}),
        ({"kind": "steps", "milestones": [3, 6]}, {0: 1, 2: 1, 3: 0.1, 5: 0.1, 6: 0.01, 99: 0.01}),
        ({"kind": "steps", "milestones": [3], "gamma": 0.5}, {2: 1, 3: 0.5}),
        ("polynomial", {0: 1, 25: 0.75, 99: 0.01, 100: 0, 120: 0}),
        ({"kind": "polynomial", "power": 2, "end": 0.2}, {0: 1, 50: 0.2 + 0.8 * 0.25, 100: 0.2}),
        ({"kind": "polynomial", "start": 60}, {60: 1, 80: 0.5, 100: 0}),
        ({"kind": "exponential", "gamma": 0.9}, {0: 1, 1: 0.9, 3: 0.729}),
        ({"kind": "exponential", "gamma": 0.25, "every": 10}, {0: 1, 5: 0.5, 10: 0.25, 20: 0.0625}),
        ({"kind": "exponential", "gamma": 0.25, "every": 10, "staircase": True}, {5: 1, 9: 1, 10: 0.25, 20: 0.0625}),
        ({"kind": "exponential", "gamma": 0.5, "start": 7}, {0: 1, 7: 1, 8: 0.5, 10: 0.125}),
        ("cosine", {0: 1, 25: 0.5 + math.sqrt(0.5) / 2, 50: 0.5, 100: 0, 120: 0}),
        ({"kind": "cosine", "end": 0.1, "start": 20}, {20: 1, 60: 0.55, 100: 0.1}),
    ],
)
def test_schedules(schedule, expected):
    factor = learning_rate_factor(OptimRecipe(schedule=schedule), 100)
    assert {i: factor(i) for i in expected} == pytest.approx(expected, abs=1e-12)


def test_a_decay_that_starts_after_the_end_never_starts():
    factor = learning_rate_factor(OptimRecipe(schedule={"kind": "cosine", "start": 50}), 20)
    assert [factor(i) for i in (0, 20, 50)] == [1, 1, 1]


@pytest.mark.parametrize("kind", ["constant", "polynomial", "cosine"])
def test_warm_up_multiplies_every_schedule(kind):
    plain = learning_rate_factor(OptimRecipe(schedule=kind), 100)
    warm = learning_rate_factor(OptimRecipe(schedule=kind, warmup=4, warmup_start=0.2), 100)
    default = learning_rate_factor(OptimRecipe(schedule=kind, warmup=4), 100)
    for i, named, own in ((0, 0.2, 0.2), (1, 0.4, 0.4), (3, 0.8, 0.8), (4, 1, 1), (50, 1, 1)):
        assert warm(i) == pytest.approx(named * plain(i))
        assert default(i) == pytest.approx(own * plain(i))  # 1/5 is the default start of 4 iterations


def recipe_of(text):
    return OptimRecipe.model_validate(yaml.safe_load(text))


def test_detectron2_s_settings_can_be_written():
    """SGD, steps, linear warm-up over 1000 iterations from 0.001, no decay of norms: as TPR trains."""
    optim = recipe_of("""
        kind: sgd
        lr: 0.005
        momentum: 0.9
        weight_decay: 1.0e-4
        groups: [{type: norm, decay_factor: 0.0}]
        schedule: {kind: steps, milestones: [7680, 10560], gamma: 0.1}
        warmup: 1000
        warmup_start: 0.001
    """)
    found = rates(optim, 11520, [0, 500, 999, 1000, 7679, 7680, 10559, 10560, 11519])
    assert found == pytest.approx([5e-6, 2.5025e-3, 4.995005e-3, 5e-3, 5e-3, 5e-4, 5e-4, 5e-5, 5e-5])
    optimiser = create_optimiser(nn.Sequential(nn.Conv2d(1, 2, 1), nn.GroupNorm(1, 2)), optim)
    assert type(optimiser) is torch.optim.SGD
    assert [(g["momentum"], g["nesterov"], g["weight_decay"]) for g in optimiser.param_groups] == [
        (0.9, False, 1e-4),
        (0.9, False, 0.0),
    ]


def test_exponential_decay_with_nesterov_can_be_written():
    """As STEm-Seg and VIShv train: a hundredth in 100,000 iterations, the first reduction at iteration 60,000."""
    optim = recipe_of("""
        kind: sgd
        lr: 1.0e-3
        momentum: 0.9
        nesterov: true
        weight_decay: 1.0e-4
        schedule: {kind: exponential, gamma: 0.01, every: 100000, start: 59999}
    """)
    found = rates(optim, 160_000, [0, 59_999, 60_000, 109_999, 159_999])
    assert found == pytest.approx([1e-3, 1e-3, 1e-3 * 0.99995394936, 1e-4, 1e-5], rel=1e-9)
    (group,) = create_optimiser(nn.Linear(1, 1), optim).param_groups
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


def test_polynomial_decay_with_accumulation_can_be_written(tmp_path):
    recipe = {
        "method": "visolo",
        "variant": "tiny",
        "classes": ["person"],
        "train": [{"annotations": "a.json", "images": "i", "layout": "ytvis"}],
        "batch_size": 1,
        "accumulate": 8,
        "iterations": 1000,
        "output": "out",
        "optim": {"kind": "adamw", "lr": 1e-4, "schedule": {"kind": "polynomial", "power": 0.9}},
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    found = load_recipe(tmp_path / "r.yaml")
    assert found.accumulate == 8
    # 0.5 ** 0.9 and 0.001 ** 0.9
    assert rates(found.optim, found.iterations, [0, 500, 999]) == pytest.approx([1e-4, 0.5358867e-4, 1.9952623e-7])
    (group,) = create_optimiser(nn.Linear(1, 1), found.optim).param_groups
    assert (group["betas"], group["weight_decay"]) == ((0.9, 0.999), 1e-4)


def after_steps(optim, gradients):
    """Return a weight that starts at 1, after steps with given gradients."""
    layer = nn.Linear(1, 1, bias=False)
    nn.init.ones_(layer.weight)
    optimiser = create_optimiser(layer, optim)
    for gradient in gradients:
        layer.weight.grad = torch.tensor([[gradient]])
        optimiser.step()
    return float(layer.weight.detach())


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # v = 1, then 0.5 + 1 = 1.5: the weight falls by 0.1 v
        ({"kind": "sgd", "momentum": 0.5}, 1 - 0.1 * 1 - 0.1 * 1.5),
        # Nesterov's step is the gradient plus half of v
        ({"kind": "sgd", "momentum": 0.5, "nesterov": True}, 1 - 0.1 * 1.5 - 0.1 * 1.75),
        # weight decay adds 0.2 times the weight to the gradient
        ({"kind": "sgd", "weight_decay": 0.2}, (1 - 0.1 * 1.2) * (1 - 0.1 * 0.2) - 0.1),
        # equal gradients: the bias-corrected averages are 1, so each step is the learning rate
        ({"kind": "adamw"}, 0.8),
        # decoupled: the weight shrinks by 0.1 * 0.2 before each step
        ({"kind": "adamw", "weight_decay": 0.2}, (0.98 - 0.1) * 0.98 - 0.1),
        ({"kind": "adamw", "betas": (0.0, 0.0)}, 0.8),
    ],
)
def test_optimisers_step_as_their_formulas_say(fields, expected):
    optim = OptimRecipe.model_validate({"lr": 0.1, "weight_decay": 0.0} | fields)
    assert after_steps(optim, [1.0, 1.0]) == pytest.approx(expected, abs=1e-6)


class Small(nn.Module):
    """One module of each type, with a convolution that is called like a norm."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.ModuleDict({"conv": nn.Conv2d(1, 2, 1), "norm": nn.BatchNorm2d(2)})
        self.norm_conv = nn.ConvTranspose2d(2, 2, 1)
        self.head = nn.ModuleDict({"linear": nn.Linear(2, 2), "ln": nn.LayerNorm(2), "rms": nn.RMSNorm(2)})
        self.query = nn.Embedding(3, 2)


def settings(groups, model=None):
    """Return learning rate and weight decay of every parameter, with base values of 1."""
    model = model or Small()
    optim = OptimRecipe.model_validate({"lr": 1.0, "weight_decay": 1.0, "groups": groups})
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(p)]: (group["lr"], group["weight_decay"])
        for group in parameter_groups(model, optim)
        for p in group["params"]
    }


@pytest.mark.parametrize(
    ("group", "members"),
    [
        ({"type": "norm"}, ["backbone.norm", "head.ln", "head.rms"]),
        ({"type": "conv"}, ["backbone.conv", "norm_conv"]),
        ({"type": "linear"}, ["head.linear"]),
        ({"type": "embedding"}, ["query"]),
        ({"name": "norm"}, ["backbone.norm", "norm_conv"]),
        ({"name": "backbone", "type": "norm"}, ["backbone.norm"]),
        ({"name": "bias"}, [".bias"]),
    ],
)
def test_groups_by_name_and_by_type(group, members):
    found = settings([{**group, "lr_factor": 0.5, "decay_factor": 0.0}])
    assert len(found) == len(list(Small().parameters()))
    inside = {name for name in found if any(name.startswith(m) or (m == ".bias" and m in name) for m in members)}
    assert {name for name, value in found.items() if value == (0.5, 0.0)} == inside
    assert {value for name, value in found.items() if name not in inside} == {(1.0, 1.0)}


def test_the_last_group_that_gives_a_factor_decides():
    """For the learning rate and the weight decay each on its own."""
    groups = [
        {"type": "norm", "decay_factor": 0.0},
        {"name": "backbone", "lr_factor": 0.1},
        {"name": "backbone.norm", "lr_factor": 0.2},
        {"type": "conv", "decay_factor": 0.5},
    ]
    found = settings(groups)
    assert found["backbone.norm.weight"] == (0.2, 0.0)
    assert found["backbone.conv.weight"] == (0.1, 0.5)
    assert found["head.ln.bias"] == (1.0, 0.0)
    assert found["head.linear.bias"] == (1.0, 1.0)
    assert settings(groups[::-1])["backbone.norm.weight"] == (0.1, 0.0)


def test_frozen_parameters_are_left_out_and_may_be_all_that_a_group_matches():
    model = Small()
    model.backbone.requires_grad_(False)
    found = settings([{"name": "backbone", "lr_factor": 0.1}], model)
    assert not any(name.startswith("backbone") for name in found)
    assert set(found.values()) == {(1.0, 1.0)}


@pytest.mark.parametrize("group", [{"name": "bakbone"}, {"name": "query", "type": "norm"}])
def test_a_group_that_matches_nothing_is_refused(group):
    with pytest.raises(ConfigError, match=r"optim\.groups\.1 matches no parameter.*(bakbone|query)"):
        settings([{"type": "norm", "lr_factor": 2.0}, {**group, "lr_factor": 0.1}])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.kind=lion", r"'optim\.kind'.*'adamw' or 'sgd', seen 'lion'"),
        ("optim.schedule=linear", r"'optim\.schedule'.*'polynomial'.*'cosine'"),
        ("optim.schedule={milestones: [3]}", r"'optim\.schedule'.*'kind'"),
        ("optim.schedule={kind: steps}", r"'optim\.schedule\.steps\.milestones'.*required"),
        ("optim.schedule={kind: cosine, gamma: 0.1}", r"'optim\.schedule\.cosine\.gamma'"),
        ("optim.schedule={kind: exponential, gamma: 2}", r"'optim\.schedule\.exponential\.gamma'"),
        ("optim={kind: adamw, momentum: 0.9}", "momentum and nesterov are parameters of kind sgd"),
        ("optim={kind: sgd, betas: [0.8, 0.9]}", "betas are parameters of kind adamw"),
        ("optim={kind: sgd, nesterov: true}", "needs a momentum"),
        ("optim.warmup=-1", r"'optim\.warmup'"),
        ("optim.groups=[{name: backbone}]", r"'optim\.groups\.0'.*lr_factor or decay_factor"),
        ("optim.groups=[{lr_factor: 0.1}]", r"'optim\.groups\.0'.*name or a type"),
        ("optim.groups=[{type: pool, lr_factor: 0.1}]", r"'optim\.groups\.0\.type'.*'norm'"),
        ("optim.groups=[{name: backbone, lr: 0.1, lr_factor: 1}]", r"'optim\.groups\.0\.lr'.*not permitted"),
    ],
)
def test_mistakes_name_the_field(override, message):
    with pytest.raises(ConfigError, match=message):
        load_recipe("tevit_tiny_two", [override])


def test_warm_up_from_a_named_start():
    """Published warm-up of TeViT."""
    optim = load_recipe("tevit_msgshift_ytvis2019").optim
    factor = learning_rate_factor(optim, 9200)
    assert [factor(i) for i in (0, 1, 300, 769)] == [pytest.approx(1 - (1 - i / 770) * 0.999) for i in (0, 1, 300, 769)]
    assert [factor(i) for i in (770, 6099, 6100, 8500)] == pytest.approx([1, 1, 0.1, 0.01])


@pytest.mark.parametrize("variant", ["msgshift", "msgshift_mst", "r50", "swin_l"])
def test_published_groups_of_tevit(variant):
    """Published parameter groups: the parameters with a lower learning rate and those without weight decay."""
    with torch.device("meta"):
        model = create_model("tevit", variant, num_classes=40)
    groups = parameter_groups(model, load_recipe(f"tevit_{variant}_ytvis2019").optim)
    found = {id(p): (g["lr"], g["weight_decay"]) for g in groups for p in g["params"]}
    assert len(found) == sum(len(g["params"]) for g in groups) == sum(p.requires_grad for p in model.parameters())
    for name, parameter in model.named_parameters():
        body = name.startswith("backbone.")
        expected = (2.5e-5 if body else 2.5e-4, 1e-4)
        norm = not body and ("norm." in name or "norm_" in name)
        if variant == "swin_l" and (norm or name.endswith("relative_position_bias_table")):
            expected = (2.5e-4, 0.0)
        if parameter.requires_grad:
            assert found[id(parameter)] == pytest.approx(expected), name
    if variant == "swin_l":  # 24 blocks; 6 norms in a head's stage and 2 in a mask head's, weight and bias
        tables = sum("bias_table" in n for n, _ in model.named_parameters())
        assert sum(decay == 0 for _, decay in found.values()) == tables + 6 * 2 * (6 + 2)
        assert tables == 24
    assert (variant == "r50") == (len(found) < len(list(model.parameters())))  # stem and first stage are frozen
