"""Files that are damaged or come from elsewhere: typed errors that name file, entry and field."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support import edit_json
from tests.visdeploy.formats.results import walkers
from visdeploy import formats
from visdeploy.errors import ConfigError, DataError

pytest.importorskip("pyarrow")

Edit = Callable[[Any], Any]


def saved(folder: Path, name: str, edit: Edit | None = None) -> Path:
    """Return a good file of a JSON format, with its content edited."""
    path = folder / ("r.coco.json" if name == "coco" else "r.json")
    walkers().save(path)
    return edit_json(path, edit) if edit else path


def put(*keys: Any, value: Any) -> Edit:
    """Set a value deep inside."""

    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return edit


def drop(*keys: Any) -> Edit:
    """Delete a value deep inside."""

    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return edit


RLE = {"size": [40, 60], "counts": "0"}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop(1, "video_id"), r"\[1\]: field 'video_id' is missing \(seen: fields \[.*whole number"),
        (put(1, "video_id", value="x"), r"\[1\]: field 'video_id' .*'x'"),
        (put(1, "video_id", value=True), r"\[1\]: field 'video_id' .*True"),
        (put(2, "category_id", value=0), r"\[2\]: field 'category_id' .*seen: 0"),
        (put(2, "category_id", value=4), r"\[2\]: field 'category_id' .*1\.\.3"),
        (put(0, "score", value=None), r"\[0\]: field 'score' is missing .*null.*finite number"),
        (put(0, "score", value=float("nan")), r"\[0\]: field 'score' .*nan.*finite"),
        (put(0, "segmentations", value={}), r"\[0\]: field 'segmentations' .*dict"),
        (put(0, "segmentations", value=[None] * 5), r"\[0\]: field 'segmentations' .*5 items.*6"),
        (put(0, "segmentations", 3, value=5), r"\[0\]: field 'segmentations\[3\]'"),
        (put(0, "segmentations", 3, value=RLE), r"segmentations\[3\]'.*runs over 0 pixels"),
        (put(0, "segmentations", 3, "counts", value=""), r"segmentations\[3\]'.*runs over 0 pixels"),
        (put(0, "segmentations", 3, "counts", value="\u00ff~~"), r"segmentations\[3\]'"),
        (put(0, "segmentations", 3, "size", value=[60, 40]), r"segmentations\[3\]'.*60x40"),
        (put(0, "segmentations", 3, "size", value=[10**6, 10**6]), r"segmentations\[3\]'"),
        (put(1, "track_id", value=0), r"\[1\]: field 'track_id' .*0 again"),
        (put(1, value="text"), r"\[1\] is malformed .*str.*JSON object"),
        (put(0, "video", "height", value=-1), r"\[0\]: field 'video': field 'height' .*-1"),
        (put(0, "video", "timestamps", value=["a"]), "field 'timestamps'"),
        (put(0, "scores", value="abc"), "field 'scores'"),
    ],
)
def test_ytvis(tmp_path: Path, edit: Edit, message: str) -> None:
    path = saved(tmp_path, "ytvis", edit)
    with pytest.raises(DataError, match=message) as caught:
        formats.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (drop("images"), r"coco\.json: field 'images' is missing .*list"),
        (put("images", value=7), "field 'images' .*int"),
        (put("images", 2, "video_id", value=9), r"images\[2\]: field 'video_id' .*9"),
        (put("images", 2, "id", value=1), r"images\[2\]: field 'id' .*1 again"),
        (put("images", 2, "frame_id", value=6), r"images\[2\]: field 'frame_id' .*0\.\.5"),
        (put("videos", 0, "width", value=0), r"videos\[0\]: field 'width'"),
        (put("annotations", 4, "image_id", value=99), r"annotations\[4\]: field 'image_id' .*99"),
        (drop("annotations", 4, "track_id"), r"annotations\[4\]: field 'track_id'"),
        (put("annotations", 4, "image_id", value=1), r"annotations\[4\]: field 'track_id' .*again in frame 0"),
        (put("annotations", 4, "category_id", value=8), r"annotations\[4\]: field 'category_id' .*8"),
        (put("annotations", 4, "segmentation", value=[[1, 2, 3]]), r"annotations\[4\]: field 'segmentation'"),
        (put("annotations", 4, "segmentation", "counts", value="0a"), r"annotations\[4\]: field 'segmentation'"),
        (put("annotations", 4, "segmentation", "size", value=[1]), r"annotations\[4\]: field 'segmentation'"),
        (put("tracks", 1, "score", value="high"), r"tracks\[1\]: field 'score'"),
        (drop("categories"), "field 'categories'"),
    ],
)
def test_coco(tmp_path: Path, edit: Edit, message: str) -> None:
    path = saved(tmp_path, "coco", edit)
    with pytest.raises(DataError, match=message) as caught:
        formats.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["ytvis", "coco", "mots", "parquet"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00garbage\x80" * 9, b"[" * 200_000])
def test_garbage(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(DataError, match=str(path)):
        formats.load(path, format=name)


@pytest.mark.parametrize("name", ["ytvis", "coco", "mots", "parquet"])
def test_cut_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / ("x.txt" if name == "mots" else "x.bin")
    walkers().save(path, format=name)
    data = path.read_bytes()
    for length in np.linspace(1, len(data) - 3, 12).astype(int):
        path.write_bytes(data[:length])
        with pytest.raises(DataError, match=str(path)):
            formats.load(path, format=name)


@pytest.mark.parametrize("name", ["ytvis", "coco"])
def test_wrong_kind_of_json(tmp_path: Path, name: str) -> None:
    other = saved(tmp_path, "coco" if name == "ytvis" else "ytvis")
    with pytest.raises(DataError, match=r"not a YouTube-VIS result file .*coco|malformed .*list.*JSON object"):
        formats.load(other, format=name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0 2000 2 40 60 ", "0 2000 2 40 ", "line 1 .*5 fields"),
        ("0 2000 2 40 60 ", "\n0 2000 2 40 60 ", None),
        ("0 2000 2 40 60 ", "0 2007 2 40 60 ", "line 1: field 'object' .*2007"),
        ("0 2000 2 40 60 ", "6 2000 2 40 60 ", r"line 1: field 'frame' .*0\.\.5"),
        ("1 2000 2 40 60 ", "0 2000 2 40 60 ", "line 4: field 'object' .*2000 again in frame 0"),
        ("0 2000 2 40 60 ", "x 2000 2 40 60 ", "line 1: field 'frame' .*'x'"),
        ("0 2000 2 40 60 ", "0 2000 2 40 61 ", "line 1: field 'rle'"),
        ("0 2000 2 40 60 ", "0 2000 2 40 60 1", "line 1: field 'rle'"),
    ],
)
def test_mots(tmp_path: Path, old: str, new: str, message: str | None) -> None:
    path = tmp_path / "m.txt"
    walkers().save(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    if message is None:
        assert len(formats.load(path)) == 1
        return
    with pytest.raises(DataError, match=message):
        formats.load(path)


def test_mots_sidecar(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    walkers().save(path)
    side = tmp_path / "m.tracks.json"
    content = json.loads(side.read_text())
    side.write_text(json.dumps({**content, "kind": "other"}))
    with pytest.raises(DataError, match=r"m\.tracks\.json: field 'kind'"):
        formats.load(path)
    content["tracks"][1]["object"] = content["tracks"][0]["object"]
    side.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"field 'tracks' .*repeated object number"):
        formats.load(path)


def edit_png(file: Path, kind: str) -> None:
    pixels = np.array(Image.open(file))
    if kind == "value":
        pixels[0, 0] = 77
        Image.fromarray(pixels).save(file)
    elif kind == "erased":
        pixels[pixels == 4] = 0
        Image.fromarray(pixels).save(file)
    elif kind == "size":
        Image.fromarray(pixels[:-1]).save(file)
    elif kind == "colour":
        Image.open(file).convert("RGB").save(file)
    elif kind == "cut":
        file.write_bytes(file.read_bytes()[:60])
    elif kind == "missing":
        file.unlink()


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("erased", r"street was changed \(seen: 13 masks; expected: 14"),
        ("value", r"00002\.png: pixel value without a track \(seen: 77"),
        ("size", r"00002\.png: wrong size \(seen: 39x60"),
        ("colour", r"00002\.png is not an indexed PNG \(seen: mode RGB"),
        ("cut", r"00002\.png is not a readable PNG"),
        ("missing", r"street is incomplete \(seen: 5 PNGs; expected: 6"),
    ],
)
def test_davis(tmp_path: Path, kind: str, message: str) -> None:
    walkers().save(tmp_path / "d")
    edit_png(tmp_path / "d/street/00002.png", kind)
    with pytest.raises(DataError, match=message):
        formats.load(tmp_path / "d")


def test_empty_places(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, message in (("davis", "no DAVIS results"), ("mots", "no MOTS results")):
        with pytest.raises(DataError, match=message):
            formats.load(tmp_path / "d", format=name)
    with pytest.raises(DataError, match="does not exist"):
        formats.load(tmp_path / "gone.json")
    (tmp_path / "f").write_text("")
    with pytest.raises(DataError, match="not a DAVIS folder"):
        formats.load(tmp_path / "f", format="davis")
    with pytest.raises(ConfigError, match="option 'ground_truth'"):
        formats.load(tmp_path / "f", format="davis", ground_truth="x")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("frame", 6, r"row 0: field 'frame' .*0\.\.5"),
        ("track_id", 5, "row 0: field 'track_id' .*5"),
        ("video", "other", "row 0: field 'video' .*other"),
        ("counts", b"\x00\x01", "row 0: field 'counts'"),
        ("counts", None, "row 0: field 'counts'"),
        ("height", 41, "row 0: field 'counts'"),
        (None, None, "column 'counts' is missing"),
    ],
)
def test_parquet(tmp_path: Path, column: str | None, value: Any, message: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "r.parquet"
    walkers().save(path)
    table = pq.read_table(path)
    if column is None:
        table = table.drop_columns(["counts"])
    else:
        values = table.column(column).to_pylist()
        values[0] = value
        index = table.column_names.index(column)
        table = table.set_column(index, column, pa.array(values, table.schema.field(column).type))
    pq.write_table(table, path)
    with pytest.raises(DataError, match=message):
        formats.load(path)
