"""VIShv behind the network: recorded clips, streams of a small graph, saved streams, damaged input."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.goldens.core import Golden, Store
from tests.goldens.vishv_clusters import check_tables
from tests.goldens.vishv_tracks import check_first_window, check_foreground, check_stored
from tests.visdeploy.clip_graph import CLASSES, LENGTH, STRIDE, moving
from tests.visdeploy.streams import plain, plain_tracks
from tests.visdeploy.vishv_graph import make_vishv_bundle
from visdeploy import BundleError, StreamError, VISPredictor
from visdeploy.manifest import TensorSpec, Tolerance, Window
from visdeploy.masks.resampling import resize_padded_mask
from visdeploy.methods.vishv import VIShvDecoder
from visdeploy.methods.vishv_parity import ClusterAgreement
from visdeploy.methods.vishv_tracks import TrackTable, pixel_votes
from visdeploy.parity.measures import StepContext
from visdeploy.streaming.windows import Step
from visdeploy.tracking import cluster_search, embedding_clusters

MODELS = {
    "manifest.json": "ytvis_r50.npz",
    "manifest_stemseg_davis.json": "stemseg_davis_r101.npz",
    "manifest_stemseg_kitti.json": "stemseg_kitti_r50.npz",
}
COUNTS = (1, 3, LENGTH - 1, LENGTH, LENGTH + 1, LENGTH + STRIDE, LENGTH + STRIDE + 1, 31)
WINDOW = Window(mode="clip", length=4, stride=2, short_video="repeat_first_frame")


@pytest.mark.isa
@pytest.mark.parametrize("manifest", MODELS)
def test_clusters_and_results_are_those_of_the_recording(shared, manifest):
    golden = Golden(shared / "goldens" / "vishv")
    details = json.loads((golden.folder / manifest).read_text(encoding="utf-8"))
    store = Store(golden, MODELS[manifest])
    check_first_window(store, details["config"], details["clips"][0])
    for clip in details["clips"]:
        check_stored(store, details["config"], clip)
    assert golden.report.rows
    assert [row for row in golden.report.rows if not row.ok] == []


def test_the_foreground_without_semantic_head_is_that_of_the_recording(shared):
    golden = Golden(shared / "goldens" / "vishv")
    details = json.loads((golden.folder / "manifest_stemseg_davis.json").read_text(encoding="utf-8"))
    check_foreground(Store(golden, "stemseg_davis_r101.npz"), details["config"], details["clips"][0])
    assert [row.error for row in golden.report.rows] == [0]


def test_a_wrong_result_fails_the_comparison_with_the_recording(shared):
    golden = Golden(shared / "goldens" / "vishv")
    details = json.loads((golden.folder / "manifest.json").read_text(encoding="utf-8"))
    store, clip = Store(golden, "ytvis_r50.npz"), details["clips"][0]
    labels = store.arrays[f"{clip['name']}/track_labels"]
    store.arrays[f"{clip['name']}/track_labels"] = np.where(labels == 1, 2, labels)
    check_stored(store, details["config"], clip)
    assert not all(row.ok for row in golden.report.rows)


def test_windows_and_colours_are_those_of_the_recording(shared):
    assert check_tables(shared / "goldens" / "vishv") == []


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    pytest.importorskip("onnx")
    return VISPredictor(make_vishv_bundle(tmp_path_factory.mktemp("vishv") / "m.vis"), device="cpu", threads=1)


@pytest.mark.parametrize("count", COUNTS)
def test_every_object_keeps_its_track_and_every_frame_has_one_result(clips, count):
    frames = moving(count)
    results = list(clips.stream(frames))
    assert [r.index for r in results] == list(range(count))
    labels = {(i.track_id, i.label) for r in results for i in r}
    assert (sorted(t for t, _ in labels), sorted(k for _, k in labels)) == ([0, 1, 2], [0, 1, 2])
    video = clips(frames)
    assert [sorted(track.masks) for track in video.tracks] == [list(range(count))] * 3
    assert max(track.score for track in video.tracks) == 1
    for t, result in enumerate(results):
        for instance in result:
            x, y = (4 + 14 * instance.label + t // 2) % (48 - 8), 3 + 8 * instance.label
            assert instance.mask.decode()[y + 3, x + 4]


def test_the_result_comes_as_late_as_the_decoder_says(clips):
    with clips.open_stream() as stream:
        got = [stream.push(frame) for frame in moving(40)]
        assert stream.latency == LENGTH - 1 + 2 * STRIDE
        assert [r is None for r in got] == [t < stream.latency for t in range(40)]


@pytest.mark.parametrize("saved_at", [0, 5, LENGTH, LENGTH + 3, LENGTH + 2 * STRIDE, 29])
def test_a_saved_stream_continues_as_if_it_had_never_stopped(clips, tmp_path, saved_at):
    frames = moving(30)
    whole = clips(frames)
    with clips.open_stream(collect=True) as stream:
        for frame in frames[:saved_at]:
            stream.push(frame)
        stream.save(tmp_path / "s.npz")
    with clips.load_stream(tmp_path / "s.npz") as stream:
        for frame in frames[saved_at:]:
            stream.push(frame)
        stream.flush()
        assert plain_tracks(stream.result()) == plain_tracks(whole)


def test_two_streams_of_different_size_do_not_affect_each_other(clips):
    wide = np.concatenate([moving(25), moving(25)], axis=2)
    alone = [list(map(plain, clips.stream(frames))) for frames in (moving(25), wide)]
    with clips.open_stream() as first, clips.open_stream() as second:
        found = [[], []]
        for pair in zip(moving(25), wide, strict=True):
            for stream, frame, results in zip((first, second), pair, found, strict=True):
                results.append(stream.push(frame))
        for stream, results in zip((first, second), found, strict=True):
            results += stream.flush()
    assert [[plain(r) for r in results if r is not None] for results in found] == alone


def test_threads_and_the_library_do_not_change_the_results(clips, monkeypatch):
    wanted = plain_tracks(clips(moving(25)))
    several = VISPredictor(clips.bundle, device="cpu", threads=3)
    assert several.open_stream().decoder.threads == 3
    assert plain_tracks(several(moving(25))) == wanted
    monkeypatch.setattr(cluster_search, "_SERIAL", 0)
    monkeypatch.setattr(embedding_clusters, "library_search", lambda: None)
    assert plain_tracks(several(moving(25))) == wanted


def test_the_state_of_a_stream_does_not_grow(clips):
    frames = moving(40)

    def size(count):
        with clips.open_stream() as stream:
            for t in range(count):
                stream.push(frames[t % 40])
            return sum(array.nbytes for array in stream.decoder.state().values())

    assert size(LENGTH + 60 * STRIDE) == size(LENGTH + 10 * STRIDE)


def outputs(frames, channels=3, size=(6, 8), **changes):
    """Return outputs without foreground, but for a square of frame-independent colour."""
    maps = {
        "embeddings": np.zeros((frames, 3, *size), np.float32),
        "bandwidths": np.full((frames, 3, *size), 10, np.float32),
        "seediness": np.zeros((frames, *size), np.float32),
        "class_logits": np.zeros((frames, channels, *size), np.float32),
        "foreground_logits": np.full((frames, *size), -1, np.float32),
    }
    maps["foreground_logits"][:, 1:4, 2:5] = 1
    maps["seediness"][:, 1:4, 2:5] = 0.9
    return maps | changes


def step(first, length, fresh):
    return Step({}, first=first, timestamps=tuple(map(float, range(first, first + length))), fresh=fresh)


def new_decoder(**decode):
    return VIShvDecoder(["a", "b"], window=WINDOW, decode=decode, tracking={}, keep_tracks=True)


def test_a_repeated_first_frame_counts_with_all_repetitions():
    decoder = new_decoder()
    found = outputs(4)
    found["foreground_logits"][0], found["foreground_logits"][1] = -9, 1  # repetitions of frame 0: the mean is -4
    found["class_logits"][0, 1], found["class_logits"][2:, 2] = 5, 1
    assert decoder.decode(found, step(0, 3, 3), height=24, width=32) == []
    results = decoder.finish()
    assert [len(r) for r in results] == [0, 1, 1]
    assert decoder.summaries()[0].label == 1


def test_a_repeated_first_frame_has_its_last_embedding():
    decoder = new_decoder()
    found = outputs(4)
    found["embeddings"][0], found["embeddings"][3] = 5, 9  # the first repetition of frame 0, and frame 2
    decoder.decode(found, step(0, 3, 3), height=24, width=32)
    assert [[i.track_id for i in result] for result in decoder.finish()] == [[0], [0], [1]]


def test_foreground_is_the_mean_over_the_windows_of_a_frame():
    decoder = new_decoder()
    first, second = outputs(4), outputs(4)
    first["foreground_logits"][2], second["foreground_logits"][0] = -3, 2
    decoder.decode(first, step(0, 4, 4), height=24, width=32)
    assert decoder.decode(second, step(2, 4, 2), height=24, width=32) == []
    assert [len(r) for r in decoder.finish()] == [1, 1, 0, 1, 1, 1]


def test_without_a_semantic_head_the_seediness_gives_the_foreground():
    decoder = new_decoder(output="davis", seediness_threshold=0.95)
    maps = {k: v for k, v in outputs(4).items() if k not in ("class_logits", "foreground_logits")}
    decoder.decode(maps, step(0, 4, 4), height=24, width=32)
    assert [len(r) for r in decoder.finish()] == [0] * 4
    decoder = new_decoder(output="davis")
    decoder.decode(maps, step(0, 4, 4), height=24, width=32)
    assert [len(r) for r in decoder.finish()] == [1] * 4


def test_a_semantic_head_gives_the_foreground_where_classes_do_not_count():
    decoder = new_decoder(output="davis", seediness_threshold=0.9)
    maps = outputs(4)
    maps["foreground_logits"][:, 1:4, 2:5] = 0.5  # a probability above one half, but below the other threshold
    decoder.decode(maps, step(0, 4, 4), height=24, width=32)
    resumed = new_decoder(output="davis", seediness_threshold=0.9)
    resumed.load_state(decoder.state())
    for each in (decoder, resumed):
        assert [len(r) for r in each.finish()] == [1] * 4


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"embeddings": np.zeros((4, 3, 6, 9), np.float32)}, "bandwidths"),
        ({"bandwidths": np.zeros((4, 2, 6, 8), np.float32)}, "bandwidths"),
        ({"seediness": np.zeros((4, 6, 8), np.float64)}, "seediness"),
        ({"class_logits": np.zeros((4, 9, 6, 8), np.float32)}, "class_logits"),
        ({"embeddings": np.zeros((4, 0, 6, 8), np.float32)}, "embeddings"),
    ],
)
def test_malformed_outputs_are_named_and_change_nothing(change, named):
    decoder = new_decoder()
    decoder.decode(outputs(4), step(0, 4, 4), height=24, width=32)
    before = decoder.state()
    with pytest.raises(BundleError, match=named):
        decoder.decode(outputs(4, **change), step(2, 4, 2), height=24, width=32)
    after = decoder.state()
    assert all(np.array_equal(before[k], after[k]) for k in before.keys() | after.keys())


def test_outputs_that_are_too_small_or_of_another_size_are_refused():
    with pytest.raises(BundleError, match="quarter"):
        new_decoder().decode(outputs(4, size=(2, 2)), step(0, 4, 4), height=24, width=32)
    decoder = new_decoder()
    decoder.decode(outputs(4), step(0, 4, 4), height=24, width=32)
    with pytest.raises(BundleError, match="seediness"):
        decoder.decode(outputs(4, size=(8, 8)), step(2, 4, 2), height=24, width=32)


@pytest.mark.parametrize("decode", [{"output": "coco"}, {"max_clusters": 0}, {"free_dim_stds": [0.0]}, {"typo": 1}])
def test_invalid_parameters_are_named(decode):
    with pytest.raises(BundleError, match=next(iter(decode))):
        new_decoder(**decode)


@pytest.mark.parametrize(
    "change",
    [
        {"position": np.array([1, 5, 24, 32])},
        {"chain.counts": np.array([3])},
        {"chain.labels": np.array([9], np.int32)},
        {"tracks.rows": np.array([[0, 0, 0, 0]])},
        {"sums.counts": np.array([0, 0, 0, 0])},
        {"window0.embeddings": np.zeros((4, 3, 6, 9), np.float32)},
        {"window0.seediness": np.zeros((4, 6, 8))},
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(change):
    decoder = new_decoder()
    decoder.decode(outputs(4), step(0, 4, 4), height=24, width=32)
    good = decoder.state()
    with pytest.raises(StreamError):
        decoder.load_state(good | change)
    assert all(np.array_equal(a, b) for a, b in zip(good.values(), decoder.state().values(), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"chain.counts": np.array([9, 9, 9, 8]), "chain.labels": np.zeros(35, np.int32)},
        {"chain.counts": np.array([9, 9, 8, 10])},
        {"sums.classes": np.zeros((6, 2, 6, 8), np.float32)},
        {"sums.classes": np.zeros((6, 3, 6, 9), np.float32)},
        {"sums.frames": np.arange(7, 1, -1)},
        {"sums.frames": np.array([2, 3, 4, 5, 7, 8])},
        {"window0.first": np.array(4)},
        {"window0.embeddings": np.zeros((4, 2, 6, 8), np.float32)},
    ],
)
def test_a_state_that_contradicts_itself_is_refused(change):
    decoder = new_decoder()
    for first in (0, 2, 4):
        decoder.decode(outputs(4), step(first, 4, 2), height=24, width=32)
    good = decoder.state()
    new_decoder().load_state(good)
    assert change.keys() <= good.keys()
    with pytest.raises(StreamError):
        new_decoder().load_state(good | change)
    del good["sums.classes"]
    with pytest.raises(StreamError, match="classes None"):
        new_decoder().load_state(good)


@pytest.mark.parametrize(
    "name", ["position", "chain.next", "chain.labels", "tracks.rows", "tracks.most", "sums.frames"]
)
def test_an_incomplete_state_is_refused(name):
    decoder = new_decoder()
    decoder.decode(outputs(4), step(0, 4, 4), height=24, width=32)
    state = decoder.state()
    del state[name]
    with pytest.raises(StreamError):
        new_decoder().load_state(state)


def table(output, *tracks):
    """Return a table from (pixels, first, last) of each track in order of appearance."""
    found = TrackTable(output)
    for label, (pixels, first, last) in enumerate(tracks):
        found = found.add(first, [(label, pixels - 1, np.zeros(2))]).add(last, [(label, 1, np.zeros(2))])
    return found


def test_order_and_number_of_tracks_follow_the_data_set():
    tracks = [(5, 0, 3), (50, 0, 9), (20, 1, 4), (40, 2, 5)]
    assert table("ytvis", *tracks).kept(3) == [1, 0, 2]
    assert table("davis", *tracks).kept(2) == [1, 0]
    assert table("kittimots", *tracks).kept(3) == [3, 2, 1]
    assert table("davis", *tracks).priority([0, 1, 2]) == [2, 0, 1]
    assert table("kittimots", *tracks).priority([0, 1, 2]) == [2, 1, 0]


def test_scores_are_relative_to_the_largest_track_that_is_kept():
    decoder = new_decoder(max_tracks=2)
    decoder._state = replace(decoder._state, tracks=table("ytvis", (5, 0, 3), (50, 0, 1), (20, 1, 5)))
    assert [(each.track_id, each.score, each.presence) for each in decoder.kept_tracks()] == [(2, 1, 5), (0, 0.25, 4)]


def test_votes_of_pixels():
    labels = np.array([0, 0, 0, 1, -1], np.int32)
    logits = np.array([[9, 0, 0, 0, 9], [0, 3, 1, 0, 0], [0, 1, 2, 5, 0]], np.float32)
    votes = {k: (n, v.tolist()) for k, n, v in pixel_votes(labels, logits, "kittimots", 2)}
    assert votes == {0: (3, [1, 1]), 1: (1, [0, 1])}
    sums = {k: v.tolist() for k, _, v in pixel_votes(labels, logits, "ytvis", 2)}
    assert sums == {0: [4, 3], 1: [0, 5]}
    tie = TrackTable("kittimots").add(0, pixel_votes(labels, logits, "kittimots", 2)).tracks[0]
    assert tie.judge("kittimots")[0] == 0, "car before pedestrian"


def test_masks_of_disjoint_pixels_stay_disjoint():
    generator = np.random.default_rng(0)
    owners = generator.integers(0, 3, (9, 12))
    found = [resize_padded_mask(owners == k, 4, (33, 47), 50, 61) for k in range(3)]
    assert (np.sum(found, axis=0) <= 1).all()
    whole = resize_padded_mask(np.ones((9, 12), bool), 4, (33, 47), 50, 61)
    assert whole.shape == (50, 61)
    assert whole.all()


def agreement(change=None, **tolerance):
    """Compare a recording of two discs with a changed copy of it."""
    rows, columns = np.mgrid[:20, :30]
    maps = outputs(4, size=(20, 30))
    maps["foreground_logits"][:], maps["seediness"][:] = -1, 0
    for center in (8, 22):
        distance = np.hypot(rows - 10, columns - center)
        disc = distance < 6
        maps["embeddings"][:, 0, disc] = center / 10 + (distance / 60)[disc]
        maps["seediness"][:, disc] = np.exp(-distance / 10)[disc]
        maps["foreground_logits"][:, disc] = 1
    other = {k: v.copy() for k, v in maps.items()}
    if change:
        change(other)
    spec = TensorSpec(name="seediness", dtype="float32", shape=[4, 20, 30], role="decode", measure="vishv.clusters")
    measure = ClusterAgreement(spec, Tolerance(**({"atol": 1e-3, "mask_iou": 0.99} | tolerance)))
    context = StepContext(0, maps, other, np.arange(0), np.arange(0))
    measure.update(maps["seediness"], other["seediness"], context)
    return measure.result()


def test_equal_outputs_agree():
    assert (agreement().passed, agreement().worst) == (True, 0)


def test_a_pixel_at_a_threshold_may_change_and_the_note_says_so():
    def cross(maps):
        # -2 ln 0.5 = 1.386 is the primary distance; a bandwidth of 10 makes it 0.4384 from the centre
        maps["embeddings"][0, 0, 10, 8] = 0.8

    def near(maps):
        maps["foreground_logits"][0, 10, 13] = np.float32(-2e-4)

    assert agreement(cross).passed
    reference = agreement(near, atol=2.0)
    assert reference.passed
    assert "1 of" in reference.note


def test_tied_seeds_may_be_exchanged():
    def swap(maps):
        maps["seediness"][0, 10, 22] += np.float32(5e-4)

    found = agreement(swap)
    assert found.passed
    assert "1 tied" in found.note or "2 tied" in found.note


def test_a_wrong_cluster_fails():
    def merge(maps):
        maps["embeddings"][:, 0, :, 15:] -= np.float32(1.4)

    found = agreement(merge)
    assert not found.passed
    assert found.worst > found.limit


def test_foreground_that_is_lost_fails():
    def lose(maps):
        maps["foreground_logits"][:, :, 15:] = -1

    assert not agreement(lose).passed


def test_a_wrong_seediness_fails():
    def shift(maps):
        maps["seediness"] += np.float32(0.01)

    assert not agreement(shift).passed


def test_two_engines_of_a_bundle_agree(clips):
    from visdeploy.parity.meter import ParityMeter

    spec = clips.pipeline.spec
    meter = ParityMeter(spec, height=32, width=48)
    for each in clips.pipeline.steps(moving(21)):
        found, _ = clips.pipeline.run(each, None)
        meter.update(found, found, each)
    meter.finish()
    certificate = meter.certificate(reference="a", candidate="b", source="moving squares")
    assert certificate.passed
    assert (certificate.tracks.matched, len(CLASSES)) == (63, 3)
