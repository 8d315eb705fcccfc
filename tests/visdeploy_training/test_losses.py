import pytest
import torch

from visdeploy_training.losses import dice_loss, lovasz_hinge, mean_over_processes, sigmoid_focal_loss, smooth_dice_loss


def test_focal_loss_is_the_formula():
    logits, targets = torch.randn(4, 5, dtype=torch.float64), torch.randint(0, 2, (4, 5))
    p = logits.sigmoid()
    positive = -0.25 * (1 - p) ** 2 * p.log()
    negative = -0.75 * p**2 * (1 - p).log()
    expected = torch.where(targets == 1, positive, negative).float()
    torch.testing.assert_close(sigmoid_focal_loss(logits, targets), expected)


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_focal_loss_stays_finite(logit: float):
    x = torch.tensor([logit], requires_grad=True)
    sigmoid_focal_loss(x, torch.tensor([1.0 if logit < 0 else 0.0])).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_dice_loss_shares_targets():
    p, t = torch.rand(5, 6, 7), torch.rand(2, 6, 7) > 0.5
    rows = torch.tensor([0, 1, 1, 0, 1])
    full = t[rows].float()
    expected = 1 - 2 * (p * full).sum((1, 2)) / ((p**2).sum((1, 2)) + full.sum((1, 2)) + 1e-7)
    torch.testing.assert_close(dice_loss(p, t, rows), expected)


def test_dice_loss_of_a_perfect_mask_is_zero():
    mask = torch.rand(1, 8, 8) > 0.5
    assert dice_loss(mask.float(), mask, torch.zeros(1, dtype=torch.int64)).item() == pytest.approx(0, abs=1e-6)


def test_smooth_dice_loss_is_the_formula():
    p, t = torch.rand(3, 4, 5), torch.rand(3, 4, 5) > 0.5
    expected = [1 - (2 * (a * b).sum() + 1) / (a.sum() + b.sum() + 1) for a, b in zip(p, t.float(), strict=True)]
    torch.testing.assert_close(smooth_dice_loss(p, t), torch.stack(expected))


def test_smooth_dice_loss_of_empty_or_perfect_masks_is_zero():
    mask = torch.zeros(2, 3, 3)
    mask[1, 0] = 1
    assert smooth_dice_loss(mask, mask).tolist() == [0, 0]


def test_without_other_processes_the_mean_is_the_number():
    assert mean_over_processes(7.5, torch.zeros(1)) == 7.5


def test_lovasz_hinge_is_the_jaccard_loss_of_a_hard_prediction():
    """For margins of one, the loss of a wrong mask is twice its Jaccard distance: every error is 2."""
    targets = torch.tensor([True, True, True, False, False])
    predicted = torch.tensor([True, True, False, True, False])
    logits = torch.where(predicted, 1.0, -1.0)
    assert lovasz_hinge(logits, targets).item() == pytest.approx(2 * (1 - 2 / 4))
    assert lovasz_hinge(torch.where(targets, 1.0, -1.0), targets).item() == 0


def test_lovasz_hinge_does_not_depend_on_the_order_of_the_pixels():
    logits, targets = torch.randn(50), torch.rand(50) > 0.5
    order = torch.randperm(50)
    torch.testing.assert_close(lovasz_hinge(logits, targets), lovasz_hinge(logits[order], targets[order]))
