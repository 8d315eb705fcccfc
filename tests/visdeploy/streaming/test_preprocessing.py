"""Preprocessing: the recorded frame, the arithmetic, sizes, and invalid frames."""

import json

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

from visdeploy.errors import SourceError
from visdeploy.json_fields import MAX_SIDE
from visdeploy.manifest import Preprocessing
from visdeploy.streaming.preprocessing import Preprocessor

pytestmark = pytest.mark.isa

MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]


def spec(**changes):
    return Preprocessing(**({"channel_order": "rgb", "mean": MEAN, "std": STD, "height": 24, "width": 40} | changes))


def image(height=50, width=70, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def by_the_letter(frame, height, width, order, mean, std):
    resized = np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))
    channels = resized[:, :, ::-1] if order == "bgr" else resized
    return ((channels.astype(np.float32) - np.float32(mean)) / np.float32(std)).transpose(2, 0, 1)[None]


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_resize_order_and_normalisation(order):
    found = Preprocessor(spec(channel_order=order))(image())
    assert np.array_equal(found, by_the_letter(image(), 24, 40, order, MEAN, STD))
    assert (found.dtype, found.flags.c_contiguous) == (np.float32, True)


def test_recorded_preprocessing_of_the_official_size(shared, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / "goldens"))
    from seeded import seeded_frames

    frames = np.asarray(seeded_frames("visolo-h", 4, 180, 320))
    official = Preprocessor(spec(height=352, width=624))
    with np.load(shared / "goldens" / "visolo" / "official_size_h.npz") as data:
        resized, normalised, sums = (
            data[f"input/{name}"] for name in ("resized_u8_f0", "frame0", "resized_u8_sum_per_frame")
        )
    tensor = official(frames[0])
    np.testing.assert_allclose(tensor[:, :, ::4, ::4], normalised, rtol=0, atol=1e-6)
    plain = Preprocessor(spec(height=352, width=624, mean=[0, 0, 0], std=[1, 1, 1]))
    assert np.array_equal(plain(frames[0])[0].transpose(1, 2, 0)[::8, ::8], resized)
    assert [int(plain(f).sum(dtype=np.float64)) for f in frames] == sums.tolist()


@pytest.mark.parametrize(
    ("size", "short", "long", "wanted"),
    [
        ((360, 640), 352, 9999, (352, 626)),
        ((640, 360), 352, 9999, (626, 352)),
        ((100, 1000), 352, 500, (50, 500)),
        ((7, 7), 3, 10, (3, 3)),
        ((1, 900), 4, 30, (1, 30)),
    ],
)
def test_shortest_edge_keeps_the_aspect_ratio(size, short, long, wanted):
    made = Preprocessor(spec(resize="shortest_edge", height=short, width=long))
    assert made.content_size(*size) == wanted
    assert made(image(*size)).shape == (1, 3, *wanted)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(1, 2000))
def test_rounding_down_never_loses_a_whole_pixel(height, width, short):
    long = short * max(height, width) // min(height, width)
    assume(long < MAX_SIDE)
    made = Preprocessor(spec(resize="shortest_edge", rounding="down", height=short, width=MAX_SIDE))
    rows, columns = made.content_size(height, width)
    assert (min(rows, columns), max(rows, columns)) == (short, long)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 8, 32]))
def test_padding_is_zero_and_right_below(height, width, divisor):
    plain = Preprocessor(spec(resize="shortest_edge", height=20, width=60))
    padded = Preprocessor(spec(resize="shortest_edge", height=20, width=60, pad_divisor=divisor))
    frame = image(height, width)
    small, large = plain(frame), padded(frame)
    rows, columns = small.shape[2:]
    assert large.shape[2:] == padded.tensor_size(height, width)
    assert all(0 <= a - b < divisor and a % divisor == 0 for a, b in zip(large.shape[2:], (rows, columns), strict=True))
    assert np.array_equal(large[:, :, :rows, :columns], small)
    assert not large[:, :, rows:].any()
    assert not large[:, :, :, columns:].any()


def test_views_are_welcome_and_not_changed():
    frame = image()
    view = frame[::-1, ::-1, ::-1]
    made, before = Preprocessor(spec()), frame.copy()
    assert np.array_equal(made(view), made(np.ascontiguousarray(view)))
    assert np.array_equal(frame, before)
    read_only = image(24, 40)
    read_only.setflags(write=False)
    assert made(read_only).shape == (1, 3, 24, 40)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (image().astype(np.float32), "wrong type"),
        (image().astype(np.int64), "wrong type"),
        (image()[:, :, 0], "wrong shape"),
        (image().transpose(2, 0, 1), "wrong shape"),
        (np.zeros((4, 4, 4), np.uint8), "wrong shape"),
        (np.zeros((0, 4, 3), np.uint8), "empty"),
        (image().tolist(), "not an array"),
        (None, "not an array"),
    ],
)
def test_what_is_no_frame_is_refused(frame, message):
    with pytest.raises(SourceError, match=message):
        Preprocessor(spec())(frame)


