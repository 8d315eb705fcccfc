import torch

from visdeploy_training.clip import ClipTargets
from visdeploy_training.methods.defvis.targets import object_targets


def test_objects_of_a_clip():
    masks = torch.zeros(3, 2, 10, 20, dtype=torch.bool)
    masks[0, 0, 2:6, 4:14] = True
    masks[1:, 1, 9, 19] = True
    found = object_targets(ClipTargets(masks, torch.tensor([[4, 0]] * 3)))
    assert found.ids.tolist() == [[5, 0, 0], [0, 1, 1]]
    assert found.valid.tolist() == [[True, False, False], [False, True, True]]
    torch.testing.assert_close(found.boxes[0, 0], torch.tensor([9 / 20, 4 / 10, 10 / 20, 4 / 10]))
    torch.testing.assert_close(found.boxes[1, 2], torch.tensor([19.5 / 20, 9.5 / 10, 1 / 20, 1 / 10]))
    assert not found.boxes[0, 1:].any()
    assert torch.equal(found.masks, masks.transpose(0, 1))


def test_a_clip_without_objects():
    found = object_targets(
        ClipTargets(torch.zeros(3, 0, 10, 20, dtype=torch.bool), torch.zeros(3, 0, dtype=torch.int64))
    )
    assert (found.ids.shape, found.boxes.shape) == ((0, 3), (0, 3, 4))
