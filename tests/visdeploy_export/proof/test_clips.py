"""The frames that certificates are made on."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest

from visdeploy.errors import ConfigError
from visdeploy_export.methods import build_step
from visdeploy_export.proof.clips import describe, moving_clip, open_frames


def test_the_synthetic_clip_is_always_the_same_and_always_moves():
    clip = moving_clip(4, 45, 80)
    assert clip.shape == (4, 45, 80, 3)
    assert clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, moving_clip(4, 45, 80))
    np.testing.assert_array_equal(clip[:2], moving_clip(2, 45, 80))
    assert not np.array_equal(clip, moving_clip(4, 45, 80, seed=1))
    for before, after in pairwise(clip):
        assert (before != after).mean() > 0.2
    assert clip.reshape(-1, 3).std(axis=0).min() > 20, "every channel carries a picture"
    assert np.abs(clip[..., 0].astype(int) - clip[..., 2]).mean() > 20, "the order of the channels matters"


def test_no_more_frames_are_taken_than_asked_for():
    def endless():
        while True:
            yield frame

    frame = np.zeros((4, 6, 3), np.uint8)
    assert len(list(open_frames(endless(), 5))) == 5


@pytest.mark.parametrize(
    ("source", "name"),
    [("/home/me/street.mp4", "street.mp4"), ("frames", "frames"), ([], "frames given by the caller")],
)
def test_descriptions_hold_no_folder(source, name):
    assert describe(source) == name


def test_a_method_without_a_builder():
    with pytest.raises(ConfigError, match="'other' cannot be exported"):
        build_step(SimpleNamespace(info=SimpleNamespace(method="other")))
