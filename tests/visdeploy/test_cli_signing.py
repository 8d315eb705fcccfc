"""`sign`, and the option `--key` of the commands that open a bundle, on a bundle that an engine runs."""

import shutil

import pytest

import visdeploy
from tests.support import exit_code, square_video
from tests.visdeploy.signing.key_files import PASSWORD, write_pair
from tests.visdeploy.step_graph import clip, fields
from visdeploy.bundle import SELFTEST, seal_bundle
from visdeploy.bundle_files import SIGNATURE
from visdeploy.errors import BundleError
from visdeploy.selftest import SelfTest


@pytest.fixture(scope="module")
def proven(bundle, tmp_path_factory):
    """Return a bundle whose self-test contains the outputs of this engine."""
    folder = shutil.copytree(bundle.path, tmp_path_factory.mktemp("proven") / "a.vis")
    pipeline, frames, state, outputs = visdeploy.VISPredictor(bundle, "cpu", 1).pipeline, clip(2), None, []
    for step in pipeline.steps(frames):
        found, state = pipeline.run(step, state, proof=True)
        outputs.append(dict(found))
    (folder / SELFTEST).write_bytes(SelfTest(frames, tuple(outputs)).to_bytes())
    return seal_bundle(folder, fields()).path


@pytest.fixture
def workplace(proven, tmp_path, monkeypatch):
    """Change to a folder with a bundle and two pairs of keys."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(proven, "a.vis")
    write_pair(tmp_path)
    write_pair(tmp_path, "other", password=PASSWORD)
    return tmp_path


def test_sign_and_verify(workplace, capsys):
    assert exit_code("sign", "a.vis", "--key", "key.pem") == 0
    assert "wrote a.vis/model.sig" in capsys.readouterr().out
    assert exit_code("verify", "a.vis", "--key", "key.pub.pem", "--device", "cpu", "--threads", 1) == 0
    assert "signature" in (out := capsys.readouterr().out)
    assert "valid, key" in out
    assert exit_code("verify", "a.vis", "--key", "other.pub.pem") == 1
    assert "BundleError: a.vis/model.sig was made with another key" in capsys.readouterr().err
    assert exit_code("verify", "a.vis", "--device", "cpu", "--threads", 1) == 0
    assert "valid, key" not in capsys.readouterr().out


def test_an_existing_signature(workplace, capsys):
    assert exit_code("sign", "a.vis", "--key", "key.pem") == 0
    assert exit_code("sign", "a.vis", "--key", "key.pem") == 1
    assert "Pass --overwrite to replace it" in capsys.readouterr().err
    assert exit_code("sign", "a.vis", "--key", "key.pem", "--overwrite") == 0


def test_passwords_come_from_the_environment(workplace, capsys, monkeypatch):
    assert exit_code("sign", "a.vis", "--key", "other.pem") == 1
    assert "VISDEPLOY_KEY_PASSWORD" in capsys.readouterr().err
    monkeypatch.setenv("VISDEPLOY_KEY_PASSWORD", "wrong")
    assert exit_code("sign", "a.vis", "--key", "other.pem") == 1
    assert "Check the password" in capsys.readouterr().err
    assert exit_code("sign", "a.vis", "--key", "key.pem") == 0, "this key has no password"
    monkeypatch.setenv("VISDEPLOY_KEY_PASSWORD", PASSWORD)
    assert exit_code("sign", "a.vis", "--key", "other.pem", "--overwrite") == 0
    assert visdeploy.Bundle.open("a.vis", key="other.pub.pem").signed


def test_a_terminal_is_asked_for_the_password(workplace, monkeypatch):
    monkeypatch.setattr("visdeploy.cli.signing.sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("visdeploy.cli.signing.typer.prompt", lambda *_, **__: PASSWORD)
    assert exit_code("sign", "a.vis", "--key", "other.pem") == 0


@pytest.mark.parametrize(
    "command",
    [["info", "a.vis"], ["verify", "a.vis"], ["predict", "a.vis", "v.mp4"], ["benchmark", "a.vis", "v", "--out", "r"]],
)
def test_no_command_runs_an_unsigned_bundle_with_a_key(workplace, capsys, command):
    square_video(workplace / "v.mp4", 1)
    write_frame(workplace / "v/clip")
    assert exit_code(*command, "--key", "key.pub.pem") == 1
    assert "a.vis is not signed" in capsys.readouterr().err.replace("\n", " ")


def write_frame(folder):
    from PIL import Image

    folder.mkdir(parents=True)
    Image.fromarray(clip(1)[0]).save(folder / "00000.png")


@pytest.mark.parametrize(
    "command",
    [
        ["predict", "a.vis", "v.mp4", "--out", "key.json"],
        ["benchmark", "a.vis", "v", "--out", "r", "--zip", "key.json"],
    ],
)
def test_the_key_is_not_replaced_by_an_output(workplace, capsys, command):
    square_video(workplace / "v.mp4", 1)
    write_frame(workplace / "v/clip")
    shutil.copy("key.pub.pem", "key.json")
    assert exit_code(*command, "--key", "key.json", "--overwrite") == 1
    assert "would replace the input" in capsys.readouterr().err.replace("\n", " ")


def test_a_predictor_with_a_key(workplace):
    run = {"device": "cpu", "threads": 1}
    with pytest.raises(BundleError, match="is not signed"):
        visdeploy.VISPredictor("a.vis", **run, key="key.pub.pem")
    opened = visdeploy.Bundle.open("a.vis")
    with pytest.raises(BundleError, match="is not signed"):
        visdeploy.VISPredictor(opened, **run, key="key.pub.pem")
    visdeploy.sign("a.vis", "key.pem")
    for given in ("a.vis", opened):
        predictor = visdeploy.VISPredictor(given, **run, key="key.pub.pem")
        assert predictor.bundle.signed
        assert predictor.identity == opened.identity
    assert predictor(clip(2)).num_frames == 2


def test_no_engine_starts_before_the_signature_is_checked(workplace, monkeypatch):
    def start(*_, **__):
        raise AssertionError("an engine was started")

    visdeploy.sign("a.vis", "key.pem")
    (workplace / "a.vis" / SIGNATURE).write_text("{}")
    monkeypatch.setattr("visdeploy.predictor.open_backend", start)
    monkeypatch.setattr("visdeploy.parity.verification.open_backend", start)
    for use in (visdeploy.VISPredictor, visdeploy.verify):
        with pytest.raises(BundleError, match="not a valid signature"):
            use("a.vis", key="key.pub.pem")


def test_a_report_names_the_key(workplace):
    visdeploy.sign("a.vis", "key.pem")
    report = visdeploy.verify("a.vis", "cpu", 1, key="key.pub.pem")
    assert report.passed
    assert len(report.signature) == 64
    assert visdeploy.verify("a.vis", "cpu", 1).signature == ""
