import pytest
import torch
from torch import nn

from visdeploy_training.attention import PackedAttention


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_packed_attention_is_pytorchs_own(lead: tuple[int, ...]):
    torch.manual_seed(0)
    theirs = nn.MultiheadAttention(24, 4, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    ours = PackedAttention(24, 4).double()
    ours.load_state_dict(theirs.state_dict())
    query, key, value = (torch.randn(*lead, n, 24, dtype=torch.float64) for n in (5, 7, 7))
    flat = (x.reshape(-1, x.shape[-2], 24) for x in (query, key, value))
    expected = theirs(*flat)[0].reshape(query.shape)
    torch.testing.assert_close(ours(query, key, value), expected)


def test_dropout_works_in_training_only():
    torch.manual_seed(0)
    layer, x = PackedAttention(8, 2, dropout=0.5), torch.randn(3, 8)
    assert not torch.equal(layer(x, x, x), layer(x, x, x))
    layer.eval()
    assert torch.equal(layer(x, x, x), layer(x, x, x))
