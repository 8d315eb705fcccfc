import pytest
import torch

from visdeploy_training.losses import dice_loss, sigmoid_focal_loss


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
