"""Filtering of tracks: each limit of each class, and the order of the rules."""

import pytest

from tests.support import rectangle
from visdeploy import DataError
from visdeploy.formats import load, save
from visdeploy.results import Track, VideoResult
from visdeploy.tracking.filtering import filtered


def result(label, masks, frames=40):
    return VideoResult("v", 50, 60, frames, ("car", "pedestrian", "tram"), [Track(3, label, 0.5, masks)])


def boxes(frames, height=20, width=20):
    return {t: rectangle(50, 60, 5, 5, height, width) for t in frames}


def kept(label, masks):
    tracks = filtered(result(label, masks)).tracks
    return sorted(tracks[0].masks) if tracks else []


@pytest.mark.parametrize(
    ("label", "masks", "wanted"),
    [
        (0, boxes(range(3)), [0, 1, 2]),
        (0, boxes(range(2)), []),
        (1, boxes(range(9)), []),
        (1, boxes(range(10)), list(range(10))),
        (0, boxes(range(3), 10, 15), [0, 1, 2]),
        (0, boxes(range(3), 10, 14), []),
        (1, boxes(range(10), 10, 24), []),
        (0, boxes([0, 2, 4, 6]), []),  # 3 gaps of 4 masks
        (0, boxes([0, 1, 2, 4]), [0, 1, 2, 4]),  # 1 gap of 4 masks
        (0, boxes([*range(7), 8, 10, 12]), [*range(7), 8, 10, 12]),  # 3 gaps of 10 masks, the largest share
        (0, boxes([0, 1, 2]) | boxes([3], 5, 5), [0, 1, 2]),
        (0, boxes([0, 1]) | boxes([2], 5, 5), []),  # short once the small mask is gone
    ],
)
def test_limits(label, masks, wanted):
    assert kept(label, masks) == wanted


def test_a_sparse_mask_is_removed():
    import numpy as np

    from visdeploy.masks import Mask

    dense = np.zeros((50, 60), bool)
    dense[:, 0], dense[0] = True, True
    dense[:2] = True
    sparse = Mask.encode(dense)
    assert sparse.area >= 150
    assert kept(0, boxes(range(3)) | {3: sparse}) == [0, 1, 2]


def test_a_class_without_a_rule_is_an_error():
    with pytest.raises(DataError, match="tram"):
        filtered(result(2, boxes(range(3))))


def test_mots_files_can_be_filtered(tmp_path):
    both = result(0, boxes(range(3)))
    both.tracks.append(Track(4, 1, 0.5, boxes(range(9))))
    save(both, tmp_path / "a.txt", filter_tracks=True)
    assert [t.track_id for t in load(tmp_path / "a.txt")[0].tracks] == [3]
    assert len(both.tracks) == 2
