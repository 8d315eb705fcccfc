"""The comparison with goldens passes on correct values and fails on planted faults."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.goldens import run, tpr_train
from tests.goldens.__main__ import main
from tests.goldens.core import Golden, Report, StateDict, Store
from tests.goldens.visolo_clip import check_detections
from visdeploy_training.methods.tpr.alignment import TemporalAlign

CASES = ("postprocess_cases.npz", "tracker_cases.npz")


@pytest.fixture(scope="module")
def visolo(shared: Path) -> Path:
    return shared / "goldens" / "visolo"


@pytest.mark.slow
@pytest.mark.isa
def test_visolo_passes(visolo: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(visolo)]) == 0
    text = capsys.readouterr().out
    manifest = json.loads((visolo / "manifest.json").read_text())
    stored = sum(f["arrays"] for f in manifest["files"].values())
    assert f"{stored} stored keys checked, 0 not checked, 0 of" in text


@pytest.mark.slow
def test_one_changed_weight_fails_and_is_found(visolo: Path):
    def edit(state: StateDict) -> None:
        state["model.Kernel_branch.pred.weight"][0, 0] += 0.5

    report = run(visolo, edit=edit, only=("online_a.npz",))
    failed, passed = ({r.stage for r in report.rows if r.ok is ok} for ok in (False, True))
    assert {"stage/Kernel_branch.pred", "online/pred_kernels (online step)"} <= failed
    # everything before that layer still agrees
    assert {"stage/backbone.res4", "stage/Kernel_branch.conv_layers_post", "stage/Mask_branch.pred"} <= passed - failed
    assert not report.unchecked


@pytest.mark.slow
def test_changed_weight_changes_losses_and_gradients(visolo: Path):
    def edit(state: StateDict) -> None:
        state["model.Tracking_branch.track_R_conv2.weight"].mul_(1.01)

    report = run(visolo, edit=edit, only=("train.npz",))
    failed = {r.key for r in report.rows if not r.ok}
    assert {"pred/track_logits", "loss/loss_tracking"} <= failed
    assert "gt/mask_cells" not in failed


SCORES, MASKS = "online/f0/det/score", "online/f0/det/masks_packed"


def detections(folder: Path, *, score: float, pixels: int) -> Report:
    """Compare two detections with a stored frame; its first score and first mask (2,000 pixels) differ by so much."""
    masks, scores = np.zeros((2, 40, 80), bool), np.float32([0.7, 0.4])
    masks[:, :25] = True
    stored = {SCORES: scores + np.float32([score, 0]), MASKS: masks.reshape(2, -1).copy()}
    stored[MASKS][0, :pixels] = False
    np.savez(folder / "frame.npz", **stored | {MASKS: np.packbits(stored[MASKS], axis=1)})
    tolerance = {"scores_atol": 1e-4, "mask_bits_mismatch_max_fraction": 1e-2}
    (folder / "manifest.json").write_text(json.dumps({"tolerance": tolerance}))
    golden = Golden(folder)
    rows, none = np.arange(2), np.zeros(0, bool)
    association = SimpleNamespace(track_ids=rows, lost=none, num_tracks=2, previous_matched=none)
    decoder = SimpleNamespace(last=SimpleNamespace(kept=rows, association=association))
    outputs = {"masks": masks, "scores": scores, "cells": rows, "labels": rows, "class_scores": scores}
    store = Store(golden, "frame.npz")
    check_detections(store, 0, outputs, decoder)
    golden.close(store)
    assert not golden.report.unchecked
    return golden.report


@pytest.mark.parametrize(
    ("score", "pixels", "wrong"),
    [
        (5e-5, 0, set()),
        (2e-4, 0, {SCORES}),
        (9e-4, 1, set()),  # one of 2,000 pixels: 1e-3 more
        (1.2e-3, 1, {SCORES}),
        (1.2e-3, 2, set()),
        (0, 64, set()),
        (0, 65, {MASKS}),  # more than a hundredth of all pixels
    ],
)
def test_a_score_moves_only_with_the_pixels_of_its_masks(tmp_path: Path, score: float, pixels: int, wrong: set[str]):
    assert {row.key for row in detections(tmp_path, score=score, pixels=pixels).rows if not row.ok} == wrong


@pytest.fixture(scope="module")
def defvis(shared: Path) -> Path:
    return shared / "goldens" / "defvis"


@pytest.mark.slow
@pytest.mark.isa
def test_defvis_passes(defvis: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(defvis)]) == 0
    text = capsys.readouterr().out
    stored = sum(len(np.load(path).files) for path in defvis.glob("*.npz"))
    assert f"{stored} stored keys checked, 0 not checked, 0 of" in text


def test_defvis_changed_weight_is_found_where_it_is(defvis: Path):
    def edit(state: StateDict) -> None:
        state["mask_head.gn3.weight"][0] += 0.5

    report = run(defvis, edit=edit, only=("inst_r50_t4_padded.npz",))
    failed, passed = ({r.key for r in report.rows if r.ok is ok} for ok in (False, True))
    assert {"mh_gn3", "mh_dcn", "insmask_stage8", "pred_masks"} <= failed
    assert {"mh_gn2", "bbox_attention", "pred_logits", "pred_boxes", "memory_tokens"} <= passed - failed
    assert not report.unchecked


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("match_src_2", lambda a: a[::-1].copy()),
        ("loss/loss_giou", lambda a: a * 1.002),
        ("loss/cardinality_error_3", lambda a: a + 1),
        ("grad_boxes_4", lambda a: a * 1.002),
        ("grad_pred_masks", lambda a: a * 0.99),
        ("target_valid", lambda a: 1 - a),
    ],
)
def test_defvis_planted_deviation_in_a_criterion_case_fails(defvis: Path, tmp_path: Path, key: str, change):
    file = "criterion_enc_t6.npz"
    for name in ("manifest.json", file):
        shutil.copy(defvis / name, tmp_path / name)
    assert run(tmp_path).ok
    with np.load(tmp_path / file) as archive:
        edit_npz(tmp_path / file, **{key: change(archive[key])})
    assert key in {r.key for r in run(tmp_path).rows if not r.ok}


@pytest.fixture(scope="module")
def tevit(shared: Path) -> Path:
    return shared / "goldens" / "tevit"


@pytest.mark.slow
def test_tevit_passes(tevit: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tevit)]) == 0
    text = capsys.readouterr().out
    stored = sum(len(np.load(path).files) for path in tevit.glob("*.npz"))
    assert f"{stored} stored keys checked, 0 not checked, 0 of" in text


@pytest.mark.slow
@pytest.mark.isa
def test_tevit_changed_weight_is_found_where_it_is(tevit: Path):
    """With other instruction sets, this one clip shows the whole backbone, the neck and half of the head."""

    def edit(state: StateDict) -> None:
        state["roi_head.bbox_head.3.ffn_norm.weight"][0] += 0.5

    report = run(tevit, edit=edit, only=("msgshift_clip_a.npz",))
    failed, passed = ({r.key for r in report.rows if r.ok is ok} for ok in (False, True))
    assert {"head/stage3/obj_feats", "head/stage3/boxes", "head/stage5/cls_logits"} <= failed
    assert {"neck/p2", "head/stage2/boxes", "head/stage3/attn_feats", "head/stage3/dynconv"} <= passed - failed
    before = ("backbone/", "neck/", "head/init", "head/stage0/", "head/stage1/", "head/stage2/")
    assert not [key for key in failed if key.startswith(before)]
    assert not report.unchecked


@pytest.fixture(scope="module")
def tpr(shared: Path) -> Path:
    return shared / "goldens" / "tpr"


TPR_FILES = (
    "r50_sepc.npz", "r50_sepc_train.npz", "swint_routing.npz", "swint_routing_train.npz", "tracker.npz"
)  # fmt: skip


def test_tpr_files_are_all_compared(tpr: Path):
    assert sorted(path.name for path in tpr.glob("*.npz")) == list(TPR_FILES)


@pytest.mark.slow
@pytest.mark.isa
@pytest.mark.parametrize("file", TPR_FILES)
def test_tpr_passes(tpr: Path, capsys: pytest.CaptureFixture[str], file: str):
    """Each file is a test of its own, so that they run in parallel."""
    assert main([str(tpr), "--only", file]) == 0
    stored = len(np.load(tpr / file).files)
    assert f"{stored} stored keys checked, 0 not checked, 0 of" in capsys.readouterr().out


@pytest.mark.slow
def test_tpr_changed_weight_is_found_where_it_is(tpr: Path):
    def edit(state: StateDict) -> None:
        state["temporal_align.fuse_subnets.1.0.Pconv.2.bias"][0] += 0.5

    report = run(tpr, edit=edit, only=("r50_sepc.npz",))
    failed, passed = ({r.key for r in report.rows if r.ok is ok} for ok in (False, True))
    # the first frame is not aligned; in the second, the layer gives p5 what comes from p4
    assert {"f1/cpr/subnet1/layer0/out1@c32", "f1/aligned/p5@c16", "f2/aligned/p5@c16"} <= failed
    assert {"f0/det/scores", "f1/aligned/p3@c16", "f1/dacr/p4/aligned_feature@c16"} <= passed
    assert "f1/cpr/subnet1/layer0/out0@c32" in passed
    assert not report.unchecked


def test_tpr_changed_memory_is_found(tpr: Path, tmp_path: Path):
    """A planted deviation in a file, not in the network."""
    for name in ("manifest.json", "tracker.npz"):
        shutil.copy(tpr / name, tmp_path / name)
    with np.load(tmp_path / "tracker.npz") as archive:
        key = next(k for k in archive.files if k.endswith("/out/memory_boxes") and archive[k].size)
        edit_npz(tmp_path / "tracker.npz", **{key: archive[key] + np.float32(0.1)})
    assert {r.key for r in run(tmp_path).rows if not r.ok} == {key}


def without_budget(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the same losses; that of the gates has no gradient."""
    return losses | {"loss_budget": losses["loss_budget"].detach()}


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["budget", "reference"])
def test_tpr_missing_gradient_is_found(tpr: Path, monkeypatch: pytest.MonkeyPatch, fault: str):
    """All values are correct, and a part of the gradient is missing: that of a loss, or that of the reference frame."""
    if fault == "budget":
        correct = tpr_train.criterion
        monkeypatch.setattr(tpr_train, "criterion", lambda *args: without_budget(correct(*args)))
    else:
        align = TemporalAlign.align
        monkeypatch.setattr(TemporalAlign, "align", lambda self, r, q, gates: align(self, r.detach(), q, gates))
    report = run(tpr, only=("r50_sepc_train.npz",))
    assert {r.key for r in report.rows if not r.ok} == {"train/grad/l2"}
    assert not report.unchecked


