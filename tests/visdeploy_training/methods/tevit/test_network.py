from collections.abc import Callable

import pytest
import torch

from visdeploy.errors import ConfigError
from visdeploy_training import VISModel, create_model
from visdeploy_training.methods.tevit.head import refine
from visdeploy_training.methods.tevit.network import box_scale

pytestmark = pytest.mark.isa

Build = Callable[..., VISModel]


@pytest.mark.parametrize(
    ("variant", "parameters", "trained", "published"),
    [
        ("msgshift", 161_832_616, 161_832_616, 161.83),
        ("msgshift_mst", 161_832_616, 161_832_616, 161.83),
        ("r50", 172_565_448, 172_340_104, 172.3),
        ("r50_mst", 172_565_448, 172_340_104, 172.3),
        ("swin_l", 343_861_820, 343_861_820, 343.86),
    ],
)
def test_parameter_counts_are_the_published_ones(variant: str, parameters: int, trained: int, published: float):
    """The whole network: backbone, neck, proposals, six box heads and six mask heads. For R50, what trains."""
    with torch.device("meta"):
        model = create_model("tevit", variant)
    assert sum(p.numel() for p in model.parameters()) == parameters
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained
    assert trained / 1e6 == pytest.approx(published, abs=0.05)


@pytest.mark.parametrize("backbone", ["pvt_small", "efficientnet_lite0", "resnet50"])
def test_shapes(small: Build, clip: torch.Tensor, backbone: str):
    model = small(backbone=backbone)
    with torch.no_grad():
        output = model(clip)
        masks = output.masks(1, torch.tensor([0, 5, 5]), torch.tensor([4, 0, 1]))
    assert output.logits.shape == (2, 2, 3, 5, 3)
    assert output.boxes.shape == (2, 2, 3, 5, 4)
    assert masks.shape == (3, 3, 28, 28)
    assert torch.isfinite(masks).all()


def test_boxes_are_shares_of_the_content(small: Build, clip: torch.Tensor, sizes: torch.Tensor):
    assert box_scale(clip, sizes).tolist() == [[96, 64, 96, 64], [70, 50, 70, 50]]
    assert box_scale(clip.half(), sizes).dtype == torch.float32
    output = small().forward_padded(clip, sizes)
    assert output.sizes.tolist() == [[96, 64, 96, 64], [70, 50, 70, 50]]


def test_without_sizes_black_pixels_are_content(small: Build, clip: torch.Tensor, sizes: torch.Tensor):
    """Pixels of the mean's own colour normalise to zero, as padding is; only the sizes tell one from the other."""
    model = small()
    assert box_scale(torch.zeros(1, 2, 3, 32, 64), None).tolist() == [[64, 32, 64, 32]]
    with torch.no_grad():
        black, whole, padded = (model(clip[1:], size) for size in (None, torch.tensor([[64, 96]]), sizes[1:]))
    assert torch.equal(black.boxes, whole.boxes)
    assert (black.boxes - padded.boxes).abs().max() > 1


@torch.no_grad()
def test_clips_of_a_batch_do_not_meet(small: Build, clip: torch.Tensor, sizes: torch.Tensor):
    model = small()
    together, alone = model(clip, sizes), model(clip[1:], sizes[1:])
    torch.testing.assert_close(together.boxes[:, 1:], alone.boxes, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(together.logits[:, 1:], alone.logits, rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_frames_of_a_clip_meet_by_messengers_and_attention(small: Build, clip: torch.Tensor):
    """A change of one frame reaches the others' features with messengers, and only their heads without."""
    changed = clip[:1].clone()
    changed[0, 2] = 1.0
    for backbone, spreads in (("pvt_small", True), ("efficientnet_lite0", False)):
        model = small(backbone=backbone)
        before, after = (model.features(x.flatten(0, 1), 3)[0][:2] for x in (clip[:1], changed))
        assert torch.equal(before, after) is not spreads
        assert not torch.equal(model(clip[:1]).logits[-1, 0, 0], model(changed).logits[-1, 0, 0])


@torch.no_grad()
def test_without_messengers_the_order_of_frames_only_orders_the_results(
    small: Build, clip: torch.Tensor, sizes: torch.Tensor
):
    model, order = small(backbone="efficientnet_lite0"), [2, 0, 1]
    output, other = model(clip, sizes), model(clip[:, order], sizes)
    torch.testing.assert_close(other.logits, output.logits[:, :, order], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(other.boxes, output.boxes[:, :, order], rtol=1e-4, atol=1e-3)


def test_refined_boxes():
    boxes = torch.tensor([[10.0, 20.0, 30.0, 60.0]])
    assert torch.equal(refine(boxes, torch.zeros(1, 4)), boxes)
    moved = refine(boxes, torch.tensor([[1.0, -1.0, 0.0, 100.0]]))
    height = 40 * 62.5  # the growth of one step is limited to 1000 / 16
    wanted = torch.tensor([[20.0, 20 - height / 2, 40.0, 20 + height / 2]])
    torch.testing.assert_close(moved, wanted)


def test_wrong_size_is_refused(small: Build):
    with pytest.raises(ConfigError, match="multiples of 32"):
        small()(torch.zeros(1, 2, 3, 64, 90))


def test_means_of_whole_numbers_are_taken():
    model = create_model("tevit", "tiny", num_classes=1, num_queries=4, pixel_mean=(1, 2, 3))
    assert model.config.pixel_mean == (1, 2, 3)


@pytest.mark.parametrize("change", [{"backbone": "vgg"}, {"hidden_dim": 15}, {"max_results": 16}, {"width": 100}])
def test_wrong_configurations_are_refused(change: dict[str, object]):
    with pytest.raises(ConfigError, match=next(iter(change))):
        create_model("tevit", "tiny", num_classes=1, **change)
