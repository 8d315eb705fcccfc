"""Several processes train one network: gradients are those of one batch, and a run ends with one result."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from torch import Tensor

from tests.visdeploy_training.material import CLASSES, ytvis_set
from visdeploy_training import convert_checkpoint, create_model
from visdeploy_training.clip import ClipTargets
from visdeploy_training.losses import mean_over_processes
from visdeploy_training.model import VISModel
from visdeploy_training.registry import get_method

SIZES = {"defvis": {"hidden_dim": 48, "num_heads": 4, "mask_groups": 1, "num_frames": 3}, "tevit": {"num_stages": 1}}
LOCAL = {"defvis": "loss_ce", "tevit": "none"}
"""Losses that each process normalises separately, as in the published implementations."""


def network(method: str) -> VISModel:
    torch.manual_seed(0)
    return create_model(method, "tiny", num_classes=2, height=64, width=96, **SIZES[method]).train()


def clip_of(seed: int) -> tuple[Tensor, ClipTargets]:
    """Return clip 0, with one object in some frames, or clip 1, with two in all frames."""
    images = torch.randn(1, 3, 3, 64, 96, generator=torch.Generator().manual_seed(seed))
    masks = torch.zeros(3, 1 + seed, 64, 96, dtype=torch.bool)
    masks[seed - 1 :, 0, 8:40, 16:64] = True
    masks[:, 1:, 20:60, 40:90] = True
    return images, ClipTargets(masks, torch.arange(1 + seed).expand(3, -1).clone())


def gradients(method: str, clips: list[int]) -> dict[str, Tensor]:
    """Of all losses that are normalised over the processes; batch norms, which each process takes alone, are fixed."""
    model = network(method)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    images, targets = zip(*(clip_of(c) for c in clips), strict=True)
    losses = get_method(method).losses(model(torch.cat(images)), targets, model.config)
    torch.stack([v for k, v in losses.items() if not k.startswith(LOCAL[method])]).sum().backward()
    return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def one_of_two(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    try:
        torch.set_num_threads(1)
        assert mean_over_processes(3.0 + rank, torch.zeros(1)) == 3.5
        for method in SIZES:
            found = gradients(method, [rank])
            for gradient in found.values():
                dist.all_reduce(gradient)
            if rank == 0:
                torch.save({name: gradient / 2 for name, gradient in found.items()}, f"{folder}/{method}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the gradients of every method, of two processes with a clip each."""
    folder = tmp_path_factory.mktemp("gradients")
    mp.spawn(one_of_two, args=(str(folder),), nprocs=2)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", SIZES)
def test_gradients_of_two_processes_are_those_of_one_batch(of_two_processes: Path, method: str):
    """Normalisers count the objects of all processes: clips of one and of two objects weigh as they do in one batch."""
    found = torch.load(of_two_processes / f"{method}.pt", weights_only=True)
    expected = gradients(method, [0, 1])
    assert found.keys() == expected.keys()
    largest = max(float(g.abs().max()) for g in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5 * largest, rtol=1e-3, msg=name)


@pytest.mark.parametrize("objects", [0, 2])
@pytest.mark.parametrize("method", ["defvis", "tevit"])
def test_every_parameter_has_a_gradient_whatever_the_clip_holds(method: str, objects: int):
    """Otherwise the other processes would wait for it."""
    model = network(method)
    masks = torch.zeros(3, objects, 64, 96, dtype=torch.bool)
    masks[:, :, 8:40, 16:64] = True
    targets = (ClipTargets(masks, torch.zeros(3, objects, dtype=torch.long)),)
    losses = get_method(method).losses(model(clip_of(0)[0]), targets, model.config)
    torch.stack(list(losses.values())).sum().backward()
    assert [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)


@pytest.mark.slow
def test_a_run_in_two_processes_ends_with_one_result(tmp_path: Path):
    ytvis_set(tmp_path / "data/v")
    data = {"annotations": "v/ytvis.json", "images": "v/frames", "layout": "ytvis"}
    fields = {
        "method": "tevit",
        "variant": "tiny",
        "classes": list(CLASSES),
        "model": {"height": 64, "width": 96, "num_stages": 1, "window": 4, "clip_overlap": 1},
        "pretrained": False,
        "data_root": str(tmp_path / "data"),
        "train": [data],
        "val": [data],
        "augment": [{"moving_window": {}}, {"flip": {}}],
        "clip_length": 2,
        "iterations": 2,
        "checkpoint_every": 1,
        "workers": 0,
        "output": str(tmp_path / "out"),
        "accelerator": "cpu",
        "devices": 2,
        "strategy": "ddp",
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(fields))
    command = [sys.executable, "-m", "visdeploy", "train", str(tmp_path / "recipe.yaml")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "Starting with 2 processes" in done.stdout + done.stderr
    result = convert_checkpoint(tmp_path / "out/model.safetensors")
    assert (result.method, result.report.ok) == ("tevit", True)
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"logs", "last.ckpt", "model.safetensors", "recipe.yaml"}
