"""The plugin library in TensorRT's registries: TensorRT 11 (the lean runtime) and TensorRT for RTX."""

import subprocess
import sys

import pytest

from tests.visdeploy_plugins.tensorrt_child import run
from visdeploy_plugins import OpError, native, tensorrt, tensorrt_library

MODULES = ["tensorrt_lean_bindings", "tensorrt_rtx"]
CONV = [["strides", "INT32", [2, 1]], ["pads", "INT32", [1, 1, 1, 1]], ["group", "INT64", [4]]]
ROI = [["output_height", "INT32", [7]], ["output_width", "INT32", [7]], ["sampling_ratio", "INT32", [2]]]
ROI += [["spatial_scales", "FLOAT32", [0.25, 0.125]], ["finest_scale", "FLOAT64", [56.0]]]
FORMAT = [["visdeploy_format", "INT32", [1]]]
SERIALISED_CONV = [*FORMAT, *CONV[:2], ["dilations", "INT32", [1, 1]], ["group", "INT32", [4]]]

GOOD = [
    ["MSDeformAttn", "BUILD", []],
    ["MSDeformAttnFused", "BUILD", []],
    ["MaskedConv", "BUILD", []],
    ["MaskedConv", "BUILD", CONV],
    ["DeformConv", "BUILD", [*CONV, ["offset_group", "INT32", [2]], ["kernel_shape", "INT32", [3, 3]]]],
    ["MultiLevelRoiAlign", "BUILD", ROI],
    ["MSDeformAttn", "RUNTIME", FORMAT],
    ["MSDeformAttnFused", "RUNTIME", FORMAT],
    ["MaskedConv", "RUNTIME", SERIALISED_CONV],
    ["DeformConv", "RUNTIME", [*SERIALISED_CONV, ["offset_group", "INT32", [1]]]],
    ["MultiLevelRoiAlign", "RUNTIME", [*FORMAT, *ROI]],
]

BAD = [
    (["MSDeformAttn", "BUILD", [["heads", "INT32", [8]]]], "unknown attribute (seen: heads; expected: no attributes)"),
    (
        ["MaskedConv", "BUILD", [["bogus", "INT32", [8]]]],
        "unknown attribute (seen: bogus; expected: strides, pads, dil",
    ),
    (["MaskedConv", "BUILD", FORMAT], "unknown attribute (seen: visdeploy_format; "),
    (["MaskedConv", "BUILD", [*CONV, CONV[0]]], "attribute strides (seen: given twice; expected: given once)"),
    (["MaskedConv", "BUILD", [["group", "FLOAT32", [1.0]]]], "attribute group has the wrong type (seen: float32; "),
    (["MaskedConv", "BUILD", [["group", "CHAR", [1]]]], "attribute group has the wrong type (seen: field type 6; "),
    (
        ["MaskedConv", "BUILD", [["group", "INT64", [1 << 40]]]],
        "attribute group is out of range (seen: [1099511627776]; ",
    ),
    (
        ["MaskedConv", "BUILD", [["pads", "INT32", [1, 1, 1, -1]]]],
        "attribute pads is out of range (seen: [1, 1, 1, -1]",
    ),
    (["MaskedConv", "BUILD", [["pads", "INT32", []]]], "attribute pads has the wrong length (seen: 0; "),
    (["MultiLevelRoiAlign", "BUILD", ROI[1:]], "attribute output_height (seen: absent; expected: given)"),
    (
        ["MSDeformAttn", "RUNTIME", []],
        "serialised plugin without field visdeploy_format (seen: 0 fields; expected: for",
    ),
    (
        ["MSDeformAttn", "RUNTIME", [["visdeploy_format", "INT32", [2]]]],
        "another version of the plugin library (seen: ",
    ),
    (
        ["MSDeformAttn", "RUNTIME", [["visdeploy_format", "INT32", [1, 1]]]],
        "attribute visdeploy_format has the wrong le",
    ),
    (
        ["MSDeformAttn", "RUNTIME", [*FORMAT, *FORMAT]],
        "field visdeploy_format (seen: given twice; expected: given once)",
    ),
    (["MaskedConv", "RUNTIME", SERIALISED_CONV[:-1]], "serialised attribute group (seen: absent; expected: given)"),
    (
        ["MaskedConv", "RUNTIME", [*SERIALISED_CONV, ["bogus", "INT32", [8]]]],
        "unknown attribute (seen: bogus; expected",
    ),
]


