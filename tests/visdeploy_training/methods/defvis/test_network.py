import pytest
import torch
import torch.nn.functional as F

from tests.visdeploy_training.methods.defvis.conftest import small_network
from visdeploy.errors import ConfigError
from visdeploy_training import create_model
from visdeploy_training.methods.defvis import DefVIS

pytestmark = pytest.mark.isa


def clip_of(seed: int = 0, frames: int = 3, height: int = 64, width: int = 96) -> torch.Tensor:
    return torch.randn(1, frames, 3, height, width, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def test_shapes(network: DefVIS):
    slots = network.config.slots
    output = network(torch.cat([clip_of(0), clip_of(1)]))
    assert output.logits.shape == (2, 2, slots, 3, 5)
    assert output.boxes.shape == (2, 2, slots, 3, 4)
    assert output.masks.shape == (2, slots, 3, 16, 24)
    assert bool(((output.boxes > 0) & (output.boxes < 1)).all())


@torch.no_grad()
def test_a_dilated_backbone_gives_the_transformer_twice_the_rows_and_columns():
    """The DC5 variant has the same tensors, and masks of the same size."""
    plain, dense = (small_network(tokens=True, backbone="resnet50", dilated=d).eval() for d in (False, True))
    dense.load_state_dict(plain.state_dict(), strict=True)
    sizes = []
    for model in (plain, dense):
        model.input_proj.register_forward_hook(lambda _, __, out: sizes.append(tuple(out.shape[-2:])))
        assert model(clip_of()).masks.shape == (1, 2, 3, 16, 24)
    assert sizes == [(2, 3), (4, 6)]


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(network: DefVIS):
    clips = [clip_of(0), clip_of(1)]
    together = network(torch.cat(clips))
    for b, clip in enumerate(clips):
        alone = network(clip)
        torch.testing.assert_close(together.logits[:, b], alone.logits[:, 0], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(together.masks[b], alone.masks[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_slots_and_frames_differ(network: DefVIS):
    masks = network(clip_of()).masks[0]
    for axis in (0, 1):
        first, second = masks.select(axis, 0), masks.select(axis, 1)
        assert float((first - second).abs().max()) > 1e-4


@torch.no_grad()
def test_padding_does_not_reach_the_decoder_or_the_attention_maps(network: DefVIS):
    """Another padding of the same picture: the backbone's border effects aside, classes must not move."""
    inner = network.input_proj.out_channels
    frames = torch.randn(1, 3, inner, 2, 3)
    padded = F.pad(frames, (0, 2, 0, 1))
    padding = torch.ones(1, 3, 3, 5, dtype=torch.bool)
    padding[..., :2, :3] = False
    from visdeploy_training.methods.defvis.geometry import make_levels

    config = network.config
    tokens = (config.instance_groups, config.tokens_per_group) if config.instance_groups else None
    queries = network.query_embed.weight
    memory, plain = network.transformer(frames, make_levels(frames, tokens, None), queries)
    padded_memory, found = network.transformer(padded, make_levels(padded, tokens, padding), queries)
    torch.testing.assert_close(found, plain, atol=1e-4, rtol=1e-4)
    kept = padded_memory.unflatten(2, (3, 5))[:, :, :2, :3].flatten(2, 3)
    torch.testing.assert_close(kept, memory, atol=1e-4, rtol=1e-4)
    slots = network.arrange(plain)[-1]
    maps = network.bbox_attention(slots, padded_memory, padding.flatten(2)).unflatten(-1, (3, 5))
    expected = network.bbox_attention(slots, memory, None).unflatten(-1, (2, 3))
    torch.testing.assert_close(maps[..., :2, :3], expected, atol=1e-5, rtol=1e-4)
    assert float(maps.sum()) == pytest.approx(float(expected.sum()), rel=1e-4)


def test_slots_with_groups_are_read_across_groups():
    """Row n of (query, group) is interpreted as (slot, frame), as in the published implementation."""
    model = small_network(tokens=True)
    decoded = torch.arange(6.0).view(1, 1, 2, 3, 1)  # group 0 holds 0, 1, 2, group 1 holds 3, 4, 5
    assert model.arrange(decoded)[0, 0, :, :, 0].tolist() == [[0, 3, 1], [4, 2, 5]]


def test_slots_without_groups_are_queries_of_a_frame():
    model = small_network(tokens=False)
    decoded = torch.arange(12.0).view(1, 1, 1, 12, 1)
    assert model.arrange(decoded)[0, 0, 1, :, 0].tolist() == [1, 5, 9]


def test_lay1_in_two_parts_is_the_convolution_of_both(network: DefVIS):
    head, config = network.mask_head, network.config
    memory = torch.randn(1, 3, config.hidden_dim, 4, 5)
    maps = torch.randn(1, config.slots, 3, config.num_heads, 4, 5)
    repeated = memory[:, None].expand(-1, config.slots, -1, -1, -1, -1)
    expected = head.lay1(torch.cat([repeated, maps], dim=3).flatten(0, 2))
    torch.testing.assert_close(head._first(memory, maps), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("clip", "word"), [(clip_of(frames=4), "clip_length"), (clip_of(height=63), "multiples of 32")]
)
def test_wrong_clips_are_refused(network: DefVIS, clip: torch.Tensor, word: str):
    with pytest.raises(ConfigError, match=word):
        network(clip)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"hidden_dim": 50}, "hidden_dim"),
        ({"hidden_dim": 36}, "hidden_dim"),
        ({"num_heads": 5}, "num_heads"),
        ({"mask_groups": 5}, "mask_groups"),
        ({"sequence_groups": 5}, "sequence_groups"),
        ({"num_frames": 0}, "num_frames"),
        ({"instance_groups": 2, "tokens_per_group": 0}, "tokens_per_group"),
        ({"backbone": "vgg"}, "backbone"),
        ({"dropout": 1.0}, "dropout"),
        ({"width": 100}, "width"),
        ({"dilated": True}, "dilated"),
    ],
)
def test_impossible_configurations_are_named(change: dict[str, object], word: str):
    with pytest.raises(ConfigError, match=word):
        create_model("defvis", "tiny", num_classes=2, **change)


