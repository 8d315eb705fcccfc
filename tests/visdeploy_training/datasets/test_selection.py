"""Selection of objects and frames."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import rectangle
from visdeploy.errors import DataError
from visdeploy_training.datasets import ClipRecord, InstanceRecord, select
from visdeploy_training.datasets.categories import IGNORED
from visdeploy_training.datasets.ignoring import hide_ignored
from visdeploy_training.datasets.selection import LONGEST_GAP, frames_with_objects


def box(width, x=0):
    return rectangle(20, 40, 2, x, 5, width)


def video(*tracks, label=0, ignore=None):
    """A video whose objects have the given widths in each frame, 0 for absent."""
    instances = [InstanceRecord(label, tuple(box(w, 8 * k) if w else None for w in t)) for k, t in enumerate(tracks)]
    files = tuple(Path(f"{t}.png") for t in range(len(tracks[0])))
    return ClipRecord("v", 20, 40, files, tuple(instances), ignore)


def areas(record):
    return [[m.area if m else 0 for m in i.masks] for i in record.instances]


def frames(record):
    return [int(file.stem) for file in record.files]


def test_small_objects_are_dropped_by_their_largest_frame():
    record = video([1, 6], [2, 2])
    assert areas(select([record], min_area=30)[0]) == [[5, 30]]
    assert select([record], min_area=10)[0] is record
    assert areas(select([record], min_area=31)[0]) == []


def test_objects_beyond_the_largest_ones_are_ignored():
    (found,) = select([video([1], [4], [4], [3])], max_objects=2)
    assert areas(found) == [[20], [20]]
    assert found.ignore[0].area == 5 + 15


def test_few_objects_ignore_nothing():
    (found,) = select([video([1], [4])], max_objects=2)
    assert found.ignore is None


def test_new_ignored_objects_join_earlier_ones():
    record = video([1, 0], [4, 4], ignore=(None, box(2, 30)))
    (found,) = select([record], max_objects=1)
    assert [m.area for m in found.ignore] == [5, 10]


def test_frames_without_objects_are_dropped():
    (found,) = select([video([1, 0, 2, 0, 0], [0, 0, 3, 0, 4], ignore=(None, box(1), None, box(2), box(3)))],
                      empty_frames="drop")  # fmt: skip
    assert frames(found) == [0, 2, 4]
    assert areas(found) == [[5, 10, 0], [0, 15, 20]]
    assert [m.area if m else 0 for m in found.ignore] == [0, 0, 15]


@pytest.mark.parametrize(
    ("gap", "pieces"), [(0, [[1, 2, 3, 4]]), (5, [[1, 2, *range(3, 8), 8, 9]]), (6, [[1, 2], [9, 10]])]
)
def test_videos_are_cut_at_long_gaps(gap, pieces):
    record = video([0, 1, 1, *[0] * gap, 1, 1, 0])
    found = select([record], empty_frames="cut")
    assert [frames(piece) for piece in found] == pieces
    assert len({piece.name for piece in found}) == len(pieces)


@given(shown=st.lists(st.booleans(), min_size=2, max_size=60))
def test_pieces_are_whole_and_have_no_long_gap(shown):
    record = video([int(s) for s in shown])
    try:
        pieces = select([record], empty_frames="cut")
    except DataError:
        pieces = []
    for piece in pieces:
        own = frames(piece)
        assert own == list(range(own[0], own[-1] + 1))
        assert shown[own[0]]
        assert shown[own[-1]]
        assert f"{0:d}" * (LONGEST_GAP + 1) not in "".join(str(int(shown[t])) for t in own)
    kept = {t for piece in pieces for t in frames(piece)}
    lost = [t for t, s in enumerate(shown) if s and t not in kept]
    # a single frame between two gaps is no video
    assert all(not any(shown[max(0, t - LONGEST_GAP - 1) : t] + shown[t + 1 : t + LONGEST_GAP + 2]) for t in lost)


def test_images_and_videos_without_objects_are_dropped():
    records = [video([0]), video([3]), video([0, 0, 0]), video([0, 1, 0]), video([1, 0, 1])]
    assert [frames(r) for r in select(records, empty_frames="drop")] == [[0], [0, 2]]
    assert select(records) == records
    with pytest.raises(DataError, match=r"set\.json: no video or image with objects.*class_map"):
        select(records[:1], empty_frames="cut", source="set.json")


def test_ignored_labels_become_ignored_pixels():
    record = video([2, 0], [3, 0], label=IGNORED, ignore=(box(1, 30), None))
    found = hide_ignored(record)
    assert found.instances == ()
    assert [m.area if m else None for m in found.ignore] == [10 + 15 + 5, None]
    plain = video([1])
    assert hide_ignored(plain) is plain


def test_frames_with_objects():
    assert frames_with_objects(video([0, 1], [1, 0])) == [0, 1]
