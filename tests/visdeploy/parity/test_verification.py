"""`verify` passes on an exported bundle and fails on every planted fault, naming what is wrong."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.bundles import tamper
from visdeploy import VISPredictor
from visdeploy.bundle import CERTIFICATE, MANIFEST, MODEL, SELFTEST, Bundle
from visdeploy.errors import BundleError, VerificationError
from visdeploy.parity.certificate import certificate_rows
from visdeploy.parity.verification import verify


def edit_model(change):
    """Return a change of the graph as `tamper` takes it."""

    def apply(folder, manifest):
        model = onnx.load(folder / MODEL)
        change(model.graph)
        onnx.save(model, folder / MODEL)

    return apply


def bump_weight(name_part):
    """Add to one single element of the first weight whose name holds `name_part`."""

    def change(graph):
        tensor = next(t for t in graph.initializer if name_part in t.name and len(t.dims) > 1)
        value = numpy_helper.to_array(tensor).copy()
        value.flat[value.size // 2] += 1.0
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))

    return edit_model(change)


def keep_old(state):
    """Let the graph give back the state it was given."""

    def change(graph):
        for node in graph.node:
            for i, name in enumerate(node.output):
                if name == f"next_{state}":
                    node.output[i] = f"unused_{state}"
        graph.node.append(helper.make_node("Identity", [state], [f"next_{state}"]))

    return edit_model(change)


def manifest_change(change):
    return lambda folder, manifest: change(manifest)


def swap_state_outputs(manifest):
    first, second = (s for s in manifest["state"] if s["input"] in ("mem_cat", "mem_ker"))
    first["output"], second["output"] = second["output"], first["output"]


def start_with(name, value):
    def change(manifest):
        next(s for s in manifest["state"] if s["input"] == name)["initial"] = value

    return manifest_change(change)


FAULTS = {
    "swapped channels": manifest_change(lambda m: m["preprocessing"].update(channel_order="bgr")),
    "wrong mean": manifest_change(lambda m: m["preprocessing"].update(mean=[0.0, 116.28, 103.53])),
    "slightly wrong mean": manifest_change(lambda m: m["preprocessing"].update(mean=[123.0, 116.28, 103.53])),
    "wrong std": manifest_change(lambda m: m["preprocessing"].update(std=[58.395, 57.12, 50.0])),
    "changed weight, backbone": bump_weight("backbone"),
    "changed weight, mask branch": bump_weight("Mask_branch.RefR2"),
    "changed weight, classifier": bump_weight("Category_branch_post.pred"),
    "changed weight, memory": bump_weight("Memory_module.conv1"),
    "changed weight, tracking": bump_weight("track_Q_conv2"),
    "stale mem_ref": keep_old("mem_ref"),
    "stale mem_cat": keep_old("mem_cat"),
    "stale mem_ker": keep_old("mem_ker"),
    "stale mem_frame": keep_old("mem_frame"),
    "stale step": keep_old("step"),
    "slots start as used": start_with("mem_frame", 0.0),
    "starts at another step": start_with("step", 1.0),
}


def test_passes_on_what_export_made(tiny_bundle):
    report = verify(tiny_bundle, device="cpu", threads=1)
    assert report.passed
    assert report.failures == []
    assert report.frames == 9
    assert report.device == "cpu"
    assert report.detections.reference >= 9, "without detections the self-test proves little"
    assert report.tracks.matched == report.tracks.reference > 0
    assert 0 < max(o.worst for o in report.outputs if o.measure == "absolute") < 1e-3
    assert any("passed" in row[1] for row in certificate_rows(report.model_dump()))


def test_a_state_that_is_wired_crosswise_is_no_manifest(tiny_bundle, tmp_path):
    with pytest.raises(BundleError, match="state 'mem_cat' is called 'next_mem_ker', not 'next_mem_cat'"):
        tamper(tiny_bundle, tmp_path / "broken.vis", manifest_change(swap_state_outputs))


@pytest.mark.parametrize("fault", FAULTS)
def test_fails_on_planted_fault(tiny_bundle, tmp_path, fault):
    broken = tamper(tiny_bundle, tmp_path / "broken.vis", FAULTS[fault])
    with pytest.raises(
        VerificationError, match=r"output '(cell_scores|grid_weight|query|reference|mask_logits|scores)'"
    ):
        verify(broken, device="cpu", threads=1)


def edited(source, target, **tracking):
    """Copy a bundle, and edit its manifest as a text editor does."""
    shutil.copytree(source, target)
    data = json.loads((target / MANIFEST).read_bytes())
    data["decode"].update(tracking)
    (target / MANIFEST).write_text(json.dumps(data))
    return target


def test_an_edited_threshold_fails(tiny_bundle, tmp_path):
    broken = edited(tiny_bundle, tmp_path / "broken.vis", overlap_threshold=0.1)
    for use in (verify, VISPredictor):
        with pytest.raises(BundleError, match=r"manifest\.json was changed after its certificate was made"):
            use(broken, device="cpu", threads=1)


def without_digest(folder, *names):
    """Write the certificate or the self-test of a copied bundle as earlier versions did."""
    if SELFTEST in names:
        selftest = Bundle.open(folder).selftest()
        (folder / SELFTEST).write_bytes(replace(selftest, manifest="").to_bytes())
    if CERTIFICATE in names:
        data = json.loads((folder / CERTIFICATE).read_bytes())
        assert data.pop("manifest")
        (folder / CERTIFICATE).write_text(json.dumps(data))


def test_a_self_test_of_another_manifest_fails(tiny_bundle, tmp_path):
    broken = tamper(tiny_bundle, tmp_path / "broken.vis", lambda f, m: without_digest(f, CERTIFICATE))
    data = json.loads((broken / MANIFEST).read_bytes())
    data["decode"]["overlap_threshold"] = 0.1
    (broken / MANIFEST).write_text(json.dumps(data))
    report = verify(broken, device="cpu", threads=1, raise_on_failure=False)
    assert not report.passed
    assert "manifest.json (digest" in report.failures[0]
    assert "is not that of the self-test" in report.failures[0]
    with pytest.raises(VerificationError, match=r"manifest\.json .* is not that of the self-test"):
        verify(broken, device="cpu", threads=1)


def test_a_bundle_of_an_earlier_version_says_that_its_manifest_is_not_covered(tiny_bundle, tmp_path, caplog):
    old = tamper(tiny_bundle, tmp_path / "old.vis", lambda f, m: without_digest(f, CERTIFICATE, SELFTEST))
    report = verify(old, device="cpu", threads=1)
    assert report.passed
    assert report.manifest == ""
    assert ("manifest", "not covered: exported by a version that recorded no digest", "unchanged") in certificate_rows(
        report.model_dump()
    )
    assert "recorded no digest of manifest.json" in caplog.text
    report = verify(tiny_bundle, device="cpu", threads=1)
    assert report.manifest == Bundle.open(tiny_bundle).digest
    assert ("manifest", f"digest {report.manifest[:12]}…", "unchanged") in certificate_rows(report.model_dump())


def test_a_failed_report_can_be_had_without_an_exception(tiny_bundle, tmp_path):
    broken = tamper(tiny_bundle, tmp_path / "broken.vis", FAULTS["swapped channels"])
    report = verify(broken, device="cpu", threads=1, raise_on_failure=False)
    assert not report.passed
    assert report.worst.worst > report.worst.limit
    assert repr(report.worst.name) in report.failures[0]
    assert certificate_rows(report.model_dump())[0][:2] == ("result", "failed")


def test_fails_on_flipped_byte(tiny_bundle, tmp_path):
    def flip(folder, manifest):
        data = bytearray((folder / MODEL).read_bytes())
        data[len(data) // 2] ^= 1
        changed.write_bytes(bytes(data))

    changed = tmp_path / "flipped.onnx"
    broken = tamper(tiny_bundle, tmp_path / "broken.vis", flip)
    (broken / MODEL).write_bytes(changed.read_bytes())
    with pytest.raises(BundleError, match=r"model\.onnx does not match its manifest.*sha256"):
        verify(broken)


def test_graph_that_contradicts_the_manifest(tiny_bundle, tmp_path):
    def rename(manifest):
        next(t for t in manifest["outputs"] if t["name"] == "query")["name"] = "queries"

    def selftest_too(folder, manifest):
        rename(manifest)
        with np.load(folder / "selftest.npz") as archive:
            arrays = {k.replace("/query", "/queries"): v for k, v in archive.items()}
        np.savez_compressed(folder / "selftest.npz", **arrays)

    broken = tamper(tiny_bundle, tmp_path / "broken.vis", selftest_too)
    with pytest.raises(BundleError, match="queries"):
        verify(broken)


def test_works_where_torch_cannot_be_imported(tiny_bundle):
    code = (
        "import sys; sys.modules['torch'] = None; import visdeploy; "
        f"print(visdeploy.verify({str(tiny_bundle)!r}, device='cpu', threads=1).passed); "
        "sys.exit(any(v and k.split('.')[0] in ('torch', 'onnx', 'visdeploy_export') for k, v in sys.modules.items()))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "True", run.stderr
    assert run.returncode == 0
