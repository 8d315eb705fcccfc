"""The pipeline: what it fetches, what it shares, and how a saved state meets frames of another size."""

import numpy as np
import pytest

from tests.visdeploy.clip_graph import make_clip_bundle, moving
from tests.visdeploy.step_graph import HEIGHT, PROOF, WIDTH, clip
from visdeploy import StreamError
from visdeploy.backends import open_backend
from visdeploy.profiling import Profiler
from visdeploy.streaming.pipeline import Pipeline
from visdeploy.streaming.stream import Stream, whole_video


@pytest.fixture(scope="module")
def pipeline(bundle):
    return Pipeline(bundle.manifest, open_backend(bundle, "cpu", 1))


def test_outputs_of_the_role_proof_are_fetched_for_certificates_only(pipeline):
    step = next(pipeline.steps(clip(1)))
    production, _ = pipeline.run(step, None)
    proof, _ = pipeline.run(step, None, proof=True)
    assert set(proof) - set(production) == set(PROOF)
    assert all(np.array_equal(production[name], proof[name]) for name in production)


def test_a_step_does_not_change_what_went_into_it(pipeline):
    first, second = pipeline.steps(clip(2))
    _, state = pipeline.run(first, None)
    once, twice = (pipeline.run(second, state)[0] for _ in range(2))
    assert all(np.array_equal(once[name], twice[name]) for name in once)


def test_a_whole_video_is_what_a_stream_collects(pipeline, predictor):
    frames = clip(12)
    found = whole_video(pipeline, iter(frames), name="v", fps=5)
    expected = predictor(frames)
    assert [(t.track_id, t.score, t.masks) for t in found.tracks] == [
        (t.track_id, t.score, t.masks) for t in expected.tracks
    ]
    assert (found.name, found.fps, found.num_frames) == ("v", 5, 12)
    with pytest.raises(StreamError, match="no result yet"):
        whole_video(pipeline, [], name="v")


def test_a_state_meets_only_frames_of_its_size(pipeline):
    _, state = pipeline.run(next(pipeline.steps(clip(1))), None)
    arrays = pipeline.backend.state_to_host(state)
    assert pipeline.sizes(60, 90) == {"height": HEIGHT, "width": WIDTH}
    assert pipeline.load_state({}, (60, 90), started=False) is None
    assert set(pipeline.load_state(arrays, (60, 90), started=True)) == set(arrays)
    with pytest.raises(StreamError, match="does not match the graph"):
        pipeline.load_state({}, (60, 90), started=True)


def test_a_stream_without_a_bundle_is_not_saved(pipeline, tmp_path):
    with Stream(pipeline) as stream:
        stream.push(clip(1)[0])
        with pytest.raises(StreamError, match="cannot be saved"):
            stream.save(tmp_path / "stream.npz")
    assert not list(tmp_path.iterdir())


def test_a_graph_that_asks_for_the_size_gets_that_of_the_content(tmp_path):
    """The last rows of a frame are padding: the graph's input `size` says so in every step, after a resume too."""
    made = make_clip_bundle(tmp_path / "clip.vis", fixed=False)
    manifest = made.manifest.model_copy(
        update={
            "preprocessing": made.manifest.preprocessing.model_copy(
                update={"height": 28, "width": 44, "pad_divisor": 16}
            ),
            "inputs": [*made.manifest.inputs, made.manifest.inputs[0].model_copy(update=SIZE)],
        }
    )
    pipeline = Pipeline(manifest, open_backend(made, "cpu", 1), profiler=Profiler())
    steps = list(pipeline.steps(moving(10)))
    assert [step.inputs["frames"].shape for step in steps] == [(8, 3, 32, 48), (8, 3, 32, 48)]
    assert [step.inputs["size"].tolist() for step in steps] == [[28, 44]] * 2
    assert steps[0].inputs["size"].dtype == np.int64
    feeder = pipeline.feeder
    for frame in moving(3):
        feeder, _ = pipeline.push(feeder, frame, 0.0)
    _, last = pipeline.feeder.restore(feeder.state(), 3, (32, 48), (28, 44)).finish()
    assert last.inputs["size"].tolist() == [28, 44]
    with pytest.raises(StreamError, match=r"frames of \(3, 32, 48\) in a stream of \(3, 16, 48\)"):
        pipeline.feeder.restore(feeder.state(), 3, (16, 48), (12, 44))


SIZE = {"name": "size", "dtype": "int64", "shape": [2], "role": "size"}
