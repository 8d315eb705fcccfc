"""Clustering of embeddings, by the library and in NumPy: recorded scenes, the plain algorithm, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.clustering import plain, synthetic_window
from tests.goldens.core import Golden
from tests.goldens.vishv_clusters import check_clustering
from visdeploy.tracking import cluster_search, embedding_clusters
from visdeploy.tracking.cluster_rule import OUTLIER, ClusterRule, largest_distance
from visdeploy.tracking.embedding_clusters import find_clusters
from visdeploy.tracking.embedding_points import Points


@pytest.fixture(params=["library", "numpy"])
def search(request, monkeypatch):
    """The search that `find_clusters` uses."""
    assert embedding_clusters.library_search() is not None
    if request.param == "numpy":
        monkeypatch.setattr(embedding_clusters, "library_search", lambda: None)


@pytest.mark.isa
@pytest.mark.usefixtures("search")
def test_recorded_scenes(shared):
    golden = Golden(shared / "goldens" / "vishv")
    check_clustering(golden)
    assert golden.report.checked > 150
    assert golden.report.unchecked == []
    assert [row for row in golden.report.rows if not row.ok] == []


def points_of(window):
    return Points.of(*window[:3], list(window[3]))


@pytest.mark.isa
@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 24), st.integers(1, 30)),
    objects=st.integers(1, 6),
    clusters=st.integers(1, 8),
    primary=st.floats(0.05, 0.95),
    secondary=st.floats(0.05, 0.95),
    noise=st.sampled_from([0.0, 0.2, 1.0]),
    block=st.sampled_from([1, 7, 64, 16384]),
    threads=st.integers(1, 3),
)
def test_labels_are_those_of_the_plain_algorithm(
    seed, size, objects, clusters, primary, secondary, noise, block, threads
):
    generator = np.random.default_rng(seed)
    window = synthetic_window(generator, 3, size, objects)
    window[0][...] += generator.normal(0, noise, window[0].shape).astype(np.float32)
    window[2][...] = np.round(window[2], 1)  # many equal seeds
    rule = ClusterRule(0.3, primary, secondary, clusters, (0.3, 0.2, 0.5))
    wanted = plain(*window, rule)
    found = find_clusters(points_of(window), rule, threads)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_search, "_BLOCK", block)
        patch.setattr(cluster_search, "_SERIAL", 0)
        patch.setattr(embedding_clusters, "library_search", lambda: None)
        other = find_clusters(points_of(window), rule, threads)
    for each in (found, other):
        assert np.array_equal(each.labels, wanted)
        assert len(each) <= clusters
        assert set(np.unique(each.labels)) <= set(range(OUTLIER, len(each)))
    assert np.array_equal(found.seeds, other.seeds)
    assert np.array_equal(found.centers, other.centers)
    assert np.array_equal(found.stds, other.stds)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    clusters=st.integers(0, 6),
    minimum=st.sampled_from([-np.inf, 0.0, 0.3]),
    odd=st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, 1e-30, 3e38]),
    where=st.sampled_from([0, 1, 2]),
    share=st.sampled_from([0.01, 0.3, 1.0]),
)
def test_library_and_numpy_agree_about_odd_numbers(seed, clusters, minimum, odd, where, share):
    generator = np.random.default_rng(seed)
    window = synthetic_window(generator, 2, (9, 17), 3)
    window[where][generator.random(window[where].shape) < share] = odd
    rule = ClusterRule(minimum, 0.5, 0.3, clusters, (0.3, 0.2, 0.5))
    with np.errstate(all="ignore"):
        found = find_clusters(points_of(window), rule)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(embedding_clusters, "library_search", lambda: None)
            other = find_clusters(points_of(window), rule)
    assert np.array_equal(found.labels, other.labels)
    assert np.array_equal(found.seeds, other.seeds)


@pytest.mark.usefixtures("search")
def test_a_pixel_at_equal_distance_of_two_clusters_belongs_to_the_first():
    embeddings = np.array([0, 1, 2], np.float32).reshape(1, 1, 1, 3)
    seediness = np.array([0.9, 0.1, 0.95], np.float32).reshape(1, 1, 3)
    window = embeddings, np.full_like(embeddings, 3), seediness, np.ones((1, 1, 3), bool)
    found = find_clusters(points_of(window), ClusterRule())
    assert found.labels.tolist() == plain(*window, ClusterRule()).tolist() == [1, 0, 0]


@pytest.mark.usefixtures("search")
def test_an_empty_foreground_has_no_clusters():
    window = synthetic_window(np.random.default_rng(0), 2, (6, 8), 1)
    found = find_clusters(points_of((*window[:3], np.zeros_like(window[3]))), ClusterRule(free_dim_stds=(0.3,) * 3))
    assert (len(found), found.labels.shape, found.centers.shape) == (0, (0,), (0, 6))


@pytest.mark.usefixtures("search")
def test_values_that_are_not_finite_end_the_search_and_join_no_cluster():
    window = synthetic_window(np.random.default_rng(0), 2, (12, 16), 2)
    rule = ClusterRule(min_seediness=0.5, free_dim_stds=(0.3,) * 3)
    good = find_clusters(points_of(window), rule)
    bad = np.zeros_like(window[3])
    bad[:, 3:5, 4:6] = True
    window[0][:, 2][bad] = np.nan
    found = find_clusters(points_of(window), rule)
    labels = np.full(bad.shape, OUTLIER)
    labels[window[3]] = found.labels
    assert (labels[bad] == OUTLIER).all()
    assert len(found) <= rule.max_clusters
    assert len(good) > 0


@given(st.floats(1e-6, 1 - 1e-6))
def test_the_largest_distance_is_the_last_one_inside(probability):
    limit = largest_distance(probability)
    after = np.nextafter(limit, np.float32(np.inf))
    assert np.exp(limit / np.float32(-2)) > np.float32(probability) >= np.exp(after / np.float32(-2))


def test_a_probability_of_one_excludes_everything():
    assert largest_distance(1.0) < 0
