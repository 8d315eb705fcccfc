"""Parameters of a decoder: read from the manifest by the models that a method names."""

import pytest

from visdeploy.errors import BundleError
from visdeploy.manifest import Window
from visdeploy.methods import DECODERS, Decoder, OnlineDecoder, Parameters
from visdeploy.results import FrameResult

ONLINE, CLIP = Window(mode="online"), Window(mode="clip", length=4, stride=2)


class Decode(Parameters):
    """A parameter without a default."""

    bar: float


class Tracking(Parameters):
    """A parameter with a default."""

    patience: int = 3


class Counter(OnlineDecoder[Decode, Tracking]):
    """Decoder without a constructor."""

    decode_model = Decode
    tracking_model = Tracking

    def start(self):
        self.limit = self.decode_parameters.bar * self.tracking_parameters.patience

    def step(self, outputs, *, index, timestamp, height, width):
        return FrameResult(index, timestamp, height, width)

    def summaries(self):
        return []

    def state(self):
        return {}

    def load_state(self, arrays):
        pass


def test_a_method_names_the_models_of_its_parameters():
    made = Counter(["a"], window=ONLINE, decode={"bar": 0.5}, tracking={})
    assert (made.decode_parameters, made.tracking_parameters) == (Decode(bar=0.5), Tracking(patience=3))
    assert made.limit == 1.5


@pytest.mark.parametrize(
    ("decode", "tracking", "field"),
    [
        ({}, {}, r"decode\.bar"),
        ({"bar": "high"}, {}, r"decode\.bar"),
        ({"bar": 0.5, "surprise": 1}, {}, r"decode\.surprise"),
        ({"bar": 0.5}, {"patience": 0.5}, r"tracking\.patience"),
    ],
)
def test_a_parameter_that_does_not_fit_its_model_is_named(decode, tracking, field):
    with pytest.raises(BundleError, match=f"field '{field}'"):
        Counter(["a"], window=ONLINE, decode=decode, tracking=tracking)


@pytest.mark.parametrize("method", sorted(DECODERS))
@pytest.mark.parametrize("field", ["decode", "tracking"])
def test_no_method_ignores_an_unknown_parameter(method, field):
    window = ONLINE if issubclass(DECODERS[method], OnlineDecoder) else CLIP
    with pytest.raises(BundleError, match=rf"field '{field}\.surprise'"):
        DECODERS[method](["a"], window=window, **({"decode": {}, "tracking": {}} | {field: {"surprise": 1}}))


@pytest.mark.parametrize("method", sorted(DECODERS))
def test_there_is_one_constructor(method):
    assert DECODERS[method].__init__ is Decoder.__init__
