"""Gates, routing, alignment and heads of TPR against their formulas, on small maps."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d

from tests.visdeploy_training.methods.tpr.conftest import pyramid, small_network
from visdeploy.errors import ConfigError
from visdeploy_training import create_model
from visdeploy_training.methods.tpr import TPR
from visdeploy_training.methods.tpr.backbone import SWIN
from visdeploy_training.methods.tpr.gates import GatedBlock, Gates, SpatialGate
from visdeploy_training.methods.tpr.head import BasisModule, TrackHead
from visdeploy_training.methods.tpr.routing import PyramidConvolution, RoutingCells

pytestmark = pytest.mark.isa

CHANNELS, GROUPS = 8, 4
SMALL_SWIN = {"dim": 8, "depths": (1, 1, 2, 1), "heads": (1, 1, 2, 2)}


def identity_gate() -> SpatialGate:
    """Return a gate whose activation is its input of one channel."""
    gate = SpatialGate(1)
    with torch.no_grad():
        gate.gate_conv.weight.zero_()[0, 0, 1, 1] = 1.0
        gate.gate_conv.bias.zero_()
    return gate


@torch.no_grad()
def test_a_gate_is_zero_for_no_activation_and_below_one():
    """Odd lengths, because vectors and the remaining elements are computed by different code."""
    positive = torch.cat([torch.logspace(-5, 1, 301), torch.tensor([1.5, 3.0])])
    activation = torch.cat([-positive.flip(0), torch.tensor([-0.0, 0.0]), positive])
    gate = identity_gate()(activation.view(1, 1, 1, -1)).flatten()
    assert not gate[activation <= 0].any()
    assert (gate[activation > 0] > 0).all()
    assert (gate[activation < 5] < 1).all()
    assert gate.max() <= 1
    tau = math.tanh(1.5)
    expected = [max(0.0, (math.tanh(a - 1.5) + tau) / (1 + tau)) for a in activation.tolist()]
    torch.testing.assert_close(gate, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def literal_block(block: GatedBlock, x: Tensor) -> Tensor:
    """Compute the evaluation of a block for one image `[C, H, W]` position by position, in float64."""
    x = x.double()
    _, height, width = x.shape
    weight, bias = block.gate.gate_conv.weight.detach().double(), block.gate.gate_conv.bias.detach().double()
    border, tau = (1, 1, 1, 1), math.tanh(1.5)
    places = [(i, j) for i in range(height) for j in range(width)]

    def at(source: Tensor, kernel: Tensor, place: tuple[int, int]) -> Tensor:
        i, j = place
        return (kernel * F.pad(source, border)[:, i : i + 3, j : j + 3]).sum(dim=(1, 2, 3))

    activation = {p: float(at(x, weight, p) + bias) for p in places}
    gate = {p: max(0.0, (math.tanh(a - 1.5) + tau) / (1 + tau)) for p, a in activation.items()}
    second = [p for p in places if gate[p] > 0]
    first = [(i, j) for i, j in places if any(abs(i - k) <= 1 and abs(j - m) <= 1 for k, m in second)]

    def normed(conv: torch.nn.Module, source: Tensor, active: list[tuple[int, int]]) -> Tensor:
        out, norm = torch.zeros_like(x), conv.norm
        if active:
            values = torch.stack([at(source, conv.weight.detach().double(), p) for p in active], dim=1)
            grouped = values.view(norm.num_groups, -1)
            mean = grouped.mean(dim=1, keepdim=True)
            variance = (grouped - mean).square().mean(dim=1, keepdim=True)
            values = ((grouped - mean) / (variance + 1e-5).sqrt()).view_as(values)
            values = values * norm.weight.detach().double()[:, None] + norm.bias.detach().double()[:, None]
            for k, (i, j) in enumerate(active):
                out[:, i, j] = values[:, k]
        return out

    h = normed(block.bottleneck.conv1, x, first).relu()
    h = normed(block.bottleneck.conv2, h, second)
    for (i, j), value in gate.items():
        h[:, i, j] *= value
    return (h + x).relu()


def block_of(bias: float) -> GatedBlock:
    torch.manual_seed(2)
    block = GatedBlock(CHANNELS, GROUPS).eval()
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.constant_(block.gate.gate_conv.bias, bias)
    return block


@torch.no_grad()
@pytest.mark.parametrize("bias", [-1e3, -4.0, -1.0, 0.0, 1e3])
def test_the_evaluation_of_a_block_follows_the_formula(bias: float):
    """Statistics are those of the active positions of each image; no gate, few, about half or all are open."""
    block, x = block_of(bias), torch.randn(2, CHANNELS, 5, 6, generator=torch.Generator().manual_seed(1))
    gates = Gates()
    found = block(x, gates)
    expected = torch.stack([literal_block(block, each) for each in x])
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    opened = gates.opened[0]
    if abs(bias) > 100:
        assert opened.tolist() == [float(bias > 0)] * 2
        dense = block.train()(x)
        assert torch.equal(found, x.relu()) is (bias < 0)
        torch.testing.assert_close(dense, x.relu() if bias < 0 else found)
    else:
        assert opened.any()
        assert (opened < 1).all()
        assert (block.train()(x) - found).abs().max() > 1e-3, "the dense form has other statistics"
    assert (found >= 0).all()


@torch.no_grad()
def test_one_open_gate():
    block = block_of(-1e3)
    x = torch.randn(1, CHANNELS, 4, 5)
    x[0, 0].zero_()[0, 4] = 1.0
    block.gate.gate_conv.weight.zero_()[0, 0, 1, 1] = 1e3 + 2
    found = block(x)
    torch.testing.assert_close(found[0].double(), literal_block(block, x[0]), rtol=1e-4, atol=1e-5)
    closed = torch.ones(4, 5, dtype=torch.bool)
    closed[0, 4] = False
    assert torch.equal(found[0][:, closed], x[0][:, closed].relu())


def test_costs_of_the_gates():
    """Multiplications at a position: convolution and norm; the first convolution covers the neighbours of gates."""
    block, gates = block_of(-1.0).train(), Gates()
    x = torch.randn(2, CHANNELS, 5, 6)
    block(x, gates)
    gate = block.gate(x)
    around = F.max_pool2d(gate, 3, stride=1, padding=1)
    soft, used = gates.shares()
    torch.testing.assert_close(soft, (gate + around).mean(dim=(1, 2, 3)) / 2)
    torch.testing.assert_close(used, ((gate > 0).float() + (around > 0).float()).mean(dim=(1, 2, 3)) / 2)
    assert soft.requires_grad
    assert not used.requires_grad
    assert gates.full[0].tolist() == [(9 * CHANNELS**2 + CHANNELS) * 30] * 2


def conv_of(layer: PyramidConvolution, kind: int, position: int, x: Tensor) -> Tensor:
    """Compute a convolution of the layer for the level at this position of the list, with the operators of torch."""
    conv, stride = layer.Pconv[kind], (1, 1, 2)[kind]
    if position == 0:
        return F.conv2d(x, conv.weight, conv.bias, stride=stride, padding=1)
    offset = F.conv2d(x, conv.conv_offset.weight, conv.conv_offset.bias, stride=stride, padding=1)
    return deform_conv2d(x, offset, conv.weight, conv.bias, stride=stride, padding=1)


@torch.no_grad()
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("size", [(96, 160), (160, 288)])
def test_pyramid_convolution(first: int, size: tuple[int, int]):
    """Only the finest level of the list has ordinary convolutions, whichever level of the pyramid that is."""
    torch.manual_seed(3)
    layer = PyramidConvolution(CHANNELS, GROUPS)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    levels = pyramid(*size, channels=CHANNELS)[first:]
    found = layer(levels)
    for i, x in enumerate(levels):
        y = conv_of(layer, 1, i, x)
        if i > 0:
            y = y + conv_of(layer, 2, i, levels[i - 1])
        if i + 1 < len(levels):
            coarse = conv_of(layer, 0, i, levels[i + 1])
            y = y + F.interpolate(coarse, size=y.shape[-2:], mode="bilinear", align_corners=True)
        torch.testing.assert_close(found[i], y.relu(), rtol=1e-4, atol=1e-4)
    for conv in layer.Pconv:
        conv.conv_offset.bias.add_(0.7)
    moved = layer(levels)
    assert torch.equal(moved[0], found[0])
    assert not any(torch.equal(a, b) for a, b in zip(moved[1:], found[1:], strict=True))


@torch.no_grad()
def test_routing_cells():
    torch.manual_seed(4)
    layer = RoutingCells(CHANNELS, GROUPS).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    levels = pyramid(96, 160, channels=CHANNELS)
    found = layer(levels)

    def branch(k: int, x: Tensor, like: Tensor) -> Tensor:
        part = layer.dynamic_convs[k]
        conv, norm = part.convs
        h = F.conv2d(x, conv.weight, conv.bias, padding=1, groups=CHANNELS)
        h = part.gate(x) * F.group_norm(h, GROUPS, norm.weight, norm.bias, 1e-5)
        return F.interpolate(h, size=like.shape[-2:], mode="bilinear", align_corners=True)

    for i, x in enumerate(levels):
        z = layer.output_weight * x
        if i > 0:
            z = z + layer.scale_weight * branch(0, levels[i - 1], x)
        if i + 1 < len(levels):
            z = z + layer.scale_weight * branch(1, levels[i + 1], x)
        torch.testing.assert_close(found[i], layer.depth_module(z), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_a_level_is_a_mean_of_the_query_and_of_both_aligned_frames(network: TPR):
    align = network.temporal_align
    assert align is not None
    (reference, *_), (query, *_) = pyramid(96, 160, batch=2), pyramid(96, 160, batch=2, seed=1)
    raw = align.offset_gen(torch.cat([reference, query], dim=1))
    moved = [
        deform_conv2d(x, part[:, :18], conv.weight, padding=1, mask=part[:, 18:].sigmoid())
        for x, part, conv in ((reference, raw[:, :27], align.fuse2_1), (query, raw[:, 27:], align.fuse2_2))
    ]
    both = torch.cat(moved, dim=1)
    outer = F.conv2d(both, align.gate.weight, align.gate.bias).sigmoid()
    first, *blocks = align.align_tower
    offset = F.conv2d(both, first.offset.weight, first.offset.bias)
    tower = deform_conv2d(both, offset[:, :2], first.conv.weight, mask=offset[:, 2:].sigmoid())
    for block in blocks:
        tower = block(tower)
    torch.testing.assert_close(align.align(reference, query), outer * query + (1 - outer) * tower, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 160), (160, 288), (128, 256)])
def test_levels_are_aligned_from_fine_to_coarse(network: TPR, size: tuple[int, int]):
    """The published order; p5 and p6 are routed again with p7, which does not change their results."""
    align = network.temporal_align
    assert align is not None
    reference, query = pyramid(*size), pyramid(*size, seed=1)
    kept = [[x.clone() for x in levels] for levels in (reference, query)]
    levels, expected = list(query), []
    for i in range(5):
        levels[i] = align.align(reference[i], levels[i])
        for layer in align.fuse_subnets[i]:
            if i < 3:
                levels[i:] = layer(levels[i:])
            else:
                levels[2:] = layer(levels[2:])
        expected.append(levels[i])
    found = align(reference, query)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    for before, after in zip(kept, (reference, query), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("level", range(5))
def test_a_level_of_the_reference_reaches_no_finer_one(network: TPR, level: int):
    align = network.temporal_align
    assert align is not None
    reference, query = pyramid(96, 160), pyramid(96, 160, seed=1)
    before = align(reference, query)
    reference[level] = reference[level] + 1
    changed = [not torch.equal(a, b) for a, b in zip(before, align(reference, query), strict=True)]
    assert changed == [i >= level for i in range(5)]


@torch.no_grad()
def test_pairs_of_a_batch_do_not_meet(network: TPR):
    reference, query = pyramid(96, 160, batch=2), pyramid(96, 160, batch=2, seed=1)
    align = network.temporal_align
    assert align is not None
    together, alone = align(reference, query), align([x[1:] for x in reference], [x[1:] for x in query])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:], b, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("backbone", ["efficientnet_lite0", "resnet50", "swin_t"])
@pytest.mark.parametrize("size", [(96, 160), (160, 96), (128, 256), (32, 64)])
def test_sizes_of_the_pyramid_are_rounded_up(monkeypatch: pytest.MonkeyPatch, backbone: str, size: tuple[int, int]):
    """Maps of p5 have 3x5 cells, so that those of p6 and p7 have 2x3 and 1x2."""
    monkeypatch.setitem(SWIN, "swin_t", SMALL_SWIN)
    model = small_network(backbone=backbone)
    images = torch.randn(1, 3, *size)
    levels = model.backbone(images)
    assert [tuple(x.shape[2:]) for x in levels] == [
        (-(-size[0] // stride), -(-size[1] // stride)) for stride in (8, 16, 32, 64, 128)
    ]
    source = levels[2] if backbone == "swin_t" else model.backbone.bottom_up(images)["res5"]
    block = model.backbone.top_block
    torch.testing.assert_close(levels[3], block.p6(source))
    torch.testing.assert_close(levels[4], block.p7(levels[3].relu()))
    if backbone == "swin_t":
        finest = model.backbone(images, finest=True)
        assert tuple(finest[0].shape[2:]) == (size[0] // 4, size[1] // 4)
        assert all(torch.equal(a, b) for a, b in zip(finest[1:], levels, strict=True))


def pair(size: tuple[int, int] = (96, 160), *, batch: int = 1, frames: int = 2) -> Tensor:
    return torch.randn(batch, frames, 3, *size, generator=torch.Generator().manual_seed(7))


def test_frozen_stages_of_a_swin_transformer(monkeypatch: pytest.MonkeyPatch):
    """Patch embedding and first stage with its downsampling: no gradient, no random depth."""
    monkeypatch.setitem(SWIN, "swin_t", SMALL_SWIN)
    model = small_network("swin_t_routing", backbone="swin_t", drop_path=0.5).train()
    prefix = "backbone.bottom_up."
    frozen = (f"{prefix}patch_embed.", f"{prefix}stages.0.")
    output = model(pair())
    sum(x.square().sum() for x in (*output.class_logits, *output.attention, output.bases)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad is not name.startswith(frozen), name
        if name.startswith(f"{prefix}stages.1."):
            assert parameter.grad is not None, name
    for name, module in model.named_modules():
        assert module.training is not (f"{name}.").startswith(frozen), name
    assert not any(module.training for module in model.eval().modules())
    image = create_model("tpr", "swin_t_image", num_classes=2)
    assert all(parameter.requires_grad for parameter in image.parameters())


def test_frozen_stages_of_a_resnet():
    model = small_network("r50_sepc").train()
    frozen = ("backbone.bottom_up.stem.", "backbone.bottom_up.res2.")
    assert all(p.requires_grad is not name.startswith(frozen) for name, p in model.named_parameters())


def test_output_of_the_video_stage(network: TPR):
    output = network.train()(pair(batch=2))
    network.eval()
    assert [tuple(x.shape) for x in output.class_logits] == [
        (2, 3, 12, 20), (2, 3, 6, 10), (2, 3, 3, 5), (2, 3, 2, 3), (2, 3, 1, 2)
    ]  # fmt: skip
    assert {x.shape[1] for x in output.attention} == {2 * 4 * 4}
    assert (output.bases.shape, output.query_map.shape) == ((2, 2, 24, 40), (2, 8, 12, 20))
    assert all((x >= 0).all() for x in output.distances)
    assert ((output.soft_cost > 0) & (output.soft_cost < output.used_cost) & (output.used_cost < 1)).all()
    assert output.semantic is None


@torch.no_grad()
def test_the_reference_frame_is_not_aligned(network: TPR):
    """Its embeddings depend on it alone; those of the frame depend on both."""
    clips = pair()
    output = network(clips)
    assert network.track_head is not None
    torch.testing.assert_close(output.reference_map, network.track_head(network.backbone(clips[:, 1])))
    changed = clips.clone()
    changed[:, 1] += 1
    assert not torch.equal(network(changed).query_map, output.query_map)
    changed = clips.clone()
    changed[:, 0] += 1
    torch.testing.assert_close(network(changed).reference_map, output.reference_map)


def test_output_of_the_image_stage():
    model = small_network("tiny_image").train()
    assert (model.temporal_align, model.track_head) == (None, None)
    output = model(pair(batch=2, frames=3))
    assert {len(x) for x in (*output.class_logits, output.bases, output.soft_cost)} == {6}
    assert (output.query_map.shape, output.reference_map.shape) == ((6, 0, 12, 20), (6, 0, 12, 20))
    assert not output.soft_cost.any()
    assert output.semantic is not None
    assert output.semantic.shape == (6, 3, 12, 20)
    assert small_network("tiny_image", semantic=False)(pair()).semantic is None


@torch.no_grad()
def test_bases_and_embeddings(network: TPR):
    """Coarser levels are resized without aligned corners, unlike those of the routing."""
    bases, track = network.basis_module, network.track_head
    assert isinstance(bases, BasisModule)
    assert isinstance(track, TrackHead)
    levels = pyramid(96, 160)

    def raised(x: Tensor) -> Tensor:
        return F.interpolate(x, size=levels[0].shape[-2:], mode="bilinear", align_corners=False)

    merged = sum(raised(refine(x)) for refine, x in zip(bases.refine, levels[:3], strict=True))
    torch.testing.assert_close(bases(levels), bases.tower(merged), rtol=1e-4, atol=1e-4)
    features = torch.cat([raised(track.track_tower(x)) for x in levels[:3]], dim=1)
    torch.testing.assert_close(track(levels), track.sipmask_track(features), rtol=1e-4, atol=1e-4)
    vectors = track.features(levels)[0].flatten(1).T
    torch.testing.assert_close(track.project(vectors), track(levels)[0].flatten(1).T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("clip", "word"),
    [
        (torch.zeros(1, 2, 3, 96, 150), "96x150"),
        (torch.zeros(1, 2, 3, 16, 160), "16x160"),
        (torch.zeros(1, 3, 3, 96, 160), "3 frames"),
        (torch.zeros(1, 1, 3, 96, 160), "1 frames"),
    ],
)
def test_wrong_sizes_and_lengths_are_refused(network: TPR, clip: Tensor, word: str):
    with pytest.raises(ConfigError, match=word):
        network(clip)


@pytest.mark.parametrize(
    ("variant", "change"),
    [
        ("tiny", {"backbone": "vgg"}),
        ("tiny", {"cpr": "other"}),
        ("tiny", {"cpr_depths": (1, 1, 1, 1, -1)}),
        ("tiny", {"channels": 30}),
        ("tiny", {"height": 100}),
        ("tiny", {"deformable_backbone": True}),
        ("tiny", {"semantic": True}),
        ("tiny", {"class_prior": 0.0}),
        ("tiny", {"drop_path": 1.0}),
        ("tiny", {"max_objects": 0}),
        ("tiny", {"freeze_at": -1}),
        ("r50_sepc", {"score_threshold": 1.5}),
    ],
)
def test_wrong_configurations_are_refused(variant: str, change: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(change))):
        create_model("tpr", variant, num_classes=2, **change)