@pytest.mark.parametrize(
    ("variant", "parameters", "trained"),
    [
        ("inst_r50", 67_586_753, 67_364_353),
        ("inst_r101", 86_526_657, 86_304_257),
        ("enc_r50", 67_317_089, None),
        ("enc_r101", 86_256_993, None),
    ],
)
def test_published_sizes(variant: str, parameters: int, trained: int | None):
    """Check the numbers of parameters of the published configurations."""
    with torch.device("meta"):
        model = create_model("defvis", variant)
    assert sum(p.numel() for p in model.parameters()) == parameters
    if trained is not None:
        assert sum(p.numel() for p in model.parameters() if p.requires_grad) == trained


def test_attention_starts_in_eight_directions():
    model = create_model("defvis", "tiny", num_classes=1, num_heads=8, mask_groups=4, num_frames=2)
    attention = model.transformer.encoder.layers[0].self_attn
    offsets = attention.sampling_offsets.bias.detach().view(8, 2, 4, 2)
    assert offsets[0, 1].tolist() == [[1, 0], [2, 0], [3, 0], [4, 0]]
    torch.testing.assert_close(offsets[3, 0, 1], torch.tensor([-2.0, 2.0]), atol=1e-5, rtol=0)
    assert not attention.sampling_offsets.weight.any()
    assert not attention.attention_weights.weight.any()


@pytest.mark.parametrize("tokens", [True, False])
def test_computing_layers_again_changes_no_number(tokens: bool):
    models = [small_network(tokens=tokens, recompute=recompute).train() for recompute in (False, True)]
    found = [model(clip_of()) for model in models]
    for output in found:
        sum(x.square().sum() for x in output).backward()
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    for (name, first), second in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, msg=name)