@pytest.mark.parametrize(
    ("norm", "stored", "draws", "passes"),
    [
        (1.0, 1.0019, [], True),
        (1.0, 1.0021, [1.0, 1.0], False),
        (1.0, 1.0059, [1.0, 1.002], True),  # twice the range of the draws
        (1.0, 1.0063, [1.0, 1.002], False),
        (1.0, -1.0, [1.0], False),
        (-1.0, 1.0, [-1.0], False),
        (-1.0, -1.0, [], True),
        (0.0, -1.0, [], True),
    ],
)
def test_norm_of_a_gradient_may_differ_by_what_rounding_explains(
    norm: float, stored: float, draws: list[float], passes: bool
):
    samples = [{"a": value, "b": 2.0} for value in (norm, *draws)]
    worst, excess = tpr_train.worst_norm({"a": stored, "b": 2.0}, samples, {"rel": 0.002, "abs": 1e-5})
    assert (excess <= 1) is passes
    assert worst == "a" or not excess


def copy_cases(visolo: Path, folder: Path) -> Path:
    for name in ("manifest.json", *CASES):
        shutil.copy(visolo / name, folder / name)
    return folder


def edit_npz(path: Path, **changes: np.ndarray) -> None:
    with np.load(path) as archive:
        arrays = {k: archive[k] for k in archive.files}
    np.savez(path, **(arrays | changes))