def messages(found):
    """Return the messages of each request, from TensorRT's log or, without a logger, from the error stream."""
    log = "\n".join(found["log"]).split("--")
    stream = found["stderr"].split("--\n")
    return [first + second for first, second in zip(log, stream, strict=False)]


@pytest.mark.parametrize("module", MODULES)
def test_every_plugin_is_listed_and_created(tensorrt_plugins, module):
    found = run("create", module=module, requests=GOOD)
    assert sorted(found["creators"]) == sorted(tensorrt.PLUGINS)
    assert {(version, namespace) for version, namespace, _ in found["creators"].values()} == {("1", "")}
    assert found["creators"]["MaskedConv"][2] == ["strides", "pads", "dilations", "group"]
    assert found["created"] == [True] * len(GOOD)
    assert found["version"].startswith("11." if module == "tensorrt_lean_bindings" else "1.")
    assert not any(name in text for text in messages(found) for name in ("seen:", "expected:"))


@pytest.mark.parametrize("module", MODULES)
def test_bad_fields_give_no_plugin_and_a_message(tensorrt_plugins, module):
    found = run("create", module=module, requests=[request for request, _ in BAD])
    assert found["created"] == [False] * len(BAD)
    for (request, message), logged in zip(BAD, messages(found), strict=False):
        assert f"{request[0]}: " in logged
        assert message in logged
    # TensorRT for RTX has a logger here; the lean runtime has none without a GPU.
    assert ("seen:" in found["stderr"]) == (module == "tensorrt_lean_bindings")


def test_messages_reach_the_logger_of_tensorrt_rtx(tensorrt_plugins):
    found = run("create", module="tensorrt_rtx", requests=[BAD[0][0]])
    assert "ERROR: MSDeformAttn: unknown attribute (seen: heads; expected: no attributes)" in found["log"]


def test_library_path(tensorrt_plugins):
    assert tensorrt_library().name == "libvisdeploy_tensorrt.so"


class Registry:
    """A registry that takes no library."""

    all_creators = ()

    def load_library(self, path):
        self.path = path


def test_library_that_does_not_register_is_an_error(tensorrt_plugins):
    with pytest.raises(
        OpError, match=r"did not register its plugins; .*seen: no DeformConv, .* of version 1; expected"
    ):
        tensorrt.load(Registry())


def test_missing_library_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(native, "__file__", str(tmp_path / "native.py"))
    assert tensorrt_library() is None
    with pytest.raises(OpError, match=r"libvisdeploy_tensorrt.so was not built: install from source where nvcc"):
        tensorrt.load(Registry())


def test_missing_tensorrt_rtx_is_said(monkeypatch):
    monkeypatch.setattr(tensorrt, "_opens", lambda _: False)
    with pytest.raises(
        OpError, match=r"TensorRT for RTX: its library cannot be loaded \(seen: .*; expected: an installed"
    ):
        tensorrt.ensure_tensorrt_rtx_loadable()


@pytest.mark.parametrize("imported_first", [True, False])
def test_tensorrt_rtx_is_made_loadable_before_or_after_its_import(tensorrt_plugins, imported_first):
    lines = ["import tensorrt_rtx", "ensure_tensorrt_rtx_loadable(); ensure_tensorrt_rtx_loadable()"]
    program = "import ctypes\nfrom visdeploy_plugins.tensorrt import ensure_tensorrt_rtx_loadable\n"
    program += "\n".join(lines if imported_first else lines[::-1])
    # What the parser does, and what it looks for there.
    program += "\nctypes.CDLL('libtensorrt_rtx.so').getInferLibVersion()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_import_brings_no_tensorrt():
    program = "import sys, visdeploy_plugins.tensorrt; sys.exit(any('tensorrt_' in name for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
