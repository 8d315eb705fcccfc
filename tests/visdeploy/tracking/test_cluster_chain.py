"""Chaining of windows: links by overlap, labels of shared frames, numbers of new tracks."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from visdeploy.tracking.cluster_chain import Chain, overlaps


def arrays(*rows):
    return [np.array(row, np.int32) for row in rows]


def test_shared_frames_keep_their_labels_and_others_continue_the_tracks():
    chain, fresh = Chain().add(range(2), arrays([0, 0, 1, -1], [0, 1, 1, 1]), 2)
    assert [fresh[t].tolist() for t in (0, 1)] == [[0, 0, 1, -1], [0, 1, 1, 1]]
    chain, fresh = chain.add(range(1, 3), arrays([1, 0, 0, 2], [0, 1, 2, -1]), 3)
    assert list(fresh) == [2]
    assert fresh[2].tolist() == [1, 0, 4, -1]
    assert [(link.track, link.cluster) for link in chain.links] == [(0, 1), (1, 0)]
    assert chain.previous[1].tolist() == [0, 1, 1, 1]
    assert chain.next_label == 5


def test_a_pair_is_linked_even_without_common_pixels():
    chain, _ = Chain().add(range(1), arrays([0, -1]), 1)
    chain, fresh = chain.add(range(2), arrays([-1, 0], [0]), 1)
    assert fresh[1].tolist() == [0]
    assert chain.links[0].cost == 1


def test_without_shared_frames_all_clusters_are_new():
    chain, _ = Chain().add(range(1), arrays([0]), 1)
    chain, fresh = chain.add(range(1, 2), arrays([0]), 1)
    assert (fresh[1].tolist(), chain.links) == ([1], ())


def test_windows_without_clusters():
    chain, fresh = Chain().add(range(2), arrays([], [-1]), 0)
    assert (chain.next_label, fresh[1].tolist()) == (0, [-1])
    chain, fresh = chain.add(range(1, 3), arrays([0], [0]), 1)
    assert fresh[2].tolist() == [0]


@given(st.lists(st.tuples(st.integers(-1, 3), st.integers(-1, 3)), min_size=1, max_size=40))
def test_overlaps_are_those_of_sets(pairs):
    old, new = (np.array(side, np.int32) for side in zip(*pairs, strict=True))
    rows, columns, iou = overlaps(old, new)
    for r, a in enumerate(rows):
        for c, b in enumerate(columns):
            one, other = set(np.flatnonzero(old == a)), set(np.flatnonzero(new == b))
            assert iou[r, c] == len(one & other) / len(one | other)
