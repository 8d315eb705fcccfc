import json

import pytest
import torch

from visdeploy.errors import ConfigError
from visdeploy_training import create_model
from visdeploy_training.methods.visolo import VARIANTS, VISOLO

pytestmark = pytest.mark.isa


def test_r50_has_the_official_names_and_shapes(shared):
    manifest = json.loads((shared / "goldens/visolo/manifest.json").read_text())
    expected = {p["name"].removeprefix("model."): tuple(p["shape"]) for p in manifest["params"]}
    with torch.device("meta"):
        model = VISOLO(VARIANTS["r50"])
    state = model.state_dict()
    assert {k: tuple(v.shape) for k, v in state.items()} == expected
    assert len(state) == 333
    assert sum(v.numel() for v in state.values()) / 1e6 == pytest.approx(32.55, abs=0.005)
    trained = [p for p in model.parameters() if p.requires_grad]
    assert (len(trained), round(sum(p.numel() for p in trained) / 1e6, 2)) == (150, 32.27)


def test_tiny_fits_the_repository():
    with torch.device("meta"):
        state = VISOLO(VARIANTS["tiny"]).state_dict()
    assert sum(v.numel() * 4 for v in state.values()) < 22e6


def test_fresh_classifier_starts_at_its_prior():
    model = create_model("visolo", "tiny", num_classes=3)
    torch.testing.assert_close(model.Category_branch_post.pred.bias.sigmoid(), torch.full((3,), 0.01))
    assert not create_model("visolo", "r50", num_classes=3).Category_branch_post.pred.bias.any()


@torch.no_grad()
def test_training_forward_reads_the_other_frames_only(small_model: VISOLO, frames: torch.Tensor):
    clip = frames[:3, 0].unsqueeze(0)
    found = small_model(clip)
    assert found.class_logits.shape == (1, 5, 3, 6, 8)
    assert found.kernels.shape == (1, 16, 3, 6, 8)
    assert found.mask_features.shape == (1, 16, 3, 16, 24)
    assert found.tracking_logits.shape == (1, 3, 48, 48)
    # frame 0 by hand, its memory being frames 1 and 2
    branch, memory = small_model.Tracking_branch, small_model.Memory_module
    own = [small_model.features(clip[:, t]) for t in range(3)]
    shared = [branch.share(f.feature) for f in own]
    logits = [[branch.query(a)[0].T @ branch.reference(b)[0] for b in shared] for a in shared]
    attention = torch.cat([logits[0][1], logits[0][2]], dim=1).softmax(dim=1).unsqueeze(0)
    category = memory(own[0].category, attention, torch.cat([own[1].category, own[2].category]))
    expected = small_model.Category_branch_post(category)
    torch.testing.assert_close(found.class_logits[:, :, 0], expected, atol=1e-4, rtol=1e-4)
    pairs = torch.stack([logits[0][1], logits[0][2], logits[1][2]])
    torch.testing.assert_close(found.tracking_logits[0], pairs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(small_model: VISOLO, frames: torch.Tensor):
    clips = torch.stack([frames[:3, 0], frames[5:8, 0]])
    together, alone = small_model(clips), small_model(clips[1:])
    for a, b in zip(together, alone, strict=True):
        torch.testing.assert_close(a[1:], b, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("shape", [(1, 1, 3, 64, 96), (1, 3, 3, 64, 100), (1, 2, 3, 16, 96)])
def test_wrong_clips_are_refused(small_model: VISOLO, shape: tuple[int, ...]):
    with pytest.raises(ConfigError):
        small_model(torch.zeros(shape))
