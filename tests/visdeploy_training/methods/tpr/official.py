"""Names and shapes of official checkpoints of TPR, built from the published naming, not from our renaming."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch

Shape = tuple[int, ...]
Entries = Iterator[tuple[str, Shape]]

RESNETS = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
SWINS: dict[str, tuple[int, Sequence[int], Sequence[int]]] = {
    "swin_t": (96, (2, 2, 6, 2), (3, 6, 12, 24)),
    "swin_b": (128, (2, 2, 18, 2), (4, 8, 16, 32)),
    "swin_l": (192, (2, 2, 18, 2), (6, 12, 24, 48)),
}
DEPTHS = {"sepc": (3, 2, 2, 1, 1), "routing": (3, 2, 1, 1, 1)}
INTEGERS = ("num_batches_tracked", "relative_position_index")
STATISTICS = ("weight", "bias", "running_mean", "running_var")
BODY, HEAD, ALIGN = "backbone.bottom_up", "proposal_generator.fcos_head", "temporal_align"
WIDTH, HIDDEN = 256, 128


def layout(
    backbone: str,
    cpr: str = "",
    *,
    depths: Sequence[int] = (),
    classes: int = 40,
    deformable_backbone: bool = False,
    deformable_tower: bool = False,
    semantic: bool = False,
) -> dict[str, Shape]:
    """Return the shape of every tensor by its official name.

    Args:
        backbone: Name of the backbone.
        cpr: Kind of the routing layers; empty for BlendMask, the network of the pre-training.
        depths: Number of routing layers of the levels; by default as published.
        classes: Number of classes.
        deformable_backbone: Modulated deformable convolutions in the last two stages of a ResNet.
        deformable_tower: A modulated deformable convolution at the end of the detection towers.
        semantic: The auxiliary head of the pre-training.
    """
    swin = backbone in SWINS
    found = dict(_swin(*SWINS[backbone]) if swin else _resnet(RESNETS[backbone], deformable_backbone))
    found |= dict(_pyramid(SWINS[backbone][0] if swin else 0)) | dict(_head(classes, deformable_tower))
    found |= dict(_conv("top_layer", 4 * 14 * 14, WIDTH)) | dict(_bases())
    if semantic:
        for i, width in ((0, WIDTH), (3, HIDDEN)):
            found |= dict(_conv(f"basis_module.seg_head.{i}", HIDDEN, width, bias=False))
            found |= dict(_batch_norm(f"basis_module.seg_head.{i + 1}"))
        found |= dict(_conv("basis_module.logits", classes, HIDDEN, 1))
    if cpr:
        found |= dict(_align()) | dict(_track_head())
        for i, depth in enumerate(depths or DEPTHS[cpr]):
            for j in range(depth):
                name = f"{ALIGN}.fuse_subnets.{i}.{j}"
                found |= dict(_sepc(name) if cpr == "sepc" else _routing(name))
    return found


def state(shapes: Mapping[str, Shape], value: float = 0.5) -> dict[str, torch.Tensor]:
    """Return a state dict that holds one value in memory for each tensor."""
    integer, number = torch.zeros((), dtype=torch.int64), torch.tensor(value)
    return {k: (integer if k.endswith(INTEGERS) else number.clone()).expand(s) for k, s in shapes.items()}


def _conv(name: str, cout: int, cin: int, kernel: int = 3, *, bias: bool = True) -> Entries:
    yield f"{name}.weight", (cout, cin, kernel, kernel)
    if bias:
        yield f"{name}.bias", (cout,)


def _norm(name: str, width: int = WIDTH) -> Entries:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _batch_norm(name: str) -> Entries:
    yield from ((f"{name}.{leaf}", (HIDDEN,)) for leaf in STATISTICS)
    yield f"{name}.num_batches_tracked", ()


def _modulated(name: str, cin: int, kernel: int, *, bias: bool) -> Entries:
    """Yield a modulated deformable convolution with the convolution of its offsets and factors."""
    yield from _conv(f"{name}.offset", 3 * kernel**2, cin, kernel)
    yield from _conv(f"{name}.conv", WIDTH, cin, kernel, bias=bias)


def _resnet(depths: Sequence[int], deformable: bool) -> Entries:
    def unit(name: str, cout: int, cin: int, kernel: int) -> Entries:
        yield from _conv(name, cout, cin, kernel, bias=False)
        yield from ((f"{name}.norm.{leaf}", (cout,)) for leaf in STATISTICS)

    yield from unit(f"{BODY}.stem.conv1", 64, 3, 7)
    cin = 64
    for i, depth in enumerate(depths):
        width, cout = 64 * 2**i, 256 * 2**i
        for k in range(depth):
            name = f"{BODY}.res{i + 2}.{k}"
            if k == 0:
                yield from unit(f"{name}.shortcut", cout, cin, 1)
            yield from unit(f"{name}.conv1", width, cin, 1)
            if deformable and i >= 2:
                yield from _conv(f"{name}.conv2_offset", 3 * 9, width)
            yield from unit(f"{name}.conv2", width, width, 3)
            yield from unit(f"{name}.conv3", cout, width, 1)
            cin = cout


def _swin(dim: int, depths: Sequence[int], heads: Sequence[int]) -> Entries:
    yield from _conv(f"{BODY}.patch_embed.proj", dim, 3, 4)
    yield from _norm(f"{BODY}.patch_embed.norm", dim)
    for i, (depth, count) in enumerate(zip(depths, heads, strict=True)):
        width = dim * 2**i
        yield from _norm(f"{BODY}.norm{i}", width)
        for j in range(depth):
            name = f"{BODY}.layers.{i}.blocks.{j}"
            yield from _norm(f"{name}.norm1", width)
            yield from _norm(f"{name}.norm2", width)
            yield f"{name}.attn.relative_position_bias_table", (13 * 13, count)
            yield f"{name}.attn.relative_position_index", (49, 49)
            linear = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
            for part, (rows, columns) in linear.items():
                yield f"{name}.{part}.weight", (rows * width, columns * width)
                yield f"{name}.{part}.bias", (rows * width,)
        if i + 1 < len(depths):
            yield f"{BODY}.layers.{i}.downsample.reduction.weight", (2 * width, 4 * width)
            yield from _norm(f"{BODY}.layers.{i}.downsample.norm", 4 * width)


def _pyramid(dim: int) -> Entries:
    """Yield the pyramid of a Swin Transformer with `dim` channels in its first stage, or of a ResNet (0)."""
    for level in range(2 if dim else 3, 6):
        yield from _conv(f"backbone.fpn_lateral{level}", WIDTH, (dim or 256) * 2 ** (level - 2), 1)
        yield from _conv(f"backbone.fpn_output{level}", WIDTH, WIDTH)
    yield from _conv("backbone.top_block.p6", WIDTH, WIDTH if dim else 2048)
    yield from _conv("backbone.top_block.p7", WIDTH, WIDTH)


def _head(classes: int, deformable: bool) -> Entries:
    for tower in ("cls_tower", "bbox_tower"):
        for i in range(4):
            name = f"{HEAD}.{tower}.{3 * i}"
            modulated = deformable and i == 3
            yield from _modulated(name, WIDTH, 3, bias=True) if modulated else _conv(name, WIDTH, WIDTH)
            yield from _norm(f"{HEAD}.{tower}.{3 * i + 1}")
    for name, cout in (("cls_logits", classes), ("bbox_pred", 4), ("ctrness", 1)):
        yield from _conv(f"{HEAD}.{name}", cout, WIDTH)
    yield from ((f"{HEAD}.scales.{i}.scale", (1,)) for i in range(5))


def _bases() -> Entries:
    for name, cin in (("refine", WIDTH), ("tower", HIDDEN)):
        for i in (0, 1, 2) if name == "refine" else (0, 1, 2, 4):
            yield from _conv(f"basis_module.{name}.{i}.0", HIDDEN, cin, bias=False)
            yield from _batch_norm(f"basis_module.{name}.{i}.1")
    yield from _conv("basis_module.tower.5", 4, HIDDEN, 1)


def _track_head() -> Entries:
    for i in (0, 3):
        yield from _conv(f"track_head.track_tower.{i}", WIDTH, WIDTH, bias=False)
        yield from _norm(f"track_head.track_tower.{i + 1}")
    yield from _conv("track_head.sipmask_track", 512, 3 * WIDTH, 1)


def _gated_block(name: str) -> Entries:
    for conv in ("conv1", "conv2"):
        yield from _conv(f"{name}.bottleneck.{conv}", WIDTH, WIDTH, bias=False)
        yield from _norm(f"{name}.bottleneck.{conv}.norm")
    yield from _conv(f"{name}.gate.gate_conv", 1, WIDTH)


def _align() -> Entries:
    yield from _modulated(f"{ALIGN}.fuse1", 2 * WIDTH, 3, bias=False)
    yield from _conv(f"{ALIGN}.offset_gen.0", WIDTH, 2 * WIDTH, bias=False)
    yield from _norm(f"{ALIGN}.offset_gen.1")
    yield from _conv(f"{ALIGN}.offset_gen.3", 54, WIDTH, bias=False)
    yield from _conv(f"{ALIGN}.fuse2_1", WIDTH, WIDTH, bias=False)
    yield from _conv(f"{ALIGN}.fuse2_2", WIDTH, WIDTH, bias=False)
    yield from _conv(f"{ALIGN}.gate", 1, 2 * WIDTH, 1)
    yield from _modulated(f"{ALIGN}.align_tower.0", 2 * WIDTH, 1, bias=False)
    yield from _gated_block(f"{ALIGN}.align_tower.1")
    yield from _gated_block(f"{ALIGN}.align_tower.2")


def _sepc(name: str) -> Entries:
    for k in range(3):
        yield from _conv(f"{name}.Pconv.{k}", WIDTH, WIDTH)
        yield from _conv(f"{name}.Pconv.{k}.conv_offset", 18, WIDTH)


def _routing(name: str) -> Entries:
    yield f"{name}.scale_weight", (1,)
    yield f"{name}.output_weight", (1,)
    for s in range(2):
        yield from _conv(f"{name}.dynamic_convs.{s}.convs.0", WIDTH, 1)
        yield from _norm(f"{name}.dynamic_convs.{s}.convs.1")
        yield from _conv(f"{name}.dynamic_convs.{s}.gate.gate_conv", 1, WIDTH)
    yield from _gated_block(f"{name}.depth_module")
