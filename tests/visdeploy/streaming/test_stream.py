"""Streams: equal results for all kinds of input, no influence between streams, no change by errors, resumption."""

import json
import threading

import numpy as np
import pytest
from PIL import Image

from tests.visdeploy.step_graph import clip, make_bundle
from tests.visdeploy.streams import check_interleaved, check_saved_at_frame_50, pushed
from visdeploy import VISPredictor
from visdeploy.errors import BundleError, ConfigError, SourceError, StreamError
from visdeploy.profiling import Profiler


def instances(results):
    return [r.instances for r in results]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("frames")
    for t, frame in enumerate(clip(25)):
        Image.fromarray(frame).save(path / f"{t:03d}.png")
    return path


def test_folder_glob_iterator_array_and_push_agree(predictor, folder):
    frames = clip(25)
    wanted = pushed(predictor, frames)
    for source in (folder, str(folder / "*.png"), iter(frames), frames, [f[:, ::-1][:, ::-1] for f in frames]):
        assert list(predictor.stream(source)) == wanted
    assert sum(len(r) for r in wanted) > 30


def test_video_file_and_push_agree(predictor, tmp_path):
    from visdeploy.video import VideoWriter, open_source

    path = tmp_path / "clip.mp4"
    with VideoWriter(path, 90, 60, fps=25) as writer:
        for frame in clip(25):
            writer.write(frame)
    from_file = list(predictor.stream(path))
    with open_source(path) as source, predictor.open_stream() as stream:
        from_push = [stream.push(f.image, f.timestamp) for f in source]
    assert from_file == from_push
    assert from_file[24].timestamp == pytest.approx(24 / 25)


def test_a_video_result_is_the_frames_put_together(predictor):
    video = predictor(clip(25), fps=10.0, name="boxes")
    frames = list(predictor.stream(clip(25), fps=10.0))
    masks = {(t.track_id, k): m for t in video.tracks for k, m in t.masks.items()}
    assert masks == {(i.track_id, f.index): i.mask for f in frames for i in f}
    last = {i.track_id: i for f in frames for i in f}
    assert [(t.track_id, t.label, t.score) for t in video.tracks] == [
        (i.track_id, i.label, i.score) for _, i in sorted(last.items())
    ]
    assert (video.name, video.num_frames, video.fps) == ("boxes", 25, 10.0)
    assert (video.height, video.width, video.classes) == (60, 90, predictor.classes)
    assert list(video.timestamps) == pytest.approx([t / 10 for t in range(25)])
    assert all(len(t.scores) == 4 and max(t.scores) == t.score for t in video.tracks)


def test_interleaved_streams_equal_the_streams_alone(predictor):
    videos = [clip(20, seed=1), clip(14, seed=2, size=(40, 50)), clip(20, seed=3)]
    alone = check_interleaved(predictor, videos)
    assert instances(alone[0]) != instances(alone[2])


def test_streams_in_threads_equal_the_streams_alone(predictor):
    videos = [clip(30, seed=s) for s in range(4)]
    found = [None] * len(videos)

    def work(k):
        found[k] = pushed(predictor, videos[k])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(len(videos))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [pushed(predictor, video) for video in videos]


def test_saved_at_frame_50_continues_in_a_new_process(predictor, bundle, tmp_path):
    check_saved_at_frame_50(predictor, bundle.path, tmp_path / "deep" / "stream.npz", fps=25.0)


def test_a_stream_saved_before_its_first_frame(predictor, tmp_path):
    saved = predictor.open_stream().save(tmp_path / "s.npz")
    resumed = predictor.load_stream(saved)
    assert [resumed.push(f) for f in clip(5)] == pushed(predictor, clip(5))


FRAME = clip(1)[0]


@pytest.mark.parametrize(
    ("frame", "timestamp", "error", "message"),
    [
        (FRAME[:-1], None, StreamError, "differs from that"),
        (FRAME.astype(np.float32), None, SourceError, "wrong type"),
        (FRAME[..., 0], None, SourceError, "wrong shape"),
        (FRAME.transpose(2, 0, 1), None, SourceError, "Channels go last"),
        (None, None, SourceError, "not an array"),
        (FRAME, float("nan"), StreamError, "timestamp"),
        (FRAME, float("inf"), StreamError, "timestamp"),
    ],
)
def test_a_bad_frame_leaves_the_stream_as_it_was(predictor, frame, timestamp, error, message):
    frames = clip(12)
    stream = predictor.open_stream(collect=True)
    results = []
    for good in frames:
        with pytest.raises(error, match=message) if stream.num_frames else pytest.raises(SourceError):
            stream.push(frame if stream.num_frames else None, timestamp)
        results.append(stream.push(good))
    assert results == pushed(predictor, frames)
    assert stream.result().num_frames == 12


def test_a_failing_graph_leaves_the_stream_as_it_was(predictor, monkeypatch):
    frames = clip(8)
    stream = predictor.open_stream()
    results = [stream.push(f) for f in frames[:4]]
    real = predictor.backend.run

    def spoiled(inputs, state, names):
        outputs, state = real(inputs, state, names)
        return outputs | {"query": outputs["query"][:, :2]}, state

    monkeypatch.setattr(predictor.backend, "run", spoiled)
    with pytest.raises(BundleError, match="reference"):
        stream.push(frames[4])
    monkeypatch.undo()
    assert results + [stream.push(f) for f in frames[4:]] == pushed(predictor, frames)


def test_a_closed_stream(predictor, tmp_path):
    with predictor.open_stream(collect=True) as stream:
        stream.push(FRAME)
    for action in (lambda: stream.push(FRAME), lambda: stream.save(tmp_path / "s.npz")):
        with pytest.raises(StreamError, match="is closed"):
            action()
    assert stream.result().num_frames == 1
    assert not list(tmp_path.iterdir())


