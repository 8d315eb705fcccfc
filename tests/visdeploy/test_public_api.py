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
