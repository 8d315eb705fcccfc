"""Folders and tables as other systems leave them: hidden files, lists of names, endings, expanding tables."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import rectangle
from tests.visdeploy.formats.results import walkers
from visdeploy import evaluate, formats
from visdeploy.errors import DataError
from visdeploy.formats.registry import detect_format

MASK = rectangle(20, 30, 4, 5, 6, 7)
APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X"
LINE = f"0 1001 1 20 30 {MASK.counts.decode()}\n"


def video(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        Image.fromarray(MASK.decode().astype(np.uint8)).save(folder / name, format="PNG")
    return folder


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (["00000_mask.png", "00005_mask.png"], [0, 5]),
        (["v-00003.gt.png", "v-00010.gt.png"], [3, 10]),
        (["00000.PNG", "00005.png"], [0, 5]),
        (["00000_a.png", "00005_b.png"], [0, 1]),
    ],
)
def test_davis_numbers_before_a_suffix_and_endings_of_any_case(tmp_path, names, frames):
    (result,) = formats.load(video(tmp_path / "v", *names))
    assert sorted(result.tracks[0].masks) == frames


def test_davis_without_the_files_of_other_systems(tmp_path):
    video(tmp_path / "v", *(f"0000{i}.png" for i in range(4)))
    for name in ("._00000.png", ".DS_Store", "Thumbs.db"):
        (tmp_path / "v" / name).write_bytes(APPLE_DOUBLE)
    video(tmp_path / ".ipynb_checkpoints", "00000-checkpoint.png")
    (video(tmp_path / "__MACOSX") / "._00000.png").write_bytes(APPLE_DOUBLE)
    (tmp_path / "val.txt").write_text("v\n")
    assert detect_format(tmp_path) == "davis"
    (result,) = formats.load(tmp_path)
    assert (result.name, sorted(result.tracks[0].masks)) == ("v", [0, 1, 2, 3])
    assert next(iter(evaluate(tmp_path, tmp_path)["jf"].values())) == pytest.approx(1)


def test_mots_without_the_files_of_other_systems(tmp_path):
    (tmp_path / "0002.txt").write_text(LINE)
    (tmp_path / "._0002.txt").write_bytes(APPLE_DOUBLE)
    video(tmp_path / "preview", "00000.png")
    assert detect_format(tmp_path) == "mots"
    assert [result.name for result in formats.load(tmp_path, classes=["car"])] == ["0002"]
    assert evaluate(tmp_path, tmp_path)["hota"]["HOTA"] == 0.5  # the mean over two classes, one of them absent


def test_results_without_the_files_of_other_systems(tmp_path):
    from tests.visdeploy.evaluation.builders import ground_truth, perfect

    truth = ground_truth()
    (tmp_path / "a.json").write_text(json.dumps(perfect(truth)))
    (tmp_path / "._a.json").write_bytes(APPLE_DOUBLE)
    assert evaluate(tmp_path, truth)["AP"] == pytest.approx(1)


def test_mots_with_a_byte_order_mark(tmp_path):
    (tmp_path / "0002.txt").write_text(LINE, encoding="utf-8-sig")
    assert len(formats.load(tmp_path / "0002.txt", classes=["car"])[0].tracks) == 1


def test_a_mots_object_has_one_class(tmp_path):
    (tmp_path / "0002.txt").write_text(LINE + LINE.replace("0 1001 1", "1 1001 2"))
    with pytest.raises(DataError, match=r"line 2.*'class'.*2 of object 1001.*1, as"):
        formats.load(tmp_path / "0002.txt", classes=["car", "pedestrian"])


@pytest.mark.parametrize("name", ["r.json", "r.coco.json", "r.txt", "r.parquet"])
def test_pipes_and_devices_are_refused(tmp_path, name):
    """Reading one would wait for a writer, or never end."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="pipe or a device"):
        formats.load(tmp_path / name)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(DataError, match="pipe or a device"):
        formats.load(tmp_path / name)


def test_a_parquet_table_that_expands(tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    walkers().save(tmp_path / "r.parquet")
    columns = parquet.read_table(tmp_path / "r.parquet").slice(0, 1).to_pydict()
    table = arrow.table({name: np.repeat(np.array(value), 1_000_000) for name, value in columns.items()})
    parquet.write_table(table, tmp_path / "bomb.parquet")
    shutil.copy(tmp_path / "r.parquet", tmp_path / "copy.parquet")
    with pytest.raises(DataError, match="1000000 rows"):
        formats.load(tmp_path / "bomb.parquet")
    assert len(formats.load(tmp_path / "copy.parquet")) == 1
