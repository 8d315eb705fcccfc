"""Files by other writers, official conventions, ids of a ground truth, and `supervision`."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import rectangle
from tests.visdeploy.formats.results import CLASSES, walkers
from visdeploy import formats
from visdeploy.errors import DataError
from visdeploy.evaluation import read_annotations, read_predictions
from visdeploy.formats.davis import davis_palette
from visdeploy.masks import Mask
from visdeploy.results import FrameResult, Track, VideoResult


def truth(**changes: object) -> dict[str, object]:
    video = {"id": 41, "height": 40, "width": 60, "length": 6, "file_names": [f"street/{i}.jpg" for i in range(6)]}
    other = {"id": 7, "height": 9, "width": 9, "length": 2, "file_names": ["deep/house/0.jpg", "deep/house/1.jpg"]}
    categories = [{"id": 30, "name": "zürich tram"}, {"id": 10, "name": "dog"}, {"id": 20, "name": "person"}]
    return {"videos": [other, {**video, **changes}], "categories": categories}


def test_ytvis_is_what_the_servers_take(tmp_path: Path) -> None:
    walkers().save(tmp_path / "r.json")
    entries = json.loads((tmp_path / "r.json").read_text())
    assert [e["category_id"] for e in entries] == [2, 1, 3]
    assert [e["video_id"] for e in entries] == [1, 1, 1]
    assert [s is None for s in entries[2]["segmentations"]] == [False, True, True, True, True, False]
    assert set(entries[0]["segmentations"][0]) == {"size", "counts"}


def test_ytvis_with_ids_of_a_ground_truth(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    (tmp_path / "gt.json").write_text(json.dumps(truth()))
    formats.save([walkers(), VideoResult("house", 9, 9, 2, CLASSES)], path, ground_truth=tmp_path / "gt.json")
    entries = json.loads(path.read_text())
    assert [(e["video_id"], e["category_id"]) for e in entries] == [(41, 10), (41, 20), (41, 30)]
    house, street = formats.load(path, ground_truth=truth())
    assert (house.name, house.num_frames, len(house)) == ("house", 2, 0)
    assert street.classes == ("dog", "person", "zürich tram")
    assert [t.label for t in street.tracks] == [0, 1, 2]
    assert [t.masks for t in street.tracks] == [t.masks for t in walkers().tracks]
    VideoResult("deep/house", 9, 9, 2, CLASSES, [Track(0, 1, 0.5)]).save(path, ground_truth=truth())
    assert [len(r) for r in formats.load(path, ground_truth=truth())] == [1, 0]


def test_ytvis_with_given_ids(tmp_path: Path) -> None:
    """A given id holds wherever the file is read, so no name stands beside it."""
    path = tmp_path / "r.json"
    camera = walkers("camera 3")
    camera.save(path, video_ids={"camera 3": 41})
    entries = json.loads(path.read_text())
    assert [e["video_id"] for e in entries] == [41, 41, 41]
    assert not any("video_name" in e for e in entries)
    assert formats.load(path) == [camera]
    camera.save(path, video_ids={"camera 3": 41}, ground_truth=truth())
    assert [e["category_id"] for e in json.loads(path.read_text())] == [10, 20, 30]
    assert len(read_predictions(path, read_annotations(truth(), require_annotations=False))) == 3
    with pytest.raises(DataError, match="'camera 3' belongs to no single video"):
        camera.save(path, video_ids={"camera 3": 5}, ground_truth=truth())
    with pytest.raises(DataError, match=r"two videos would get the id 2 .*'a' and 'b'"):
        formats.save([walkers("a"), walkers("b")], path, video_ids={"a": 2})


def test_ytvis_names_decide_when_a_file_meets_a_ground_truth(tmp_path: Path) -> None:
    """Written without the ground truth, its ids are others: videos and classes are found by name."""
    walkers().save(tmp_path / "r.json")
    house, street = formats.load(tmp_path / "r.json", ground_truth=truth())
    assert (len(house), street.classes) == (0, ("dog", "person", "zürich tram"))
    assert [street.classes[t.label] for t in street.tracks] == [CLASSES[t.label] for t in walkers().tracks]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file_names": [f"road/{i}.jpg" for i in range(6)]}, "'street' belongs to no single video.*house, road"),
        ({"length": 5}, r"videos\[1\]: field 'length' .*5.*6"),
        (
            {"length": 5, "file_names": [f"street/{i}.jpg" for i in range(5)]},
            "does not match .*6 frames of 40x60; expected: 5 frames of 40x60",
        ),
        ({"height": 41}, "expected: 6 frames of 41x60"),
        ({"height": "x"}, r"videos\[1\]: field 'height'"),
    ],
)
def test_ytvis_with_a_ground_truth_that_does_not_fit(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        walkers().save(tmp_path / "r.json", ground_truth=truth(**change))
    assert list(tmp_path.iterdir()) == []


def test_ytvis_class_unknown_to_the_ground_truth(tmp_path: Path) -> None:
    content = {**truth(), "categories": [{"id": 1, "name": "dog"}]}
    with pytest.raises(DataError, match=r"unknown category .*'person'.*'dog'"):
        walkers().save(tmp_path / "r.json", ground_truth=content)


def test_real_annotations_serve_as_ground_truth(shared: Path, tmp_path: Path) -> None:
    source = shared / "data/mini_vis/instances_val.json"
    content = json.loads(source.read_text())
    video = content["videos"][0]
    name = video["file_names"][0].split("/")[0]
    names = tuple(c["name"] for c in content["categories"])
    result = VideoResult(name, video["height"], video["width"], len(video["file_names"]), names)
    result.tracks = walkers(height=video["height"], width=video["width"]).tracks[:1]
    result.tracks[0].label = 0
    result.save(tmp_path / "r.json", ground_truth=source)
    assert json.loads((tmp_path / "r.json").read_text())[0]["video_id"] == video["id"]
    assert len(formats.load(tmp_path / "r.json", ground_truth=source)) == len(content["videos"])


def test_plain_ytvis(tmp_path: Path) -> None:
    """Only the official keys, uncompressed runs, whole numbers as floats."""
    rle = {"size": [2, 3], "counts": [1, 2, 3]}
    entry = {"video_id": 9, "category_id": 2.0, "score": 1, "segmentations": [None, rle]}
    path = tmp_path / "r.json"
    path.write_text(json.dumps([entry, entry]))
    (video,) = formats.load(path)
    assert (video.name, video.height, video.width, video.num_frames) == ("9", 2, 3, 2)
    assert [t.track_id for t in video.tracks] == [0, 1]
    assert video.classes == ("class 0", "class 1")
    assert video.tracks[0].masks == {1: Mask.encode(np.array([[0, 1, 0], [1, 0, 0]]))}
    assert formats.load(path, classes=("a", "b"))[0].classes == ("a", "b")
    path.write_text("[]")
    assert formats.load(path) == []
    path.write_text(json.dumps([{**entry, "segmentations": [None]}]))
    with pytest.raises(DataError, match=r"null in every frame.*ground_truth"):
        formats.load(path)


def test_plain_coco(tmp_path: Path) -> None:
    """No videos, no tracks: identities from the annotations."""
    images = [{"id": 5, "height": 4, "width": 4}, {"id": 3, "height": 4, "width": 4}]
    box = {"segmentation": rectangle(4, 4, 0, 0, 2, 2).to_coco(), "category_id": 8}
    annotations = [
        {"image_id": 5, "instance_id": 1, "score": 0.5, **box},
        {"image_id": 3, "instance_id": 1, "score": 1.0, **box},
        {"image_id": 3, "instance_id": 2, **box},
    ]
    content = {"images": images, "annotations": annotations, "categories": [{"id": 8, "name": "cup"}]}
    (tmp_path / "r.json").write_text(json.dumps(content))
    (video,) = formats.load(tmp_path / "r.json")
    assert (video.num_frames, video.classes) == (2, ("cup",))
    assert [(t.track_id, t.label, t.score, t.frames) for t in video.tracks] == [(1, 0, 0.75, [0, 1]), (2, 0, 1.0, [1])]


def test_coco_is_read_by_pycocotools(tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    walkers().save(tmp_path / "r.coco.json")
    coco = COCO(str(tmp_path / "r.coco.json"))
    assert len(coco.getImgIds()) == 6
    annotation = coco.loadAnns(coco.getAnnIds(imgIds=[1]))[0]
    np.testing.assert_array_equal(coco.annToMask(annotation), walkers().tracks[0].masks[0].decode())
    assert annotation["bbox"] == [4, 5, 10, 12]


def test_plain_davis(tmp_path: Path) -> None:
    pixels = np.zeros((4, 5), np.uint8)
    pixels[1:, 1:] = 3
    for i in (9, 10, 11):
        image = Image.fromarray(pixels)
        image.putpalette(davis_palette().tobytes())
        image.save(tmp_path / f"{i:05d}.png")
    (video,) = formats.load(tmp_path)
    assert (video.name, video.num_frames, video.classes) == (tmp_path.name, 12, ("object",))
    assert [(t.track_id, t.score, t.frames) for t in video.tracks] == [(2, 1.0, [9, 10, 11])]
    np.testing.assert_array_equal(video.tracks[0].masks[9].decode(), pixels == 3)


@pytest.mark.parametrize(
    ("names", "frames"),
    [
        (("00000", "00001", "00002"), [0, 1, 2]),
        (("00000", "00005", "00010"), [0, 5, 10]),
        (("00000", "00001", "00003"), [0, 1, 3]),
        (("1", "2", "10"), [1, 2, 10]),
        (("frame_0009", "frame_0010", "frame_0030"), [9, 10, 30]),
        (("a1", "b2", "c3"), [0, 1, 2]),  # no common text
        (("a", "b", "c"), [0, 1, 2]),
        (("20261128123000", "20261128123010", "20261128123020"), [0, 1, 2]),  # times
    ],
)
def test_davis_frames_have_the_numbers_of_their_files(
    tmp_path: Path, names: tuple[str, ...], frames: list[int]
) -> None:
    for name in names:
        Image.fromarray(np.ones((4, 5), np.uint8)).save(tmp_path / f"{name}.png")
    (video,) = formats.load(tmp_path)
    assert video.tracks[0].frames == frames
    assert video.num_frames == frames[-1] + 1


def test_davis_gaps_are_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for video, numbers in (("a", (0, 1)), ("b", (0, 2)), ("c", (1,))):
        (tmp_path / video).mkdir()
        for number in numbers:
            Image.fromarray(np.ones((4, 5), np.uint8)).save(tmp_path / video / f"{number:05d}.png")
    formats.load(tmp_path)
    assert [r.getMessage() for r in caplog.records] == [f"{tmp_path}: 2 of 3 videos have frames without a PNG: b, c"]


def test_davis_two_files_of_a_frame(tmp_path: Path) -> None:
    for name in ("1", "00001"):
        Image.fromarray(np.ones((4, 5), np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(DataError, match=r"two files of frame 1 .*1\.png"):
        formats.load(tmp_path)


def test_davis_void_is_no_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pixels = np.array([[0, 1, 2], [255, 255, 1]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "00000.png")
    Image.fromarray(pixels % 255).save(tmp_path / "00001.png")
    (video,) = formats.load(tmp_path)
    assert [(t.track_id, t.frames) for t in video.tracks] == [(0, [0, 1]), (1, [0, 1])]
    assert caplog.text == ""
    (video,) = formats.load(tmp_path, keep_void=True)
    assert [(t.track_id, t.frames) for t in video.tracks] == [(0, [0, 1]), (1, [0, 1]), (254, [0])]
    for name in ("00000.png", "00001.png"):
        Image.fromarray(np.where(pixels > 1, 255, 0).astype(np.uint8)).save(tmp_path / name)
    assert len(formats.load(tmp_path)[0]) == 0
    assert "255, which is void" in caplog.text


def test_davis_palette_and_values(tmp_path: Path) -> None:
    known = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 8: (64, 0, 0),
             15: (192, 128, 128), 21: (128, 64, 128), 255: (224, 224, 192)}  # fmt: skip
    assert {i: tuple(davis_palette()[i]) for i in known} == known
    walkers().save(tmp_path / "d")
    image = Image.open(tmp_path / "d/street/00000.png")
    assert image.mode == "P"
    assert set(np.unique(np.array(image))) == {0, 1, 4, 8}
    assert tuple(np.array(image.convert("RGB"))[6, 5]) == (128, 0, 0)


def test_plain_mots(tmp_path: Path) -> None:
    mask = rectangle(4, 6, 1, 1, 2, 3)
    path = tmp_path / "0002.txt"
    path.write_text(f"3 2005 2 4 6 {mask.counts.decode()}\n\n5 2005 2 4 6 {mask.counts.decode()}\n")
    (video,) = formats.load(path)
    assert (video.name, video.num_frames, video.classes) == ("0002", 6, ("class 0", "class 1"))
    assert [(t.track_id, t.label, t.masks) for t in video.tracks] == [(2005, 1, {3: mask, 5: mask})]
    assert formats.load(path, classes=("car", "person"))[0].classes == ("car", "person")
    with pytest.raises(DataError, match="uses class 2"):
        formats.load(path, classes=("car",))
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        formats.load(path)


def test_mots_ignore_regions_are_no_objects(tmp_path: Path) -> None:
    mask, other = rectangle(4, 6, 1, 1, 2, 3), rectangle(4, 6, 0, 4, 2, 2)
    car, region, further = (
        f"0 {number} {number // 1000} 4 6 {m.counts.decode()}\n"
        for number, m in ((1000, mask), (10000, mask), (10000, other))
    )
    path = tmp_path / "0002.txt"
    path.write_text(car + region + further + "4" + region[1:])
    for classes, names in ((("car", "pedestrian"), ("car", "pedestrian")), (None, ("class 0",))):
        (video,) = formats.load(path, classes=classes)
        assert (video.num_frames, video.classes) == (5, names)
        assert [(t.track_id, t.label, t.masks) for t in video.tracks] == [(1000, 0, {0: mask})]
    named = formats.load(path, classes=[*"abcdefghi", "ignore"])[0].tracks[1]
    assert (named.label, named.frames) == (9, [0, 4])
    np.testing.assert_array_equal(named.masks[0].decode(), mask.decode() | other.decode())
    path.write_text(region + further)
    assert formats.load(path, classes=("car", "pedestrian"))[0].tracks == []
    path.write_text(car + car)
    with pytest.raises(DataError, match="1000 again in frame 0"):
        formats.load(path)


def test_plain_parquet(tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "r.parquet"
    walkers().save(path)
    table = pq.read_table(path)
    assert table.num_rows == 14
    assert table.column("category").to_pylist()[:2] == ["dog", "zürich tram"]
    pq.write_table(table.replace_schema_metadata(None), path)
    (video,) = formats.load(path)
    assert (video.name, video.num_frames) == ("street", 6)
    assert [(t.track_id, t.label, t.score, t.masks) for t in video.tracks] == [
        (t.track_id, t.label, t.score, t.masks) for t in walkers().tracks
    ]


def test_supervision() -> None:
    sv = pytest.importorskip("supervision")
    frame = walkers().frame(0)
    found = frame.to_supervision()
    assert isinstance(found, sv.Detections)
    assert found.tracker_id.tolist() == [0, 7, 3]
    assert found.class_id.tolist() == [1, 2, 0]
    assert found.confidence == pytest.approx([0.9, 0.5, 0.3])
    assert found.data["class_name"].tolist() == ["dog", "zürich tram", "person"]
    assert found.xyxy.tolist()[0] == [4, 5, 14, 17]
    assert found.mask.dtype == bool
    np.testing.assert_array_equal(found.mask[2], frame.instances[2].mask.decode())
    empty = FrameResult(0, 0.0, 4, 5).to_supervision()
    assert len(empty) == 0
    assert empty.mask.shape == (0, 4, 5)