def test_folder_without_the_large_files_passes(visolo: Path, tmp_path: Path):
    report = run(copy_cases(visolo, tmp_path))
    assert report.ok
    assert sorted(report.absent) == ["official_size_h.npz", "online_a.npz", "train.npz"]


def test_stored_key_that_nobody_checks_is_a_failure(visolo: Path, tmp_path: Path):
    edit_npz(copy_cases(visolo, tmp_path) / CASES[1], **{"gaps/f3/surprise": np.zeros(3)})
    report = run(tmp_path)
    assert report.unchecked == ["tracker_cases.npz: gaps/f3/surprise"]
    assert not report.ok


def test_unknown_file_is_a_failure(visolo: Path, tmp_path: Path):
    np.savez(copy_cases(visolo, tmp_path) / "more_cases.npz", a=np.zeros(1))
    assert run(tmp_path).unchecked == ["more_cases.npz: the whole file"]


@pytest.mark.parametrize(
    ("file", "key", "change"),
    [
        (CASES[0], "default_grid_weight/score", lambda a: a + 1e-3),
        (CASES[0], "nms_pre_40/cell", lambda a: a + 1),
        (CASES[0], "two_empty_masks_gives_none/is_none", lambda a: ~a),
        (CASES[0], "linear_kernel/masks_packed", lambda a: a ^ np.uint8(255)),
        (CASES[0], "no_grid_weight_one_empty_mask/nms_out_score", lambda a: np.nan_to_num(a, nan=0.3)),
        (CASES[1], "dense/f3/track_id", lambda a: a[::-1].copy()),
        (CASES[1], "gaps/f8/lost_before_append", lambda a: a[:0]),
        (CASES[1], "dense/final_scores", lambda a: a * 1.001),
    ],
)
def test_planted_deviation_in_a_case_fails(visolo: Path, tmp_path: Path, file: str, key: str, change):
    path = copy_cases(visolo, tmp_path) / file
    with np.load(path) as archive:
        edit_npz(path, **{key: change(archive[key])})
    report = run(tmp_path)
    assert not report.ok
    assert {r.key for r in report.rows if not r.ok} == {key}


