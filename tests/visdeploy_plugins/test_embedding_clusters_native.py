"""`vd_embedding_clusters`: what it refuses, and that nothing is written then.

Its results are compared with NumPy in `tests/visdeploy/tracking/test_embedding_clusters.py`.
"""

import numpy as np
import pytest

from tests.visdeploy_plugins.support import view
from visdeploy_plugins import native
from visdeploy_plugins.errors import OpError

FRAMES, DIMENSIONS, PREDICTED, PIXELS, CLUSTERS = 2, 3, 2, 5, 4


def call(change=(), params=(0.5, 1.0, 1.5, CLUSTERS), threads=1):
    arrays = {
        "embeddings": np.zeros((FRAMES, DIMENSIONS, PIXELS), np.float32),
        "bandwidths": np.ones((FRAMES, PREDICTED, PIXELS), np.float32),
        "free_bandwidths": np.ones(DIMENSIONS - PREDICTED, np.float32),
        "seediness": np.ones((FRAMES, PIXELS), np.float32),
        "counts": np.array([3, 2]),
        "places": np.array([0, 2, 4, 1, 3]),
        "labels": np.full(5, 77, np.int32),
        "seeds": np.full(CLUSTERS, 77, np.int64),
    }
    arrays["embeddings"][1] = 9  # a second object
    arrays.update(change)
    written = arrays["labels"], arrays["seeds"]
    try:
        native.call(
            "vd_embedding_clusters",
            [view(each) for each in arrays.values()],
            params=native.EmbeddingClustersParams(*params),
            threads=threads,
        )
    except OpError:
        assert all((each == 77).all() for each in written)
        raise
    return written


@pytest.mark.parametrize("threads", [-1, 1, 3])
def test_two_objects(threads):
    labels, seeds = call(threads=threads)
    assert labels.tolist() == [0, 0, 0, 1, 1]
    assert seeds.tolist() == [0, 3, -1, -1]


def test_no_point_no_frame_and_no_cluster():
    none = {"counts": np.zeros(FRAMES, np.int64), "places": np.zeros(0, np.int64), "labels": np.zeros(0, np.int32)}
    assert call(none)[1].tolist() == [-1] * CLUSTERS
    labels, _ = call({"seeds": np.zeros(0, np.int64)}, params=(0.5, 1.0, 1.5, 0))
    assert labels.tolist() == [-1] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings": np.zeros((FRAMES, DIMENSIONS, PIXELS))}, "tensor embeddings has the wrong dtype"),
        ({"embeddings": np.zeros((FRAMES, 1, PIXELS), np.float32)}, "tensor embeddings has the wrong shape"),
        ({"embeddings": np.zeros((FRAMES, PIXELS), np.float32)}, "wrong number of dimensions"),
        ({"embeddings": np.zeros((FRAMES, PIXELS, DIMENSIONS), np.float32).transpose(0, 2, 1)}, "contiguous"),
        ({"bandwidths": np.zeros((FRAMES, PREDICTED, PIXELS + 1), np.float32)}, "tensor bandwidths"),
        ({"free_bandwidths": np.zeros(DIMENSIONS, np.float32)}, "tensor free_bandwidths"),
        ({"seediness": np.zeros((FRAMES + 1, PIXELS), np.float32)}, "tensor seediness"),
        ({"counts": np.array([3, 3])}, "tensor counts at 1"),
        ({"counts": np.array([-1, 6])}, "tensor counts at 0"),
        ({"counts": np.array([3, 1])}, "tensor counts has the wrong sum"),
        ({"places": np.array([0, 2, 5, 1, 3])}, "tensor places at 2"),
        ({"places": np.array([0, 2, -1, 1, 3])}, "tensor places at 2"),
        ({"labels": np.full(4, 77, np.int32)}, "tensor labels"),
        ({"seeds": np.full(CLUSTERS + 1, 77, np.int64)}, "tensor seeds"),
    ],
)
def test_wrong_tensors_are_refused(change, message):
    with pytest.raises(OpError, match=f"embedding_clusters: .*{message}.*seen: .*expected: "):
        call(change)


def test_a_wrong_number_of_clusters_is_refused():
    with pytest.raises(OpError, match=r"parameter max_clusters .*seen: -1; expected: from 0"):
        call(params=(0.5, 1.0, 1.5, -1))