def test_opencv_resizes_as_opencv():
    import cv2

    frame = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    values = {"channel_order": "rgb", "mean": [0] * 3, "std": [1] * 3, "height": 20, "width": 30}
    found = Preprocessor(Preprocessing(**values, interpolation="opencv_bilinear"))(frame)[0].transpose(1, 2, 0)
    assert np.array_equal(found, cv2.resize(frame, (30, 20), interpolation=cv2.INTER_LINEAR))
    assert not np.array_equal(found, Preprocessor(Preprocessing(**values))(frame)[0].transpose(1, 2, 0))


def float_spec(**changes):
    options = {"resize": "shortest_edge", "rounding": "half_even", "interpolation": "float_bilinear"}
    return spec(**(options | changes))


def test_float_frames_are_scaled_as_recorded_for_vishv(shared, monkeypatch):
    monkeypatch.syspath_prepend(str(shared / "goldens"))
    from seeded import seeded_frames

    frames = np.asarray(seeded_frames("vishv/ytvis_a", 12, 100, 150))
    options = {"channel_order": "bgr", "mean": [102.9801, 115.9465, 122.7717], "std": [1, 1, 1], "pad_divisor": 32}
    prepare = Preprocessor(float_spec(height=96, width=160, **options))
    with np.load(shared / "goldens" / "vishv" / "ytvis_r50.npz") as data:
        recorded = [data[f"vishv/ytvis_a/{name}"] for name in ("input_frame0", "input_last")]
    for frame, wanted, step in zip((frames[0], frames[-1]), recorded, (2, 4), strict=True):
        np.testing.assert_allclose(prepare(frame)[0, :, ::step, ::step], wanted, rtol=1e-4, atol=1e-4)
    rounded = Preprocessor(float_spec(height=96, width=160, **options, interpolation="opencv_bilinear"))
    assert np.abs(rounded(frames[0])[0, :, ::2, ::2] - recorded[0]).max() > 0.3, "uint8 pixels are rounded"


@pytest.mark.parametrize(
    ("height", "width", "short", "long"),
    [(100, 150, 96, 160), (72, 110, 96, 160), (360, 640, 352, 640), (480, 640, 240, 400), (97, 61, 200, 300)],
)
def test_float_frames_are_scaled_as_pytorch_scales_them(height, width, short, long):
    torch = pytest.importorskip("torch")
    frame = image(height, width)
    made = Preprocessor(float_spec(height=short, width=long, mean=[0, 0, 0], std=[1, 1, 1]))
    tensor = torch.from_numpy(frame).permute(2, 0, 1)[None].float()
    size = made.content_size(height, width)
    # PyTorch's coordinates have the precision of its pixels: 0.01 of 255 on noise of this size in float32
    for each, limit in ((tensor.double(), 1e-4), (tensor, 2e-2)):
        wanted = torch.nn.functional.interpolate(each, size, mode="bilinear", align_corners=False).numpy()
        np.testing.assert_allclose(made(frame), wanted, rtol=0, atol=limit)


@pytest.mark.parametrize(
    ("size", "short", "long", "wanted"),
    [
        ((100, 125), 98, 999, (98, 122)),  # 122.5: to the even number
        ((100, 125), 98, 110, (88, 110)),
        ((100, 175), 98, 999, (98, 172)),  # 171.5
        ((480, 854), 736, 1248, (701, 1248)),
        ((375, 1242), 736, 1792, (541, 1792)),
        ((1, 1), 352, 640, (352, 352)),
        ((1, 999), 4, 30, (1, 30)),
    ],
)
def test_halves_are_rounded_to_even(size, short, long, wanted):
    assert Preprocessor(float_spec(height=short, width=long)).content_size(*size) == wanted


def test_sizes_are_those_of_the_recording_of_vishv(shared):
    tables = json.loads((shared / "goldens" / "vishv" / "aux.json").read_text(encoding="utf-8"))
    for case in tables["resize"]:
        made = Preprocessor(float_spec(height=case["min_dim"], width=case["max_dim"]))
        assert list(made.content_size(case["height"], case["width"]))[::-1] == case["resized"]
