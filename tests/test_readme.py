"""Every command of the README, and every program of the README and of `docs/`, runs as written, on files made here."""

import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import REPOSITORY
from tests.support import exit_code, square_video
from tests.trees import write_trees
from tests.visdeploy.signing.key_files import write_pair
from visdeploy.masks import Mask

OWN_TEST = ("own_data.md",)
"""Pages whose commands depend on each other, and run in a test of their own (tests/examples)."""
PAGES = [REPOSITORY / "README.md", *sorted(p for p in (REPOSITORY / "docs").glob("*.md") if p.name not in OWN_TEST)]
BLOCKS = [block for page in PAGES for block in re.findall(r"```(\w+)\n(.*?)```", page.read_text(), flags=re.DOTALL)]
SCRIPTS = [text.replace("\\\n", " ") for kind, text in BLOCKS if kind == "sh"]
COMMANDS = [line.split("#")[0].strip() for text in SCRIPTS for line in text.splitlines()]
PROGRAMS = [text for kind, text in BLOCKS if kind == "python"]
RUN_ELSEWHERE = ("make demo", "make test", "python benchmarks/")
"""Make targets set this run up; benchmarks take minutes each and print speeds, which no test checks."""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """Return a folder with everything the README's commands name."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").symlink_to(REPOSITORY / "examples")
    shutil.copy(REPOSITORY / "examples" / "models" / "visolo_tiny_demo.safetensors", folder / "visolo.safetensors")
    square_video(folder / "street.mp4", 4)
    shutil.copy(folder / "street.mp4", folder / "VIDEO")
    (folder / "ANNOTATIONS").write_text(json.dumps(_annotations()))
    write_trees(folder, _annotations())
    write_pair(folder)
    return folder


def _annotations() -> dict:
    """Write ground truth of the clip for the classes of the demo model."""
    mask = np.zeros((96, 160), np.uint8)
    mask[20:60, 10:50] = 1
    rle = Mask.encode(mask)
    names = ["person", "vehicle", "bird", "animal"]
    return {
        "categories": [{"id": i + 1, "name": name} for i, name in enumerate(names)],
        "videos": [
            {"id": 1, "width": 160, "height": 96, "length": 4, "file_names": [f"VIDEO/{i}.jpg" for i in range(4)]}
        ],
        "annotations": [
            {
                "id": 1,
                "video_id": 1,
                "category_id": 1,
                "iscrowd": 0,
                "segmentations": [rle.to_coco()] * 4,
                "areas": [rle.area] * 4,
                "bboxes": [[10, 20, 40, 40]] * 4,
            }
        ],
    }


def _official(path: Path) -> None:
    """Write a full-size checkpoint of VISOLO in its official layout, with random weights."""
    import torch

    from visdeploy_training import create_model

    state = {f"model.{name}": value for name, value in create_model("visolo", "r50").state_dict().items()}
    torch.save({"model": state, "iteration": 1}, path)


def test_commands(workplace, shared, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    _official(workplace / "OFFICIAL.pth")
    ran = 0
    for command in filter(None, COMMANDS):
        if command.startswith(RUN_ELSEWHERE):
            continue
        program, *words = shlex.split(command)
        assert program == "visdeploy", f"a page has a command that no test runs: {command}"
        words = [word.replace("FOLDER", str(shared / "data")) for word in words]
        if words[0] == "train":
            words += ["iterations=1", "val=[]", "batch_size=1", "workers=0", "output=runs"]
        assert exit_code(*words) == 0, f"{command}\n{capsys.readouterr().err}"
        ran += 1
    assert ran >= 7
    for name in ("tiny.vis", "results.json", "overlay.mp4", "converted.safetensors"):
        assert (workplace / name).exists(), name


@pytest.mark.parametrize("text", PROGRAMS)
def test_programs(text, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    exec(compile(text, "a page", "exec"), {})
    assert capsys.readouterr().out
