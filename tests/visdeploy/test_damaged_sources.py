"""`predict` on damaged videos: the choice of the response, and the verdict in results, files and on the screen."""

import pytest

from tests.campaigns.media_files import cut, video
from tests.support import exit_code
from tests.visdeploy.step_graph import make_bundle
from tests.visdeploy.test_source_frames import with_track
from visdeploy import VISPredictor, formats
from visdeploy.errors import SourceError

SIZE = (160, 96)


def clip(path):
    return video(path, size=SIZE, frames=12, options={"crf": "8"})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle") / "boxes.vis").path


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return cut(clip, 0.9)(tmp_path_factory.mktemp("clips") / "damaged.mkv")


def test_damage_is_an_error_by_default(bundle, damaged, tmp_path, capsys):
    assert exit_code("predict", bundle, damaged, "--out", tmp_path / "r.json") == 1
    assert "damaged.mkv is truncated" in capsys.readouterr().err.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["r.json.partial"]  # the frames before the damage


@pytest.mark.parametrize("choice", ["skip", "stop-here"])
def test_what_is_left_is_used(bundle, damaged, tmp_path, capsys, choice):
    overlay = tmp_path / "o.mp4"
    assert exit_code("predict", bundle, damaged, "--on-damage", choice, "--overlay", overlay) == 0
    assert "source damaged" in capsys.readouterr().out
    assert overlay.exists()


def test_a_sound_video_is_complete(bundle, tmp_path, capsys):
    assert exit_code("predict", bundle, clip(tmp_path / "a.mp4"), "--on-damage", "stop-here") == 0
    assert "in 12 frames, source complete" in capsys.readouterr().out


def test_unknown_choice(bundle, damaged, capsys):
    assert exit_code("predict", bundle, damaged, "--on-damage", "raise") == 2


@pytest.mark.parametrize("name", ["r.json", "davis"])
def test_the_verdict_is_kept_in_results_and_files(bundle, damaged, tmp_path, name):
    model = VISPredictor(bundle, device="cpu")
    with pytest.raises(SourceError):
        model(damaged)
    result = with_track(model(damaged, on_error="skip"))
    assert result.verdict == "damaged"
    assert model(clip(tmp_path / "a.mp4")).verdict == "complete"
    assert model(damaged, max_frames=3).verdict == "complete"
    result.save(tmp_path / name)
    assert [each.verdict for each in formats.load(tmp_path / name)] == ["damaged"]
