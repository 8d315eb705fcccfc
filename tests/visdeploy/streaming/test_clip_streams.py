"""Streams of clip methods: windows over any video, results in order, track ids across windows."""

import numpy as np
import pytest

from tests.visdeploy.clip_graph import CLASSES, LENGTH, STRIDE, make_clip_bundle, moving
from tests.visdeploy.streams import check_memory_is_flat, plain, plain_tracks
from visdeploy import BundleError, StreamError, VISPredictor

COUNTS = (1, 3, LENGTH - 1, LENGTH, LENGTH + 1, LENGTH + STRIDE, LENGTH + STRIDE + 1, 31)


@pytest.fixture(scope="module", params=[True, False], ids=["fixed", "any length"])
def clips(request, tmp_path_factory):
    made = make_clip_bundle(tmp_path_factory.mktemp("clip") / "clip.vis", fixed=request.param)
    return VISPredictor(made, device="cpu", threads=1)


def pushed(stream, frames):
    results = [stream.push(frame) for frame in frames]
    return [each for each in results if each is not None] + stream.flush()


@pytest.mark.parametrize("count", COUNTS)
def test_every_frame_gets_its_result_once_and_in_order(clips, count):
    frames = moving(count)
    with clips.open_stream(fps=10) as stream:
        results = pushed(stream, frames)
        assert (stream.num_frames, stream.num_results) == (count, count)
    assert [r.index for r in results] == list(range(count))
    assert [r.timestamp for r in results] == pytest.approx([t / 10 for t in range(count)])
    assert list(map(plain, clips.stream(frames))) == list(map(plain, results))


@pytest.mark.parametrize("count", COUNTS)
def test_identities_last_though_every_clip_numbers_its_slots_anew(clips, count):
    results = list(clips.stream(moving(count)))
    assert all(len(r) == len(CLASSES) for r in results)
    labels = {(i.track_id, i.label) for r in results for i in r}
    assert sorted(track for track, _ in labels) == [0, 1, 2]
    for t, result in enumerate(results):
        for instance in result:
            x, y = (4 + 14 * instance.label + t // 2) % (48 - 8), 3 + 8 * instance.label
            mask = instance.mask.decode()
            assert mask[y + 3, x + 4]
            assert 20 < instance.mask.area < 90


def test_the_result_comes_one_clip_late_and_then_with_every_frame(clips):
    with clips.open_stream() as stream:
        got = [stream.push(frame) for frame in moving(40)]
        assert stream.latency == LENGTH - 1
        assert [r is None for r in got] == [t < stream.latency for t in range(40)]
        assert [r.index for r in got if r is not None] == list(range(40 - stream.latency))


def test_a_video_result_has_all_frames(clips):
    video = clips(moving(21))
    assert video.num_frames == 21
    assert [sorted(t.masks) for t in video.tracks] == [list(range(21))] * 3
    assert sorted(t.label for t in video.tracks) == [0, 1, 2]
    assert [t.score for t in video.tracks] == pytest.approx([0.9] * 3)


@pytest.mark.parametrize("saved_at", [0, 5, LENGTH, LENGTH + 3, 17])
def test_a_saved_stream_goes_on_as_if_it_had_never_stopped(clips, tmp_path, saved_at):
    frames = moving(30)
    whole = clips(frames)
    with clips.open_stream(collect=True) as stream:
        results = [stream.push(frame) for frame in frames[:saved_at]]
        path = stream.save(tmp_path / "stream.npz")
    with clips.load_stream(path) as stream:
        results += [stream.push(frame) for frame in frames[saved_at:]] + stream.flush()
        assert plain_tracks(stream.result()) == plain_tracks(whole)
    assert [r.index for r in results if r is not None] == list(range(30))
    expected = list(map(plain, clips.stream(frames)))
    assert [plain(r) for r in results if r is not None] == expected


@pytest.mark.parametrize(
    "spoil",
    [
        lambda a: a.pop("waiting/frames"),
        lambda a: a.update({"waiting/done": np.array(99)}),
        lambda a: a.update({"waiting/frames": a["waiting/frames"][:2]}),
        lambda a: a.pop("ready/rows"),
        lambda a: a.update({"ready/counts": a["ready/counts"][:-1]}),
        lambda a: a.update({"decoder/clip.track_ids": a["decoder/clip.track_ids"][:-1]}),
        lambda a: a.update({"decoder/clip.votes": a["decoder/clip.votes"][:-1]}),
        lambda a: a.update({"decoder/clip.counts": a["decoder/clip.counts"] * 0}),
        lambda a: a.pop("decoder/tracks.next"),
        lambda a: a.update({"waiting/frames": a["waiting/frames"][..., :8, :8]}),
        lambda a: a.update({"waiting/timestamps": a["waiting/timestamps"] * np.nan}),
        lambda a: a.update({"decoder/clip.position": a["decoder/clip.position"] + [1000, 1000, 0, 0]}),
        lambda a: a.update({"decoder/clip.position": a["decoder/clip.position"][[0, 1, 3, 2]]}),
    ],
)
def test_a_damaged_saved_stream_is_refused(clips, tmp_path, spoil):
    with clips.open_stream() as stream:
        for frame in moving(10):
            stream.push(frame)
        path = stream.save(tmp_path / "stream.npz")
    with np.load(path) as archive:
        arrays = dict(archive)
    spoil(arrays)
    np.savez(path, **arrays)
    with pytest.raises(StreamError):
        clips.load_stream(path)


def test_a_failing_graph_leaves_the_stream_as_it_was(clips, monkeypatch):
    frames = moving(LENGTH)
    with clips.open_stream() as stream:
        for frame in frames[:-1]:
            stream.push(frame)
        run = clips.backend.run
        monkeypatch.setattr(clips.backend, "run", lambda *_: (_ for _ in ()).throw(RuntimeError("planted")))
        with pytest.raises(RuntimeError, match="planted"):
            stream.push(frames[-1])
        monkeypatch.setattr(clips.backend, "run", run)
        assert plain(stream.push(frames[-1])) == plain(next(iter(clips.stream(frames))))


def test_nothing_is_pushed_or_saved_after_the_flush(clips, tmp_path):
    with clips.open_stream() as stream:
        stream.push(moving(1)[0])
        assert len(stream.flush()) == 1
        assert stream.flush() == []
        with pytest.raises(StreamError, match="flushed"):
            stream.push(moving(1)[0])
        with pytest.raises(StreamError, match="flushed"):
            stream.save(tmp_path / "stream.npz")


def test_the_window_must_fit_the_graph(tmp_path):
    with pytest.raises(
        BundleError, match=r"input 'frames' of shape .* contradicts the window: expected \[5 or a symbol"
    ):
        make_clip_bundle(tmp_path / "a.vis", window={"mode": "clip", "length": 5, "stride": 5})


def test_the_overlap_is_stated_by_the_window_alone(tmp_path):
    made = make_clip_bundle(tmp_path / "a.vis", tracking={"overlap": 3})
    with pytest.raises(BundleError, match=r"tracking\.overlap"):
        VISPredictor(made, device="cpu")


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "any length"])
def test_memory_does_not_grow_with_the_video(tmp_path, fixed):
    bundle = make_clip_bundle(tmp_path / "clip.vis", fixed=fixed)
    check_memory_is_flat(bundle.path, moving(40), tmp_path, first=200, last=1200, limit=5)
