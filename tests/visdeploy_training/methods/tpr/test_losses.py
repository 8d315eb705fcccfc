import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import roi_align

from visdeploy.errors import DataError
from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.tpr.blending import blend, crop_bases, mask_targets
from visdeploy_training.methods.tpr.config import TPRConfig
from visdeploy_training.methods.tpr.losses import (
    box_loss,
    centreness,
    criterion,
    match_loss,
    object_rows,
    semantic_loss,
    tpr_losses,
)
from visdeploy_training.methods.tpr.output import STRIDES, TPROutput
from visdeploy_training.methods.tpr.targets import PairTargets, assign, find_positives, pair_targets

pytestmark = pytest.mark.isa

HEIGHT, WIDTH, CLASSES = 64, 96, 3
VIDEO = TPRConfig(num_classes=CLASSES)
IMAGE = dataclasses.replace(VIDEO, stage="image")
VIDEO_NAMES = {"loss_fcos_cls", "loss_fcos_loc", "loss_fcos_ctr", "loss_mask", "loss_match", "loss_budget"}
IMAGE_NAMES = VIDEO_NAMES - {"loss_match", "loss_budget"}


def output_of(batch: int, *, semantic: bool = False, dtype: torch.dtype = torch.float32) -> TPROutput:
    """Random values that are leaves of the graph."""
    generator = torch.Generator().manual_seed(3)

    def leaf(*shape: int, positive: bool = False) -> torch.Tensor:
        value = torch.randn(*shape, generator=generator)
        return (value.abs() if positive else value).to(dtype).requires_grad_()

    shapes = [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    stride_8 = (HEIGHT // 8, WIDTH // 8)
    return TPROutput(
        class_logits=[leaf(batch, CLASSES, *shape) for shape in shapes],
        distances=[leaf(batch, 4, *shape, positive=True) for shape in shapes],
        centreness=[leaf(batch, 1, *shape) for shape in shapes],
        attention=[leaf(batch, 784, *shape) for shape in shapes],
        bases=leaf(batch, 4, HEIGHT // 4, WIDTH // 4),
        query_map=leaf(batch, 8, *stride_8),
        reference_map=leaf(batch, 8, *stride_8),
        soft_cost=leaf(batch, positive=True),
        used_cost=torch.ones(batch),
        semantic=leaf(batch, CLASSES, *stride_8) if semantic else None,
    )


def leaves(output: TPROutput) -> dict[str, torch.Tensor]:
    found = {}
    for name, value in output._asdict().items():
        each = value if isinstance(value, list) else [value]
        found |= {f"{name}.{i}": v for i, v in enumerate(each) if v is not None and v.requires_grad}
    return found


def clip_of(boxes: list[list[tuple[int, int, int, int]]], labels: list[int]) -> ClipTargets:
    """Filled boxes of each frame; a box without area is an absent object."""
    masks = torch.zeros(len(boxes), len(labels), HEIGHT, WIDTH, dtype=torch.bool)
    for frame, of_frame in enumerate(boxes):
        for k, (x0, y0, x1, y1) in enumerate(of_frame):
            masks[frame, k, y0:y1, x0:x1] = True
    return ClipTargets(masks, torch.tensor([labels] * len(boxes), dtype=torch.int64))


NONE = (0, 0, 0, 0)
CLIPS = [
    clip_of(
        [[(6, 4, 38, 40), (50, 20, 95, 60), (10, 10, 24, 30)], [(8, 4, 40, 40), NONE, (12, 10, 26, 30)]], [0, 2, 1]
    ),
    clip_of([[(30, 8, 62, 50)], [(31, 9, 63, 51)]], [1]),
]


@torch.no_grad()
def plain_losses(output: TPROutput, targets: list[PairTargets]) -> dict[str, float]:
    """Compute the losses of a location at a time, in float64."""
    shapes = [tuple(each.shape[2:]) for each in output.class_logits]
    owners = assign(shapes, [t.boxes for t in targets], radius=1.5)
    cls = loc = ctr = mask = total_ctr = 0.0
    count, match = 0, [[] for _ in targets]
    for level, stride in enumerate(STRIDES):
        for image, truth in enumerate(targets):
            for row in range(shapes[level][0]):
                for column in range(shapes[level][1]):
                    k = int(owners[level][image, row, column])
                    at = (image, slice(None), row, column)
                    logits = output.class_logits[level][at].double()
                    for c in range(CLASSES):
                        hit = k >= 0 and int(truth.labels[k]) == c
                        p = float(logits[c].detach().sigmoid())
                        cls += -0.25 * (1 - p) ** 2 * math.log(p) if hit else -0.75 * p**2 * math.log(1 - p)
                    if k < 0:
                        continue
                    count += 1
                    x, y = (column + 0.5) * stride, (row + 0.5) * stride
                    x0, y0, x1, y1 = truth.boxes[k].tolist()
                    left, top, right, bottom = ((v / stride) for v in (x - x0, y - y0, x1 - x, y1 - y))
                    weight = math.sqrt(min(left, right) / max(left, right) * min(top, bottom) / max(top, bottom))
                    total_ctr += weight
                    pl, pt, pr, pb = output.distances[level][at].tolist()
                    inter = (min(pl, left) + min(pr, right)) * (min(pt, top) + min(pb, bottom))
                    union = (pl + pr) * (pt + pb) + (left + right) * (top + bottom) - inter
                    hull = (max(pl, left) + max(pr, right)) * (max(pt, top) + max(pb, bottom)) + 1e-7
                    loc += weight * (1 - (inter + 1) / (union + 1) + (hull - union) / hull)
                    logit = output.centreness[level][at].double()
                    ctr += float(F.binary_cross_entropy_with_logits(logit, torch.tensor([weight]).double()))
                    mask += weight * plain_mask(output, level, at, truth, k)
                    cell = tuple(
                        min(max(math.floor((v + (b - a) * stride / 2) / 8), 0), side // 8 - 1)
                        for v, a, b, side in ((y, pt, pb, HEIGHT), (x, pl, pr, WIDTH))
                    )
                    match[image].append(plain_match(output, image, cell, truth, k))
    per_image = [sum(each) / max(1, len(each)) for each in match]
    return {
        "loss_fcos_cls": cls / max(1, count),
        "loss_fcos_loc": loc / max(total_ctr, 1e-6),
        "loss_fcos_ctr": ctr / max(1, count),
        "loss_mask": mask / max(total_ctr, 1e-6),
        "loss_match": sum(per_image) / len(targets),
        "loss_budget": 0.1 * float(output.soft_cost.mean()),
    }


def plain_mask(output: TPROutput, level: int, at: tuple, truth: PairTargets, k: int) -> float:
    attention = output.attention[level][at].reshape(1, 4, 14, 14)
    attention = F.interpolate(attention, (56, 56), mode="bilinear", align_corners=False).softmax(dim=1)
    box = torch.cat([torch.zeros(1), truth.boxes[k]])[None]
    bases = roi_align(output.bases[at[0]][None], box, 56, 0.25, sampling_ratio=1, aligned=True)
    wanted = roi_align(truth.masks[k][None, None].float(), box, 56, 1.0, sampling_ratio=0, aligned=True) >= 0.5
    logits = (bases * attention).sum(dim=1)
    return float(F.binary_cross_entropy_with_logits(logits, wanted[0].float()))


def plain_match(output: TPROutput, image: int, cell: tuple[int, ...], truth: PairTargets, k: int) -> float:
    query, scores = output.query_map[image][:, cell[0], cell[1]], [torch.zeros(())]
    for x0, y0, x1, y1 in truth.reference_boxes.tolist():
        row, column = int((y0 + y1) / 2 // 8), int((x0 + x1) / 2 // 8)
        scores.append(query @ output.reference_map[image][:, row, column])
    return -float(torch.stack(scores).log_softmax(dim=0)[int(truth.pids[k])])


def test_losses_equal_the_plain_ones():
    output = output_of(2)
    expected = plain_losses(output, [pair_targets(clip) for clip in CLIPS])
    losses = tpr_losses(output, CLIPS, VIDEO)
    assert losses.keys() == VIDEO_NAMES
    for name, value in losses.items():
        assert value.dtype == torch.float32
        assert value.shape == ()
        assert float(value.detach()) == pytest.approx(expected[name], rel=2e-5), name


def test_single_images_have_detection_and_mask_losses_only():
    """The frames of clips are separate images, clip after clip."""
    losses = tpr_losses(output_of(4), CLIPS, IMAGE)
    frames = [ClipTargets(clip.masks[[t, t]], clip.labels[[t, t]]) for clip in CLIPS for t in (0, 1)]
    pairs = tpr_losses(output_of(4), frames, VIDEO)
    assert losses.keys() == IMAGE_NAMES
    for name in losses:
        torch.testing.assert_close(losses[name], pairs[name])
    one = [ClipTargets(clip.masks[:1], clip.labels[:1]) for clip in CLIPS]
    with_head = tpr_losses(output_of(2, semantic=True), one, IMAGE)
    assert with_head.keys() == IMAGE_NAMES | {"loss_semantic"}
    assert with_head["loss_semantic"] > 0


def test_sums_over_positives_are_divided_by_the_mean_over_processes(monkeypatch: pytest.MonkeyPatch):
    """As if the other processes had thrice the positives: the mean is twice as large."""
    alone = tpr_losses(output_of(2), CLIPS, VIDEO)
    monkeypatch.setattr("visdeploy_training.methods.tpr.losses.mean_over_processes", lambda value, like: 2 * value)
    together = tpr_losses(output_of(2), CLIPS, VIDEO)
    for name, value in together.items():
        factor = 1 if name in ("loss_match", "loss_budget") else 2
        torch.testing.assert_close(factor * value, alone[name], msg=name)


@pytest.mark.parametrize("config", [VIDEO, IMAGE], ids=["video", "image"])
def test_every_output_is_in_the_graph_without_objects(config: TPRConfig):
    """Otherwise distributed training would wait for gradients that never come."""
    output = output_of(2, semantic=True)
    frames = 2 if config.stage == "video" else 1
    empty = [clip_of([[]] * frames, []), clip_of([[NONE]] * frames, [1])]
    losses = tpr_losses(output, empty, config)
    assert all(
        float(v.detach()) == 0 for n, v in losses.items() if n not in ("loss_fcos_cls", "loss_budget", "loss_semantic")
    )
    torch.stack(list(losses.values())).sum().backward()
    unused = {n.partition(".")[0] for n, v in leaves(output).items() if v.grad is None}
    assert unused == ({"semantic"} if frames == 2 else {"query_map", "reference_map", "soft_cost"})
    assert all(torch.isfinite(v.grad).all() for v in leaves(output).values() if v.grad is not None)


@torch.no_grad()
def test_an_object_that_only_the_reference_has_is_no_positive():
    only = clip_of([[NONE], [(8, 8, 40, 40)]], [1])
    losses = tpr_losses(output_of(1), [only], VIDEO)
    assert all(float(losses[n]) == 0 for n in ("loss_fcos_loc", "loss_fcos_ctr", "loss_mask", "loss_match"))


def test_images_without_positives_count_in_the_mean_of_the_association():
    output = output_of(2)
    empty = clip_of([[NONE], [(8, 8, 40, 40)]], [1])
    both = tpr_losses(output, [CLIPS[0], empty], VIDEO)["loss_match"]
    first = TPROutput(*([m[:1] for m in v] if isinstance(v, list) else v if v is None else v[:1] for v in output))
    torch.testing.assert_close(2 * both, tpr_losses(first, CLIPS[:1], VIDEO)["loss_match"])


@pytest.mark.parametrize(
    "name", ["class_logits", "distances", "centreness", "attention", "bases", "query_map", "reference_map", "semantic"]
)
def test_gradients_are_those_of_finite_differences(name: str):
    """Directional derivatives along a random direction in the maps of one kind."""
    config = IMAGE if name == "semantic" else VIDEO
    clips = [ClipTargets(c.masks[:1], c.labels[:1]) for c in CLIPS] if config is IMAGE else CLIPS
    output = output_of(2, semantic=True)
    torch.stack(list(tpr_losses(output, clips, config).values())).sum().backward()
    own = [v for n, v in leaves(output).items() if n.partition(".")[0] == name]
    generator = torch.Generator().manual_seed(0)
    ways = [torch.randn(v.shape, generator=generator) for v in own]
    slope = sum(float((v.grad * way).sum()) for v, way in zip(own, ways, strict=True) if v.grad is not None)
    values = []
    for step in (-1e-3, 1e-3):
        with torch.no_grad():
            for v, way in zip(own, ways, strict=True):
                v.add_(way, alpha=step)
            values.append(sum(float(v) for v in tpr_losses(output, clips, config).values()))
            for v, way in zip(own, ways, strict=True):
                v.sub_(way, alpha=step)
    assert slope == pytest.approx((values[1] - values[0]) / 2e-3, rel=0.02, abs=3e-3)
    assert slope != 0


def test_losses_are_float32_inside_autocast():
    output, exact = output_of(2, dtype=torch.bfloat16), output_of(2)
    with torch.no_grad():
        for low, high in zip(leaves(output).values(), leaves(exact).values(), strict=True):
            high.copy_(low)
    expected = tpr_losses(exact, CLIPS, VIDEO)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = tpr_losses(output, CLIPS, VIDEO)
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name])


@torch.no_grad()
def test_perfect_predictions_cost_almost_nothing():
    targets = [pair_targets(CLIPS[1])]
    output = output_of(1)
    found = find_positives(assign([tuple(m.shape[2:]) for m in output.class_logits], [targets[0].boxes], radius=1.5))
    for level, stride in enumerate(STRIDES):
        output.class_logits[level].fill_(-20)
        here = found.level == level
        place = (found.image[here], slice(None), found.row[here], found.column[here])
        points, box = found.points[here], targets[0].boxes
        sides = torch.cat([points - box[:, :2], box[:, 2:] - points], dim=1) / stride
        output.distances[level][place] = sides
        output.class_logits[level][place] = 20 * (2 * F.one_hot(torch.tensor(1), CLASSES) - 1).float()
    output.bases.fill_(30)
    output.query_map.fill_(1)
    output.reference_map.fill_(3)
    losses = criterion(output, targets, VIDEO)
    for name in ("loss_fcos_cls", "loss_fcos_loc", "loss_mask", "loss_match"):
        assert float(losses[name]) == pytest.approx(0, abs=2e-5), name


sides = st.floats(0.0625, 40, width=32)


@given(p=st.tuples(*[sides] * 4), t=st.tuples(*[sides] * 4))
def test_box_loss_is_bounded_and_least_for_equal_boxes(p: tuple[float, ...], t: tuple[float, ...]):
    found, truth = torch.tensor([p]), torch.tensor([t])
    loss = float(box_loss(found, truth))
    assert -1e-5 <= loss <= 2
    assert float(box_loss(truth, truth)) == pytest.approx(0, abs=1e-5)
    assert loss == pytest.approx(float(box_loss(truth, found)), abs=1e-5)


@given(t=st.tuples(*[sides] * 4))
def test_centreness_is_one_at_the_centre_and_symmetric(t: tuple[float, ...]):
    left, top, right, bottom = t
    value = float(centreness(torch.tensor([t])))
    assert 0 < value <= 1 + 1e-6
    assert value == pytest.approx(float(centreness(torch.tensor([[right, bottom, left, top]]))))
    assert float(centreness(torch.tensor([[left, top, left, top]]))) == 1


def test_blending_takes_the_base_with_all_the_attention():
    bases = torch.randn(3, 4, 56, 56)
    attention = torch.zeros(3, 4, 14, 14)
    for k, base in enumerate((2, 0, 3)):
        attention[k, base] = 100
    blended = blend(bases, attention.flatten(1), VIDEO)
    torch.testing.assert_close(blended, torch.stack([bases[0, 2], bases[1, 0], bases[2, 3]]))
    torch.testing.assert_close(blend(bases, torch.zeros(3, 784), VIDEO), bases.mean(dim=1))


def test_crops_are_those_of_roi_align():
    targets = [pair_targets(clip) for clip in CLIPS]
    bases = torch.randn(2, 4, HEIGHT // 4, WIDTH // 4)
    expected = roi_align(bases, [t.boxes for t in targets], 56, 0.25, sampling_ratio=1, aligned=True)
    torch.testing.assert_close(crop_bases(bases, targets, 56), expected)


def test_mask_targets_of_many_objects():
    """More than are converted at once; a filled box is full in its own crop and empty in the one beside it."""
    masks = torch.zeros(40, 32, 48, dtype=torch.bool)
    masks[:, 4:20, 8:24] = True
    inside = torch.tensor([[8.0, 4, 24, 20]]).expand(40, 4)
    assert mask_targets(masks, inside, 56)[:, 1:-1, 1:-1].all()  # corners are mostly outside
    assert not mask_targets(masks, inside + torch.tensor([16.0, 0, 16, 0]), 56).any()
    half = mask_targets(masks, inside + torch.tensor([8.0, 0, 8, 0]), 56)
    assert half.shape == (40, 56, 56)
    assert half[:, 1:-1, :28].all()
    assert not half[..., 28:].any()
    assert mask_targets(masks[:0], inside[:0], 56).shape == (0, 56, 56)


def test_the_association_does_not_move_boxes():
    output = output_of(2)
    targets = [pair_targets(clip) for clip in CLIPS]
    owners = assign([tuple(m.shape[2:]) for m in output.class_logits], [t.boxes for t in targets], radius=1.5)
    match_loss(output, find_positives(owners), targets).backward()
    with_gradient = {n.partition(".")[0] for n, v in leaves(output).items() if v.grad is not None}
    assert with_gradient == {"query_map", "reference_map"}


def test_object_rows_count_over_images():
    targets = [pair_targets(CLIPS[0]), pair_targets(clip_of([[], []], [])), pair_targets(CLIPS[1])]
    shapes = [(-(-HEIGHT // stride), -(-WIDTH // stride)) for stride in STRIDES]
    found = find_positives(assign(shapes, [t.boxes for t in targets], radius=1.5))
    rows = object_rows(found, targets)
    boxes = torch.cat([t.boxes for t in targets])
    for row, image, k in zip(rows, found.image.tolist(), found.object.tolist(), strict=True):
        assert torch.equal(boxes[row], targets[image].boxes[k])


def test_semantic_targets_join_the_masks_of_a_class():
    clip = clip_of([[(0, 0, 16, 16), (16, 0, 32, 16), (0, 32, 8, 40)]], [1, 1, 2])
    targets = [PairTargets(torch.zeros(3, 4), clip.labels[0], clip.masks[0], torch.zeros(0, 4), torch.zeros(3).long())]
    wanted = torch.zeros(1, CLASSES, HEIGHT // 8, WIDTH // 8)
    wanted[0, 1, :2, :4] = 1
    wanted[0, 2, 4, 0] = 1
    assert float(semantic_loss(40 * wanted - 20, targets, IMAGE)) == pytest.approx(0, abs=1e-6)
    zero = torch.zeros_like(wanted)
    expected = 0.25 * math.log(2) * (0.25 * 9 + 0.75 * (wanted.numel() - 9)) / 9
    assert float(semantic_loss(zero, targets, IMAGE)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("clips", "config", "message"),
    [
        (CLIPS[:1], VIDEO, "do not match"),
        ([], VIDEO, "no clip"),
        ([ClipTargets(c.masks[:1], c.labels[:1]) for c in CLIPS], VIDEO, "do not match"),
        (CLIPS, IMAGE, "do not match"),
        ([ClipTargets(c.masks[..., :64], c.labels) for c in CLIPS], VIDEO, "do not match"),
        ([ClipTargets(c.masks, c.labels + 2) for c in CLIPS], VIDEO, "out of range"),
        ([ClipTargets(c.masks, c.labels - 1) for c in CLIPS], VIDEO, "out of range"),
    ],
)
def test_targets_of_another_batch_are_refused(clips: list[ClipTargets], config: TPRConfig, message: str):
    with pytest.raises(DataError, match=message):
        tpr_losses(output_of(2), clips, config)
