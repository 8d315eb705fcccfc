"""The predictor: errors for invalid arguments, constant memory, a fast import."""

import subprocess
import sys

import numpy as np
import pytest

import visdeploy
from tests.visdeploy.step_graph import CLASSES, clip, make_bundle
from tests.visdeploy.streams import check_memory_is_flat
from visdeploy.errors import BundleError, ConfigError, SourceError


def test_it_says_what_it_is(predictor, bundle):
    assert (predictor.device, predictor.classes) == ("cpu", CLASSES)
    assert repr(predictor) == f"VISPredictor({str(bundle.path)!r}, visolo test, on cpu)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "mystery"}, "no installed package has the method"),
        ({"decode": {"nonsense": 1}}, r"decode\.nonsense"),
        ({"tracking": {"max_lost": "all"}}, r"tracking\.max_lost"),
    ],
)
def test_bundles_that_cannot_run_are_refused_when_opened(tmp_path, changes, message):
    made = make_bundle(tmp_path / "a.vis", **changes)
    with pytest.raises(BundleError, match=message):
        visdeploy.VISPredictor(made.path, device="cpu")


def test_a_wrong_number_of_classes_is_refused_at_the_first_frame(tmp_path):
    made = make_bundle(tmp_path / "a.vis", classes=["one", "two"])
    with pytest.raises(BundleError, match="'class_scores' is malformed"):
        visdeploy.VISPredictor(made, device="cpu")(clip(2))


def test_a_missing_bundle(tmp_path):
    with pytest.raises(BundleError):
        visdeploy.VISPredictor(tmp_path / "none.vis")


@pytest.mark.parametrize(
    ("source", "options", "error"),
    [
        ("missing.mp4", {}, SourceError),
        (object(), {}, SourceError),
        ([np.zeros((4, 4), np.uint8)], {}, SourceError),
        ([clip(1)[0], clip(1)[0][:-2]], {}, SourceError),
        (clip(2).astype(float), {}, SourceError),
        (iter([]), {}, SourceError),
        (clip(2), {"step": 0}, ConfigError),
    ],
)
def test_bad_sources(predictor, source, options, error):
    with pytest.raises(error):
        predictor(source, **options)


def test_a_source_that_does_not_open_fails_before_the_first_frame(predictor):
    with pytest.raises(SourceError):
        predictor.stream("missing.mp4")


def test_progress_is_reported(predictor):
    seen = []
    predictor(clip(6), max_frames=4, on_frame=lambda done, expected: seen.append((done, expected)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_an_abandoned_stream_closes_its_source(predictor):
    closed = []

    def frames():
        try:
            yield from clip(5)
        finally:
            closed.append(True)

    results = predictor.stream(frames())
    assert next(results).index == 0
    results.close()
    assert closed == [True]


def test_importing_is_light():
    code = (
        "import sys; import visdeploy; from visdeploy import VISPredictor; "
        "print([m for m in ('torch', 'cv2', 'av', 'onnxruntime', 'scipy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.slow
def test_memory_is_flat(bundle, tmp_path):
    check_memory_is_flat(bundle.path, clip(60, size=(120, 160)), tmp_path, first=300, last=3000, limit=5)
