from collections.abc import Callable, Sequence

import pytest
import torch

from visdeploy.errors import DataError
from visdeploy_training import VISModel
from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.tevit import tevit_losses
from visdeploy_training.methods.tevit.losses import generalised_iou, mask_targets, match_clip
from visdeploy_training.methods.tevit.targets import object_targets

pytestmark = pytest.mark.isa

Build = Callable[..., VISModel]
NAMES = {f"stage{s}_loss_{kind}" for s in (0, 1) for kind in ("cls", "bbox", "iou", "mask")}


def test_every_weight_learns(small: Build, clip: torch.Tensor, sizes: torch.Tensor, targets: Sequence[ClipTargets]):
    model = small().train()
    losses = tevit_losses(model(clip, sizes), targets, model.config)
    assert losses.keys() == NAMES
    assert all(torch.isfinite(v) and v > 0 for v in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert not without


def test_clips_without_objects_teach_background_only(small: Build, clip: torch.Tensor, sizes: torch.Tensor):
    model = small().train()
    empty = [ClipTargets(torch.zeros(3, k, 64, 96, dtype=torch.bool), torch.zeros(3, k).long()) for k in (0, 2)]
    means = {n: b.clone() for n, b in model.named_buffers() if n.endswith("running_mean")}
    losses = tevit_losses(model(clip, sizes), empty, model.config)
    assert all(bool(v > 0) is ("cls" in name) for name, v in losses.items())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    assert all(torch.equal(means[n], model.get_buffer(n)) for n in means)


def test_a_query_answers_where_its_object_is(small: Build, targets: Sequence[ClipTargets]):
    objects = object_targets(targets[0])
    config = small().config
    boxes = torch.rand(3, 5, 4).cumsum(-1)
    logits = torch.full((3, 5, 3), -4.0)
    for query, k in ((3, 0), (1, 1)):
        boxes[:, query] = objects.boxes[k]
        logits[:, query, objects.labels[k, 0]] = 4.0
    match = match_clip(logits, boxes, torch.tensor([96.0, 64, 96, 64]), objects, config)
    pairs = list(zip(*(each.tolist() for each in match), strict=True))
    assert pairs == [(0, 1, 1), (0, 3, 0), (1, 3, 0), (2, 1, 1), (2, 3, 0)]


def test_objects_that_never_show_are_no_targets(targets: Sequence[ClipTargets]):
    masks = torch.cat([targets[0].masks, torch.zeros(3, 1, 64, 96, dtype=torch.bool)], dim=1)
    objects = object_targets(ClipTargets(masks, torch.tensor([[0, 2, 7]] * 3)))
    assert objects.present.tolist() == [[True] * 3, [True, False, True]]
    assert objects.boxes[1, 0].tolist() == [5, 40, 45, 60]


def test_mask_targets_are_cut_at_the_border():
    mask = torch.zeros(1, 40, 60, dtype=torch.bool)
    mask[0, :20] = True
    cut = mask_targets(mask.expand(2, -1, -1), torch.tensor([[0.0, 0, 60, 40], [-100, -100, 200, 20]]))
    assert cut[0].sum(dim=0).tolist() == [14] * 28
    assert cut[1].all()


def test_generalised_iou():
    box = torch.tensor([0.0, 0, 10, 10])
    found = generalised_iou(box, torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [30, 0, 40, 10], [5, 5, 5, 5]]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, -0.5, 0.0]))


def test_targets_of_another_batch_are_refused(
    small: Build, clip: torch.Tensor, sizes: torch.Tensor, targets: Sequence[ClipTargets]
):
    model = small()
    output = model(clip, sizes)
    with pytest.raises(DataError, match="do not match"):
        tevit_losses(output, targets[:1], model.config)
    with pytest.raises(DataError, match="out of range"):
        tevit_losses(output, [ClipTargets(t.masks, t.labels + 3) for t in targets], model.config)
