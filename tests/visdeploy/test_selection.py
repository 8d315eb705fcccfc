"""Choice of classes, scores and frames: results are filtered, the tracking is not."""

import numpy as np
import pytest

from tests.visdeploy.clip_graph import LENGTH, make_clip_bundle, moving
from tests.visdeploy.step_graph import CLASSES, clip
from tests.visdeploy.streams import plain, plain_tracks
from visdeploy import ConfigError, SourceError, VISPredictor
from visdeploy.selection import Selection
from visdeploy.video import open_source

FRAMES = clip(20)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    made = make_clip_bundle(tmp_path_factory.mktemp("clip") / "clip.vis")
    return VISPredictor(made, device="cpu", threads=1)


@pytest.fixture(scope="module")
def whole(predictor):
    return predictor(FRAMES)


@pytest.mark.parametrize(
    ("threshold", "classes", "limits"),
    [
        (None, None, ()),
        (0.4, None, (0.4, 0.4, 0.4)),
        (np.float32(0.5), None, (0.5, 0.5, 0.5)),
        ({"dog": 0.6, "*": 0.3}, None, (0.3, 0.6, 0.3)),
        ({"dog": 0.6}, None, (0.0, 0.6, 0.0)),
        (None, ["owl"], (None, None, 0.0)),
        (None, "owl", (None, None, 0.0)),
        (0.2, {"owl", "cat"}, (0.2, None, 0.2)),
        ({"dog": 1}, ("dog",), (None, 1.0, None)),
    ],
)
def test_limits_of_the_classes(threshold, classes, limits):
    assert Selection.of(("cat", "dog", "owl"), threshold, classes).limits == limits


@pytest.mark.parametrize(
    ("threshold", "classes", "message"),
    [
        ({"dgo": 0.5}, None, r"unknown class 'dgo' .*one of cat, dog, owl\)\. Did you mean 'dog'\?"),
        (None, ["Cat"], "unknown class 'Cat' .*Did you mean 'cat'"),
        (None, ["zebra"], r"unknown class 'zebra' .*owl\)$"),
        (None, [2], "unknown class 2"),
        (None, [], "classes to keep"),
        (1.5, None, r"threshold \(seen: 1.5; expected: a finite number from 0 up to 1"),
        (float("nan"), None, "threshold"),
        ({"dog": "high"}, None, "threshold of 'dog'"),
        (True, None, "threshold"),
    ],
)
def test_wrong_choices_are_typed_errors(predictor, threshold, classes, message):
    with pytest.raises(ConfigError, match=message):
        Selection.of(("cat", "dog", "owl"), threshold, classes)
    with pytest.raises(ConfigError):  # before any frame is read
        predictor.stream(iter([]), threshold=threshold, classes=classes)


