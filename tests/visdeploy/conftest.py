"""Fixtures for the tests of the runtime: a small real bundle."""

import pytest

from tests.visdeploy.step_graph import make_bundle


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    pytest.importorskip("onnx")
    return make_bundle(tmp_path_factory.mktemp("bundle") / "small.vis")


@pytest.fixture(scope="session")
def predictor(bundle):
    from visdeploy import VISPredictor

    return VISPredictor(bundle, device="cpu", threads=1)
