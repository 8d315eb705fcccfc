"""Trees of data sets as users have them, and wrong arguments of `benchmark`."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import visdeploy
from tests.support import edit_json, exit_code
from tests.visdeploy.protocol.trees import LENGTHS, davis, kitti_mots, write_frames, ytvis
from visdeploy import ConfigError, DataError, SourceError
from visdeploy.evaluation import evaluate
from visdeploy.protocol.datasets import open_dataset, read_names

MAP = {"red": "car", "blue": "pedestrian"}
CPU = {"device": "cpu", "threads": 1}


def rename(valid, change):
    edit_json(valid, lambda d: [v.update(file_names=[change(f) for f in v["file_names"]]) for v in d["videos"]])


@pytest.mark.parametrize(
    ("change", "images"),
    [
        (lambda name: name.replace("/", "\\"), ""),
        (lambda name: f".\\JPEGImages\\{name.replace('/', chr(92))}", ""),
        (lambda name: f"JPEGImages/{name}", "JPEGImages"),
        (lambda name: f"JPEGImages/{name}", ""),
        (lambda name: f"./{name}", "JPEGImages"),
    ],
)
def test_file_names_are_found_as_they_are_written(predictor, tmp_path, change, images):
    """Names with backslashes, which Windows writes, and names that begin with the folder of the images."""
    valid = ytvis(tmp_path, predictor)
    rename(valid, change)
    dataset = open_dataset(valid, tmp_path / images)
    assert [clip.files[1].resolve() for clip in dataset.clips] == [
        tmp_path / "JPEGImages" / name / "00005.jpg" for name in LENGTHS
    ]
    assert [clip.name.split("/")[-1] for clip in dataset.clips] == list(LENGTHS)


def test_a_list_of_names_from_windows(tmp_path):
    (tmp_path / "val.txt").write_bytes("\ufeffalpha\r\nbeta 1\r\n\r\n".encode())
    assert read_names(tmp_path / "val.txt") == ("alpha", "beta")


def motschallenge(folder: Path, predictor) -> Path:
    """Write `train/VIDEO/img1/000001.png` and `instances_txt/VIDEO.txt`, both numbered from 1."""
    tree = kitti_mots(folder / "kitti", predictor, MAP)
    (folder / "instances_txt").mkdir()
    for name, length in LENGTHS.items():
        (folder / "train" / name / "img1").mkdir(parents=True)
        for t in range(length):
            kept = tree / f"training/image_02/{name}/{t:06d}.png"
            kept.rename(folder / "train" / name / "img1" / f"{t + 1:06d}.png")
        lines = [line.split(" ", 1) for line in (tree / f"instances_txt/{name}.txt").read_text().splitlines()]
        text = "".join(f"{int(number) + 1} {rest}\n" for number, rest in lines)
        (folder / "instances_txt" / f"{name}.txt").write_text(text)
    shutil.rmtree(tree)
    return folder


def test_motschallenge(bundle, predictor, tmp_path, caplog):
    tree, out = motschallenge(tmp_path / "MOTS", predictor), tmp_path / "results"
    words = ("--images", tree, "--numbering", "motschallenge", "--class-map", "red=car", "--class-map")
    words = (*words, "blue=pedestrian", "--out", out, "--device", "cpu", "--threads", 1)
    assert exit_code("benchmark", bundle.path, tree / "instances_txt", *words) == 0
    assert "numbered from 1" not in caplog.text
    frames = [int(line.split()[0]) for line in (out / "beta.txt").read_text().splitlines()]
    assert (min(frames), max(frames)) == (1, LENGTHS["beta"])
    assert {line.split()[2] for line in (out / "beta.txt").read_text().splitlines()} <= {"1", "2"}
    assert evaluate(out, tree / "instances_txt", numbering="motschallenge")["HOTA"] == pytest.approx(1.0)
    for sidecar in out.glob("*.json"):
        sidecar.unlink()
    assert evaluate(out, tree / "instances_txt", numbering="motschallenge")["HOTA"] == pytest.approx(1.0)


def test_numbers_of_mots_images(predictor, tmp_path):
    """The text refers to frames by number, so that a gap or another start would move all masks."""
    tree = motschallenge(tmp_path / "MOTS", predictor)
    with pytest.raises(DataError, match=r"not numbered as in kitti .* 000001\.png .*--numbering motschallenge"):
        open_dataset(tree / "instances_txt", tree)
    (tree / "train/beta/img1/000003.png").unlink()
    with pytest.raises(DataError, match=r"'beta' are not numbered.*5 images.*Add the missing images"):
        open_dataset(tree / "instances_txt", tree, numbering="motschallenge")
    for numbering, format in (("coco", "mots"), (["kitti"], "mots"), ("motschallenge", "davis")):
        with pytest.raises(ConfigError, match="kitti or motschallenge, for results as mots"):
            open_dataset(tree / "train", format=format, numbering=numbering)
    write_frames(tmp_path / "named", "gamma", ".png", 2)
    for file in (tmp_path / "named/gamma").iterdir():
        file.rename(file.with_stem(f"{file.stem}-left"))
    assert open_dataset(tmp_path / "named", format="mots").num_frames == LENGTHS["gamma"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"annotations": 3},
        {"annotations": ""},
        {"out": 3},
        {"images": 3},
        {"videos": b"list.txt"},
        {"zip": 3},
        {"max_tracks": "3"},
        {"max_tracks": 0},
        {"class_map": ["red"]},
        {"class_map": {"red": 1}},
        {"metrics": "jf"},
        {"metrics": ("nope",)},
        {"progress": 3},
        {"resume": 1.5},
        {"filter_tracks": "yes"},
        {"overwrite": None},
    ],
)
def test_wrong_arguments_are_refused_before_the_bundle_is_opened(predictor, tmp_path, wrong):
    arguments = {"annotations": ytvis(tmp_path, predictor), "out": tmp_path / "out.json", **wrong}
    with pytest.raises(ConfigError):
        visdeploy.benchmark("no.vis", **arguments)
    assert not list(tmp_path.glob("out*"))


def test_a_damaged_image_can_be_replaced_before_resuming(bundle, predictor, tmp_path):
    valid, out = ytvis(tmp_path, predictor), tmp_path / "out.json"
    damaged = tmp_path / "JPEGImages/gamma/00010.jpg"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:100])
    with pytest.raises(SourceError, match=r"00010\.jpg .* Replace the image\. --resume continues") as error:
        visdeploy.benchmark(bundle, valid, out, **CPU)
    assert "on_error" not in str(error.value)
    Image.fromarray(np.zeros((30, 45, 3), np.uint8)).save(damaged, format="PNG")
    with pytest.raises(SourceError, match=r"size changes .* Replace the image\."):
        visdeploy.benchmark(bundle, valid, out, resume=True, **CPU)
    damaged.write_bytes(whole)
    assert visdeploy.benchmark(bundle, valid, out, resume=True, **CPU).scores["AP"] == pytest.approx(1.0)
    assert len({entry["video_id"] for entry in json.loads(out.read_text())}) == 3


def test_videos_without_tracks_are_counted_once(bundle, predictor, tmp_path, caplog):
    for name in LENGTHS:
        write_frames(tmp_path / "JPEGImages", name, ".jpg", 5)
        for file in (tmp_path / "JPEGImages" / name).iterdir():
            Image.fromarray(np.zeros((60, 90, 3), np.uint8)).save(file, format="PNG")
    names = {name: [f"{name}/{t:05d}.jpg" for t in range(length)] for name, length in LENGTHS.items()}
    videos = [{"id": i, "height": 60, "width": 90, "file_names": files} for i, files in enumerate(names.values(), 1)]
    valid = {"categories": [{"id": 1, "name": "red"}], "videos": videos, "annotations": None}
    (tmp_path / "valid.json").write_text(json.dumps(valid))
    visdeploy.benchmark(bundle, tmp_path / "valid.json", tmp_path / "out.json", **CPU)
    assert json.loads((tmp_path / "out.json").read_text()) == []
    (message,) = [record.getMessage() for record in caplog.records if "no tracks" in record.getMessage()]
    assert message.startswith("3 of 3 videos have no tracks, therefore no entry in")
    assert message.endswith(": alpha, beta, gamma")


@pytest.mark.parametrize("kind", ["davis", "mots"])
def test_annotations_that_lack_a_listed_video_are_refused_first(predictor, tmp_path, kind):
    if kind == "davis":
        tree = davis(tmp_path, predictor)
        truth = tree / "Annotations_unsupervised/480p"
        shutil.rmtree(truth / "beta")
    else:
        tree = kitti_mots(tmp_path, predictor, MAP)
        truth = tree / "instances_txt"
        (truth / "beta.txt").unlink()
    (tmp_path / "list.txt").write_text("alpha\nbeta\n")
    with pytest.raises(DataError, match=r"lacks videos .*1 of 2 missing: beta"):
        visdeploy.benchmark("no.vis", truth, tmp_path / "out", images=tree, videos=tmp_path / "list.txt")


def test_annotations_are_not_taken_for_images(bundle, predictor, tmp_path):
    tree = davis(tmp_path, predictor)
    with pytest.raises(ConfigError, match=r"images of .*480p are unknown .*00000\.png is indexed.*--images"):
        visdeploy.benchmark("no.vis", tree / "Annotations_unsupervised/480p", tmp_path / "masks")
    for file in (tree / "JPEGImages/480p/alpha").iterdir():
        file.rename(file.with_suffix(".png"))
    (tree / "JPEGImages/480p/README.txt").write_text("Images of all videos, whatever their endings.")
    assert visdeploy.benchmark(bundle, tree / "JPEGImages/480p", **CPU).videos == 3


@pytest.mark.parametrize("name", ["masks.json", "masks.ZIP"])
def test_a_folder_of_results_is_no_file(predictor, tmp_path, name):
    tree = davis(tmp_path, predictor)
    with pytest.raises(ConfigError, match="expected: a folder, for results as davis"):
        visdeploy.benchmark("no.vis", tree / "JPEGImages/480p", tmp_path / name)