def test_command_line_exit_codes(visolo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = copy_cases(visolo, tmp_path) / CASES[1]
    deterministic = torch.are_deterministic_algorithms_enabled()
    assert main([str(tmp_path)]) == 0
    edit_npz(path, **{"never/num_tracks": np.zeros(1)})
    assert main([str(tmp_path)]) == 1
    assert "never/num_tracks" in capsys.readouterr().out
    torch.use_deterministic_algorithms(deterministic)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"model": "other"}))
    with pytest.raises(SystemExit, match="no adapter"):
        run(tmp_path)


@pytest.fixture(scope="module")
def vishv(shared: Path) -> Path:
    return shared / "goldens" / "vishv"


VISHV_FILES = (
    "clustering.npz", "flow.npz", "flow_conditional.npz", "stemseg_davis_r101.npz", "stemseg_kitti_r50.npz",
    "ytvis_r50.npz",
)  # fmt: skip


def test_vishv_files_are_all_compared(vishv: Path):
    assert sorted(path.name for path in vishv.glob("*.npz")) == list(VISHV_FILES)


@pytest.mark.slow
@pytest.mark.isa
@pytest.mark.parametrize("file", VISHV_FILES)
def test_vishv_passes(vishv: Path, capsys: pytest.CaptureFixture[str], file: str):
    assert main([str(vishv), "--only", file]) == 0
    stored = len(np.load(vishv / file).files)
    assert f"{stored} stored keys checked, 0 not checked, 0 of" in capsys.readouterr().out


def test_vishv_tables_pass(vishv: Path):
    report = run(vishv, only=("aux.json",))
    assert {row.file for row in report.rows} == {"aux.json"}
    assert report.ok


@pytest.mark.slow
def test_vishv_changed_weight_is_found_where_it_is(vishv: Path):
    def edit(state: StateDict) -> None:
        if "embedding_head.conv_8.weight" in state:
            state["embedding_head.conv_8.weight"][0] += 0.5

    report = run(vishv, edit=edit, only=("stemseg_kitti_r50.npz",))
    failed, passed = ({r.key for r in report.rows if r.ok is ok} for ok in (False, True))
    head = "vishv/kitti_a/win0/embedding_head"
    assert {f"{head}.conv_8", f"{head}.conv_4", head} <= failed
    assert {f"{head}.conv_16", "vishv/kitti_a/win0/semseg_head", "vishv/kitti_a/fg_mask"} <= passed
    assert not report.unchecked


def test_vishv_changed_flow_is_found(vishv: Path):
    def edit(state: StateDict) -> None:
        key = "released_small.blocks.0.flows.1.coupling.net.4.conv.bias"
        if key in state:
            state[key] += 0.5

    report = run(vishv, edit=edit, only=("flow.npz",))
    failed = {r.key for r in report.rows if not r.ok}
    assert {"released_small/log_p", "released_small/z0", "released_small/sample"} <= failed
    assert all(key.startswith("released_small/") for key in failed)
    # an additive coupling changes no volume
    assert "released_small/logdet" not in failed
