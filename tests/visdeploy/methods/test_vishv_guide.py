"""Certificates of VIShv: near-ties are decided alike and counted; wrong clusters, tracks and classes fail."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.goldens.vishv_clusters import window_frames
from tests.visdeploy.clip_graph import LENGTH, STRIDE
from tests.visdeploy.vishv_graph import make_vishv_bundle
from visdeploy.manifest import Manifest
from visdeploy.methods.base import Decoder
from visdeploy.methods.vishv import VIShvDecoder
from visdeploy.methods.vishv_ties import FREE, Slack, at_threshold, follow_clusters, replay
from visdeploy.parity.certificate import Certificate, certificate_rows
from visdeploy.parity.meter import ParityMeter
from visdeploy.tracking.cluster_chain import Chain, Link
from visdeploy.tracking.cluster_rule import ClusterRule
from visdeploy.tracking.embedding_clusters import find_clusters
from visdeploy.tracking.embedding_points import Points

Maps = dict[str, npt.NDArray[np.float32]]
Change = Callable[[Maps], None]
ROWS, COLUMNS, FRAMES = 24, 40, LENGTH + 2 * STRIDE
BORDER = np.float32(np.sqrt((2 * np.log(2)) ** 2 / 10))
"""Distance from a centre at which the membership of a cluster with a bandwidth of 10 is the primary threshold."""
LEFT, RIGHT = (12, 10), (12, 30)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    pytest.importorskip("onnx")
    size = {"height": 4 * ROWS, "width": 4 * COLUMNS}
    preprocessing = {"channel_order": "rgb", "mean": [0.0] * 3, "std": [255.0] * 3, **size}
    return make_vishv_bundle(tmp_path_factory.mktemp("guide") / "m.vis", preprocessing=preprocessing).manifest


def scene() -> Maps:
    """Return the outputs of all frames: two still discs of 149 pixels, each with its own embedding and class."""
    maps = {
        "embeddings": np.zeros((FRAMES, 3, ROWS, COLUMNS), np.float32),
        "bandwidths": np.full((FRAMES, 3, ROWS, COLUMNS), 10, np.float32),
        "seediness": np.zeros((FRAMES, ROWS, COLUMNS), np.float32),
        "class_logits": np.zeros((FRAMES, 4, ROWS, COLUMNS), np.float32),
        "foreground_logits": np.full((FRAMES, ROWS, COLUMNS), -1, np.float32),
    }
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    for number, (row, column) in enumerate((LEFT, RIGHT)):
        distance = np.hypot(rows - row, columns - column)
        disc = distance < 7
        maps["embeddings"][:, 0, disc] = 2 * number + (distance / 60)[disc]
        maps["seediness"][:, disc] = (0.95 - 0.1 * number - distance / 100)[disc]
        maps["class_logits"][:, 1 + number, disc] = 3
        maps["foreground_logits"][:, disc] = 1
    return maps


def certify(manifest: Manifest, candidate: Change, reference: Change = lambda maps: None) -> Certificate:
    """Compare two changed copies of the scene over three windows."""
    sides = [scene() for _ in range(2)]
    for maps, change in zip(sides, (reference, candidate), strict=True):
        change(maps)
    meter = ParityMeter(manifest, height=4 * ROWS, width=4 * COLUMNS)
    for frames, step in window_frames(FRAMES, manifest.window):
        first, second = ({name: each[frames] for name, each in maps.items()} for maps in sides)
        meter.update(first, second, step)
    meter.finish()
    return meter.certificate(reference="a", candidate="b", source="two discs")


def at(place: tuple[int, int], offset: float, *, channel: int = 0) -> Change:
    """Return a change of the embedding 5 pixels beside a centre: its distance is that of the border plus an offset."""

    def change(maps: Maps) -> None:
        row, column = place
        maps["embeddings"][:, channel, row, column + 5] = maps["embeddings"][0, 0, row, column] + BORDER + offset

    return change


def weak(place: tuple[int, int], offset: float) -> Change:
    """Return the change of `at` for a pixel that cannot be a seed."""

    def change(maps: Maps) -> None:
        at(place, offset)(maps)
        maps["seediness"][:, place[0], place[1] + 5] = 0.3

    return change


def foreground(value: float) -> Change:
    def change(maps: Maps) -> None:
        maps["foreground_logits"][3, 12, 17] = value  # beside the left disc

    return change


def best_seed(place: tuple[int, int], value: float) -> Change:
    def change(maps: Maps) -> None:
        maps["seediness"][:, place[0], place[1]] = value

    return change


def tracks_fail(certificate: Certificate) -> bool:
    return any(each.startswith("tracks:") for each in certificate.failures)


def without_following(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VIShvDecoder, "follow", Decoder.follow)


def test_equal_outputs_have_no_near_ties(manifest: Manifest) -> None:
    certificate = certify(manifest, lambda maps: None)
    assert certificate.passed
    assert certificate.tracks.matched == 2 * FRAMES
    assert certificate.tracks_note == ""


NEAR_TIES = {
    "a pixel at the border of a cluster": (at(LEFT, -2e-4), at(LEFT, 2e-4), "pixels at a threshold"),
    "a pixel at the border that cannot be a seed": (weak(LEFT, -2e-4), weak(LEFT, 2e-4), "pixels at a threshold"),
    "a pixel at the threshold of the foreground": (foreground(3e-4), foreground(-3e-4), "1 of "),
    "seeds of two objects": (best_seed(RIGHT, 0.9502), best_seed(RIGHT, 0.9498), "tied seeds"),
}


@pytest.mark.parametrize("case", NEAR_TIES)
def test_near_ties_pass_and_are_counted(manifest: Manifest, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, note = NEAR_TIES[case]
    certificate = certify(manifest, second, first)
    assert certificate.passed, certificate.failures
    assert certificate.smallest_mask_iou == 1
    assert note in certificate.tracks_note
    assert any(certificate.tracks_note in found for _, found, _ in certificate_rows(certificate.model_dump()))
    without_following(monkeypatch)
    assert tracks_fail(certify(manifest, second, first)), "otherwise there is nothing to follow"


def give_block_away(maps: Maps) -> None:
    maps["embeddings"][:, 0, 8:17, 6:10] += 2  # 36 pixels of the left disc get the embedding of the right one


def swap_classes(maps: Maps) -> None:
    maps["class_logits"][:, 1:3] = maps["class_logits"][:, 2:0:-1].copy()


def lose_object(maps: Maps) -> None:
    maps["foreground_logits"][:, :, COLUMNS // 2 :] = -1


def merge_objects(maps: Maps) -> None:
    maps["embeddings"][:, 0, :, COLUMNS // 2 :] -= 2


def split_object(maps: Maps) -> None:
    maps["embeddings"][:, 1, :12, : COLUMNS // 2] = 2


FAULTS: dict[str, Change] = {
    "a block in another cluster": give_block_away,
    "classes exchanged": swap_classes,
    "an object lost": lose_object,
    "two objects as one": merge_objects,
    "an object as two": split_object,
    "seeds that are not tied": best_seed(RIGHT, 0.96),
    "a pixel far from the border": at(LEFT, 0.1),
    "foreground far from its threshold": foreground(0.5),
}


@pytest.mark.parametrize("case", FAULTS)
def test_wrong_clusters_tracks_and_classes_fail(manifest: Manifest, case: str) -> None:
    certificate = certify(manifest, FAULTS[case])
    assert tracks_fail(certificate), certificate.tracks_note
    assert not certificate.passed


@pytest.mark.parametrize(
    ("reference", "candidate"),
    [
        (at(LEFT, -2e-4), at(LEFT, 0.1)),
        (weak(LEFT, -2e-4), weak(LEFT, 0.1)),
        (foreground(3e-4), foreground(-0.5)),
    ],
)
def test_a_value_that_is_far_from_a_threshold_on_one_side_fails(
    manifest: Manifest, reference: Change, candidate: Change
) -> None:
    assert tracks_fail(certify(manifest, candidate, reference))


def test_many_pixels_that_jump_over_the_border_fail(manifest: Manifest) -> None:
    """Only the reference decides which pixels are at a threshold."""

    def jump(maps: Maps) -> None:
        maps["embeddings"][:, 0, 8:17, 6:10] = maps["embeddings"][0, 0, 12, 10] + BORDER + np.float32(2e-4)

    certificate = certify(manifest, jump)
    assert tracks_fail(certificate)


def points(maps: Maps) -> Points:
    foreground = list(maps["foreground_logits"] > 0)
    return Points.of(maps["embeddings"], maps["bandwidths"], maps["seediness"], foreground)


def noisy_scene(seed: int, noise: float) -> Maps:
    maps, generator = scene(), np.random.default_rng(seed)
    maps["embeddings"] += generator.normal(0, noise, maps["embeddings"].shape).astype(np.float32)
    maps["seediness"] = generator.random(maps["seediness"].shape, np.float32)
    return maps


SLACK = Slack(seediness=1e-6, embeddings=5e-4, bandwidths=1e-6)


@pytest.mark.parametrize("limit", [1, 3, 20])
def test_clusters_with_nothing_to_follow_are_the_same(limit: int) -> None:
    maps = noisy_scene(0, 0.2)
    rule = ClusterRule(min_seediness=0.3, secondary_threshold=0.1, max_clusters=limit)
    found = find_clusters(points(maps), rule)
    assert len(found) > 1 or limit == 1
    again = replay(points(maps), rule, found.seeds.tolist(), np.full_like(found.labels, FREE), SLACK)
    assert (again.seeds, again.pixels) == (0, 0)
    for name in ("labels", "seeds", "centers", "stds"):
        np.testing.assert_array_equal(getattr(again.clusters, name), getattr(found, name))


@pytest.mark.parametrize("limit", [2, 20])
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32 - 1), noise=st.sampled_from([0.1, 0.2]))
def test_pixels_that_rounding_moves_are_at_a_threshold(limit: int, seed: int, noise: float) -> None:
    rule = ClusterRule(min_seediness=0.3, secondary_threshold=0.1, max_clusters=limit)
    maps = noisy_scene(seed, noise)
    rounding = np.random.default_rng(seed).uniform(-5e-4, 5e-4, maps["embeddings"].shape).astype(np.float32)
    first, second = points(maps), points(maps | {"embeddings": maps["embeddings"] + rounding})
    found = find_clusters(first, rule)
    followed = follow_clusters(second, first, found, rule, SLACK)
    np.testing.assert_array_equal(followed.clusters.labels, found.labels)
    doubt = at_threshold(first, rule, found.seeds.tolist(), SLACK)
    assert followed.pixels <= np.count_nonzero(doubt) < 0.1 * len(first)


def test_points_are_found_at_their_pixels() -> None:
    first, second = scene(), scene()
    second["foreground_logits"][0, : LEFT[0], : COLUMNS // 2] = -1
    ours, theirs = points(first), points(second)
    places = [0, len(ours) // 2, len(ours) - 1]
    found = [theirs.point_at(*ours.pixel_of(each)) for each in places]
    assert found[0] is None
    assert [theirs.pixel_of(each) for each in found if each is not None] == [ours.pixel_of(p) for p in places[1:]]


@pytest.mark.parametrize(("slack", "expected"), [(0.01, [(0, 1), (1, 0)]), (0.0, [(0, 0), (1, 1)])])
def test_links_of_another_chain_are_made_only_if_nearly_the_best(slack: float, expected: list[tuple[int, int]]) -> None:
    old = np.repeat(np.array([0, 1], np.int32), 400)
    new = np.tile(np.array([0, 1], np.int32), 400)  # every cluster has half the pixels of every track
    new[1] = 0  # but the first one has one pixel more of the first track
    start, _ = Chain().add(range(1), [old], 2)
    best = start.add(range(2), [new, new], 2)[0].links
    assert [(link.track, link.cluster) for link in best] == [(0, 0), (1, 1)]
    other = [Link(link.track, 1 - link.cluster, link.cost) for link in best]
    chain, _ = start.add(range(2), [new, new], 2, preferred=other, slack=slack)
    assert sorted((link.track, link.cluster) for link in chain.links) == expected
