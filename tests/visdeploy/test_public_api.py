"""The public API: its names, the time to import it, and independence of torch."""

import subprocess
import sys

import pytest

import visdeploy


@pytest.mark.parametrize("name", visdeploy.__all__)
def test_every_public_name_exists(name):
    assert getattr(visdeploy, name) is not None


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no_such_name"):
        visdeploy.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", ["export", "verify", "evaluate", "doctor", "benchmark", "sign"])
def test_functions_are_not_shadowed_by_modules(name):
    # a module visdeploy/verify.py would replace the function as soon as anything imported it
    code = f"import visdeploy, visdeploy.predictor, visdeploy.cli; assert callable(visdeploy.{name}), visdeploy.{name}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_runtime_works_where_torch_cannot_be_imported():
    code = (
        "import sys; sys.modules['torch'] = None; import visdeploy;"
        "[getattr(visdeploy, name) for name in visdeploy.__all__];"
        "import visdeploy.cli, visdeploy.formats, visdeploy.render, visdeploy.video, visdeploy.backends;"
        "\ntry:\n    visdeploy.export('nothing.pth')\nexcept visdeploy.DependencyError as error:\n    print(error)"
    )
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "visdeploy[export]" in ran.stdout


def test_importing_loads_nothing_heavy():
    heavy = (
        "torch",
        "cv2",
        "av",
        "onnxruntime",
        "scipy",
        "PIL",
        "rich",
        "pycocotools",
        "supervision",
        "pyarrow",
        "model_signing",
    )
    code = f"import sys, visdeploy; print([m for m in {heavy} if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert ran.stdout.strip() == "[]"


def _commands():
    import typer

    from visdeploy.cli import app

    def walk(name, command):
        for key, inner in getattr(command, "commands", {}).items():
            yield from walk(f"{name} {key}".strip(), inner)
        if not getattr(command, "commands", {}):
            yield name, command

    return dict(walk("", typer.main.get_command(app)))


def test_commands_name_their_arguments_and_options_alike():
    """Arguments are in capitals, and an option of several commands has one meaning and one short form."""
    options = {}
    for name, command in _commands().items():
        for parameter in command.params:
            if parameter.param_type_name == "argument":
                shown = parameter.metavar or parameter.name
                assert shown == shown.upper(), f"visdeploy {name}: {shown}"
                assert parameter.help, f"visdeploy {name}: {shown}"
            else:
                options.setdefault(parameter.name, []).append((name, sorted(parameter.opts), parameter.help))
                if parameter.multiple:
                    assert "repeatable" in parameter.help, f"visdeploy {name} --{parameter.name}"
    for name in ("overwrite", "resume", "device", "threads", "tf32", "metric", "videos", "classes"):
        found = [(opts, text) for command, opts, text in options[name] if (name, command) != ("classes", "predict")]
        assert all(each == found[0] for each in found), f"{name}: {found}"
    assert all("-o" in opts for _, opts, _ in options["out"])


def test_an_unknown_option_of_an_export_is_named(tmp_path):
    with pytest.raises(
        visdeploy.ConfigError, match=r"unknown option 'certify_frame' .*Did you mean 'certify_frames'\?"
    ):
        visdeploy.export(tmp_path / "a.pth", certify_frame=3)