def test_tracks_are_chosen_by_their_final_class_and_score(predictor, whole):
    middle = sorted(track.score for track in whole)[len(whole) // 2]
    found = predictor(FRAMES, threshold=middle, classes=["red", "green"])
    kept = [t for t in whole if t.score >= middle and CLASSES[t.label] in ("red", "green")]
    assert 0 < len(kept) < len(whole)
    assert found.tracks == kept


def test_instances_of_a_stream_are_chosen_by_their_present_class_and_score(predictor):
    every = list(predictor.stream(FRAMES))
    limit = sorted(i.score for r in every for i in r)[30]
    found = list(predictor.stream(FRAMES, threshold={"red": 1.0, "*": limit}))
    wanted = [[i for i in r if i.score >= (1.0 if i.class_name == "red" else limit)] for r in every]
    assert [list(r) for r in found] == wanted
    assert 0 < sum(map(len, wanted)) < sum(map(len, every))


def test_a_choice_changes_neither_the_state_nor_the_identity(predictor, tmp_path):
    states = []
    for name, choice in (("all", {}), ("few", {"threshold": 1.0, "classes": ["blue"]})):
        with predictor.open_stream(collect=True, **choice) as stream:
            for frame in FRAMES[:10]:
                stream.push(frame)
            path = stream.save(tmp_path / f"{name}.npz")
        with np.load(path) as saved:
            states.append({key: saved[key].tolist() for key in saved.files if key != "selection/limits"})
    assert states[0] == states[1]


@pytest.mark.parametrize("choice", [{}, {"threshold": {"green": 0.95}}, {"classes": ["red", "blue"]}])
def test_a_saved_stream_keeps_choice_and_images(clips, tmp_path, choice):
    frames = moving(30)
    with clips.open_stream(collect=True, keep_images=True, **choice) as stream:
        for frame in frames[: LENGTH + 3]:
            stream.push(frame)
        path = stream.save(tmp_path / "stream.npz")
        wanted = [stream.push(frame) for frame in frames[LENGTH + 3 :]] + stream.flush()
        tracks = plain_tracks(stream.result())
    with clips.load_stream(path) as stream:
        found = [stream.push(frame) for frame in frames[LENGTH + 3 :]] + stream.flush()
        assert plain_tracks(stream.result()) == tracks
    assert list(map(plain, found)) == list(map(plain, wanted))
    for result in found:
        np.testing.assert_array_equal(result.image, frames[result.index])


def test_a_late_result_comes_with_its_frame(clips):
    frames, buffer = moving(25), np.empty_like(moving(1)[0])
    most, found = 0, []
    with clips.open_stream(keep_images=True) as stream:
        for frame in frames:
            buffer[:] = frame  # as OpenCV does with a buffer of the caller
            found.append(stream.push(buffer))
            most = max(most, len(stream._images))
        found = [each for each in found if each is not None] + stream.flush()
        assert (most, len(stream._images)) == (stream.latency, 0)
    assert [each.index for each in found] == list(range(25))
    for result, other in zip(found, clips.stream(frames, keep_images=True), strict=True):
        np.testing.assert_array_equal(result.image, frames[result.index])
        np.testing.assert_array_equal(other.image, frames[result.index])


def test_images_are_kept_only_on_demand(predictor):
    assert [each.image for each in predictor.stream(FRAMES[:2])] == [None, None]
    for index, result in enumerate(predictor.stream(FRAMES[:3, :, :, ::-1], channels="bgr", keep_images=True)):
        np.testing.assert_array_equal(result.image, FRAMES[index])


@pytest.mark.parametrize(
    ("options", "positions"),
    [
        ({"start": 3}, range(3, 20)),
        ({"start": 3, "step": 4}, range(3, 20, 4)),
        ({"start": 2, "step": 5, "max_frames": 3}, (2, 7, 12)),
        ({"start": 19}, (19,)),
        ({"start": np.int64(0), "step": 1}, ()),
    ],
)
def test_frames_are_chosen_by_position(predictor, options, positions):
    seen = []
    result = predictor(FRAMES, fps=10, on_frame=lambda done, expected: seen.append(expected), **options)
    assert result.positions == tuple(positions)
    chosen = list(positions) or list(range(20))
    assert (result.num_frames, seen[0], result.expected_frames) == (len(chosen), len(chosen), len(chosen))
    assert result.timestamps == pytest.approx([position / 10 for position in chosen])
    assert plain_tracks(result) == plain_tracks(predictor(FRAMES[chosen]))


def test_a_start_behind_the_last_frame(predictor):
    with pytest.raises(SourceError, match=r"holds no frame .*no frame from position 20 on"):
        predictor(FRAMES, start=20)


def test_options_of_an_open_source_are_not_ignored(predictor):
    with open_source(FRAMES) as source, pytest.raises(ConfigError, match="an open source cannot be limited"):
        predictor(source, start=5)


def test_unknown_options_are_named(predictor):
    for call in (predictor, predictor.stream):
        with pytest.raises(
            ConfigError, match=r"unknown option 'max_frame' .*start, step.* Did you mean 'max_frames'\?"
        ):
            call(FRAMES, max_frame=3)