def test_results_that_were_not_collected(predictor):
    with pytest.raises(StreamError, match="collect=True"):
        predictor.open_stream().result()
    with pytest.raises(StreamError, match="a push, and a flush"):
        predictor.open_stream(collect=True).result()
    with pytest.raises(StreamError, match="frame rate"):
        predictor.open_stream(fps=float("nan"))


@pytest.fixture
def saved(predictor, tmp_path):
    with predictor.open_stream(collect=True) as stream:
        for frame in clip(6):
            stream.push(frame)
        return stream.save(tmp_path / "stream.npz")


def edit(path, change):
    with np.load(path) as archive:
        arrays = dict(archive)
    change(arrays)
    np.savez(path, **arrays)


def header(**changes):
    def change(arrays):
        data = json.loads(arrays["header"].tobytes()) | changes
        arrays["header"] = np.frombuffer(json.dumps(data).encode(), np.uint8)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (header(bundle="0" * 64), "another bundle"),
        (header(schema_version=99), "newer schema"),
        (header(format="something"), "not a saved stream"),
        (header(extra=1), "not a saved stream"),
        (header(num_frames=-1), "not a saved stream"),
        (header(height=None), "is inconsistent"),
        (header(num_frames=2), "is inconsistent"),
        (header(num_results=2), "damaged masks"),
        (lambda a: a.pop("header"), "not a saved stream"),
        (lambda a: a.pop("graph/mem"), "does not match the graph"),
        (lambda a: a.update({"graph/mem": a["graph/mem"][:1]}), "does not match the graph"),
        (lambda a: a.pop("decoder/votes.total"), "cannot be read"),
        (lambda a: a.update({"decoder/tracker.counters": np.array([1])}), "cannot be read"),
        (lambda a: a.pop("collected/rows"), "damaged masks"),
        (lambda a: a.update({"collected/counts": a["collected/counts"][:-1]}), "damaged masks"),
        (lambda a: a["collected/counts"].__setitem__(slice(None), 200), "damaged masks"),
    ],
)
def test_a_damaged_saved_stream_is_refused(predictor, saved, change, message):
    edit(saved, change)
    with pytest.raises(StreamError, match=message):
        predictor.load_stream(saved)


@pytest.mark.parametrize("content", [b"", b"garbage", None, "truncated", "pickle"])
def test_what_is_no_saved_stream_is_refused(predictor, saved, content):
    if content is None:
        saved.unlink()
    elif content == "truncated":
        saved.write_bytes(saved.read_bytes()[:-400])
    elif content == "pickle":
        edit(saved, lambda a: a.update({"graph/mem": np.array([{}], dtype=object)}))
    else:
        saved.write_bytes(content)
    with pytest.raises(StreamError, match="not a saved stream"):
        predictor.load_stream(saved)


def test_a_saved_stream_that_would_expand_is_refused_before_it_is_read(predictor, saved, monkeypatch):
    with np.load(saved) as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez_compressed(saved, **arrays | {"graph/mem": np.zeros(10**7)})
    monkeypatch.setattr("visdeploy.archives._ALWAYS", 2**20)
    with pytest.raises(StreamError, match=r"not a saved stream.*arrays of 8\d* B in a file of"):
        predictor.load_stream(saved)


def test_a_stream_of_another_bundle_is_refused(saved, tmp_path):
    other = VISPredictor(make_bundle(tmp_path / "other.vis", tracking={"affinity_threshold": 0.2}), device="cpu")
    with pytest.raises(StreamError, match="another bundle"):
        other.load_stream(saved)


def test_saving_where_one_cannot_leaves_nothing(predictor, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with predictor.open_stream() as stream, pytest.raises(StreamError, match="cannot be saved"):
        stream.save(tmp_path / "file" / "stream.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_profiler_sees_every_stage(bundle):
    profiler = Profiler()
    predictor = VISPredictor(bundle, device="cpu", profiler=profiler)
    assert list(predictor.stream(clip(6))) == list(VISPredictor(bundle, device="cpu").stream(clip(6)))
    assert set(profiler.stages) == {"decode", "preprocess", "graph", "decode of outputs", "tracking"}
    assert {s.calls for s in profiler.stages.values()} == {6}
    assert profiler.total == pytest.approx(sum(profiler.seconds.values()))
    assert min(s.milliseconds for s in profiler.stages.values()) > 0


def test_threads_that_share_a_stream_wait_for_each_other(predictor):
    frames, results = clip(40), []
    with predictor.open_stream(collect=True) as stream:

        def push(part):
            results.extend(stream.push(frame) for frame in part)

        threads = [threading.Thread(target=push, args=(frames[k::2],)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert stream.num_frames == stream.result().num_frames == 40
    assert sorted(result.index for result in results) == list(range(40))


def test_bgr_frames(predictor):
    frames = clip(25)
    reversed_ = [np.ascontiguousarray(frame[:, :, ::-1]) for frame in frames]
    wanted = pushed(predictor, frames)
    with predictor.open_stream() as stream:
        assert [stream.push(frame, channels="bgr") for frame in reversed_] == wanted
    assert list(predictor.stream(reversed_, channels="bgr")) == wanted
    assert list(predictor.stream(np.stack(reversed_), channels="bgr")) == wanted
    with predictor.open_stream() as stream, pytest.raises(ConfigError, match=r"channels of a frame \(seen: 'grb'"):
        stream.push(frames[0], channels="grb")


def test_only_arrays_have_an_order_of_channels(predictor, folder):
    for source in (folder, [folder / "000.png"], 0):
        with pytest.raises(ConfigError, match="expected: bgr for arrays alone"):
            predictor.stream(source, channels="bgr")
