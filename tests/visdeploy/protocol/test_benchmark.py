"""`benchmark` on miniatures of the trees of YouTube-VIS, DAVIS and KITTI MOTS."""

import json
import shutil
import zipfile
from collections import namedtuple

import numpy as np
import pytest
from PIL import Image

import visdeploy
from tests.support import edit_json, exit_code
from tests.visdeploy.protocol.trees import LENGTHS, davis, kitti_mots, pixels, write_frames, ytvis
from tests.visdeploy.step_graph import make_bundle
from visdeploy import ConfigError, DataError, OutputError
from visdeploy.evaluation import evaluate
from visdeploy.protocol import datasets

MAP = {"red": "car", "blue": "pedestrian"}
MAPPED = ("--class-map", "red=car", "--class-map", "blue=pedestrian")


def run(bundle, *words):
    return exit_code("benchmark", bundle.path, *words, "--device", "cpu", "--threads", 1)


def test_youtube_vis(bundle, predictor, tmp_path, capsys, caplog):
    valid = ytvis(tmp_path / "valid", predictor)
    out, archive = tmp_path / "results.json", tmp_path / "submission.zip"
    assert run(bundle, valid, "--images", tmp_path / "valid", "--out", out, "--zip", archive) == 0
    printed = capsys.readouterr().out
    assert "15 frames from" in printed
    assert "FPS" in printed
    assert "1 of 4 classes are no categories" in caplog.text
    entries = json.loads(out.read_text())
    assert all(set(entry) == {"video_id", "category_id", "score", "segmentations"} for entry in entries)
    lengths = {7: 4, 3: 6, 12: 5}
    assert list(dict.fromkeys(entry["video_id"] for entry in entries)) == list(lengths)
    assert all(len(entry["segmentations"]) == lengths[entry["video_id"]] for entry in entries)
    assert {entry["category_id"] for entry in entries} <= {10, 20, 30}
    assert evaluate(out, valid)["AP"] == pytest.approx(1.0)
    assert "1.0000" in printed
    with zipfile.ZipFile(archive) as file:
        assert file.namelist() == ["results.json"]
        assert file.read("results.json") == out.read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["results.json", "submission.zip", "valid"]


def test_some_videos_of_a_file(bundle, predictor, tmp_path):
    valid, listed, out = ytvis(tmp_path, predictor), tmp_path / "list.txt", tmp_path / "results.json"
    listed.write_text("gamma\n\nalpha\n")
    done = visdeploy.benchmark(bundle, valid, out, videos=listed, device="cpu", threads=1)
    assert (done.videos, done.frames) == (2, 9)
    assert list(dict.fromkeys(e["video_id"] for e in json.loads(out.read_text()))) == [7, 12]
    assert done.scores["AP"] == pytest.approx(1.0)
    assert evaluate(out, valid)["AP"] < 1
    assert evaluate(out, valid, videos=("alpha", "gamma"))["AP"] == pytest.approx(1.0)
    with pytest.raises(DataError, match="lacks videos"):
        evaluate(out, valid, videos=("alpha", "delta"))


def test_a_list_without_objects_gives_results_without_scores(bundle, predictor, tmp_path, capsys):
    ytvis(tmp_path, predictor, annotated=False)
    assert run(bundle, tmp_path / "valid.json", "--out", tmp_path / "results.json") == 0
    assert "no annotations, therefore there are no scores" in capsys.readouterr().out
    done = visdeploy.benchmark(bundle, tmp_path / "valid.json", device="cpu", threads=1)
    assert done.scores is None
    assert done.out is None
    assert (done.videos, done.frames) == (3, 15)
    assert done.fps_without_reading > done.fps > 0
    assert done.images == tmp_path / "JPEGImages"


def test_davis(bundle, predictor, tmp_path, capsys):
    """Images to PNG folders, and these against the annotations of the listed videos, in one command and in two."""
    tree, out = davis(tmp_path / "DAVIS", predictor), tmp_path / "masks"
    truth, listed = tree / "Annotations_unsupervised/480p", tree / "ImageSets/2017/val.txt"
    words = ("--images", tree / "JPEGImages/480p", "--videos", listed, "--out", out, "--zip", tmp_path / "a.zip")
    assert run(bundle, truth, *words) == 0
    assert "JF_mean" in capsys.readouterr().out
    assert sorted(p.name for p in out.iterdir()) == ["alpha", "gamma"]
    for name in ("alpha", "gamma"):
        for number in range(LENGTHS[name]):
            file = f"{name}/{number:05d}.png"
            assert Image.open(out / file).mode == "P"
            assert ((pixels(out / file) > 0) == (pixels(truth / file) > 0)).all()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert len(archive.namelist()) == LENGTHS["alpha"] + LENGTHS["gamma"]
        assert archive.namelist()[0] == "gamma/00000.png"
    report = evaluate(out, truth, videos=("alpha", "gamma"))
    assert report["JF_mean"] == pytest.approx(1.0)
    assert exit_code("evaluate", out, truth, "--videos", listed) == 0
    assert "1.0000" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["list", "folder", "tree"])
def test_davis_without_annotations(bundle, predictor, tmp_path, source):
    tree = davis(tmp_path / "DAVIS", predictor)
    words = {
        "list": (tree / "ImageSets/2017/val.txt", "--images", tree),
        "folder": (tree / "JPEGImages/480p",),
        "tree": (tree, "--videos", tree / "ImageSets/2017/val.txt"),
    }[source]
    assert run(bundle, *words, "--out", tmp_path / "masks") == 0
    names = sorted(LENGTHS) if source == "folder" else ["alpha", "gamma"]
    assert sorted(p.name for p in (tmp_path / "masks").iterdir()) == names
    report = evaluate(tmp_path / "masks", tree / "Annotations_unsupervised/480p", videos=names)
    assert report["JF_mean"] == pytest.approx(1.0)


def test_davis_keeps_the_numbers_of_the_frames(bundle, predictor, tmp_path):
    """Only some frames of a video are annotated, as in sets that annotate every fifth one."""
    tree = davis(tmp_path / "DAVIS", predictor, step=5)
    truth = tree / "Annotations_unsupervised/480p"
    for name in LENGTHS:
        (truth / name / "00005.png").unlink()
        assert sorted(p.name for p in (truth / name).iterdir())[:2] == ["00000.png", "00010.png"]
    done = visdeploy.benchmark(bundle, truth, tmp_path / "masks", images=tree, device="cpu", threads=1)
    assert sorted(p.stem for p in (tmp_path / "masks/alpha").glob("*.png")) == ["00000", "00005", "00010", "00015"]
    assert done.scores["JF_mean"] == pytest.approx(1.0)
    assert len(visdeploy.evaluate(tmp_path / "masks", truth)["jf"]["per_frame"]) > 0


def test_davis_has_at_most_twenty_objects(bundle, predictor, tmp_path):
    tree = davis(tmp_path, predictor)
    words = (tree / "JPEGImages/480p", "--out", tmp_path / "masks", "--max-tracks", 2)
    assert run(bundle, *words) == 0
    sidecar = json.loads((tmp_path / "masks/beta/tracks.json").read_text())
    assert len(sidecar["tracks"]) == 2
    best = sorted(predictor(str(tree / "JPEGImages/480p/beta")).tracks, key=lambda t: -t.score)[:2]
    assert {t["track_id"] for t in sidecar["tracks"]} == {t.track_id for t in best}


def test_too_little_space_for_the_masks(predictor, tmp_path, monkeypatch):
    tree = davis(tmp_path, predictor)
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9 - 10_000, 10_000))
    with pytest.raises(OutputError, match="not enough space"):
        visdeploy.benchmark("no.vis", tree / "JPEGImages/480p", tmp_path / "masks")


def test_tracks_are_filtered_as_for_kitti_mots(bundle, predictor, tmp_path):
    tree = kitti_mots(tmp_path / "KITTI", predictor, MAP)
    truth, options = tree / "instances_txt", {"images": tree, "class_map": MAP, "device": "cpu", "threads": 1}
    visdeploy.benchmark(bundle, truth, tmp_path / "all", **options)
    visdeploy.benchmark(bundle, truth, tmp_path / "some", filter_tracks=True, **options)
    lines = [sum(len(f.read_text().splitlines()) for f in (tmp_path / d).glob("*.txt")) for d in ("all", "some")]
    assert lines[0] > lines[1]
    with pytest.raises(ConfigError, match="filter_tracks"):
        visdeploy.benchmark(bundle, tree / "training/image_02", tmp_path / "x", filter_tracks=True)


def test_kitti_mots(bundle, predictor, tmp_path, capsys):
    tree, out = kitti_mots(tmp_path / "KITTI", predictor, MAP), tmp_path / "results"
    words = ("--images", tree, "--videos", tree / "val.seqmap", "--out", out, *MAPPED, "--zip", tmp_path / "a.zip")
    assert run(bundle, tree / "instances_txt", *words) == 0
    printed = capsys.readouterr().out
    assert "HOTA" in printed
    assert "sMOTSA" in printed or "sMOTA" in printed
    assert (out / "beta.txt").read_text() == (tree / "instances_txt/beta.txt").read_text()
    assert not (out / "gamma.txt").exists()
    report = evaluate(out, tree / "instances_txt", videos=("alpha", "beta"))
    assert report["HOTA"] == pytest.approx(1.0)
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == ["beta.txt", "alpha.txt"]
    listed = (tree / "val.seqmap", "--images", tree / "training/image_02", "--format", "mots", "--out", tmp_path / "b")
    assert run(bundle, *listed, *MAPPED) == 0
    assert (tmp_path / "b/beta.txt").read_bytes() == (out / "beta.txt").read_bytes()


@pytest.mark.parametrize("kind", ["ytvis", "davis", "mots"])
def test_a_resumed_run_equals_an_uninterrupted_one(bundle, predictor, tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    words = {
        "ytvis": lambda: (ytvis(tmp_path / "set", predictor), "--zip"),
        "davis": lambda: (davis(tmp_path / "set", predictor) / "JPEGImages/480p", "--zip"),
        "mots": lambda: (
            kitti_mots(tmp_path / "set", predictor, MAP) / "instances_txt", "--images", tmp_path / "set", *MAPPED,
            "--zip",
        ),
    }[kind]()  # fmt: skip
    assert run(bundle, *words, "whole.zip", "--out", "whole") == 0
    predict, videos = visdeploy.VISPredictor.__call__, []

    def interrupted(self, source, **options):
        videos.append(options["name"])
        if len(videos) == 3:
            raise KeyboardInterrupt
        return predict(self, source, **options)

    monkeypatch.setattr(visdeploy.VISPredictor, "__call__", interrupted)
    assert run(bundle, *words, "out.zip", "--out", "out") != 0
    assert not (tmp_path / "out").exists()
    assert run(bundle, *words, "out.zip", "--out", "out") == 1
    assert run(bundle, *words, "out.zip", "--out", "out", "--resume") == 0
    assert len(videos) == 4
    assert videos[3] == videos[2]
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert (tmp_path / "out.zip").read_bytes() == (tmp_path / "whole.zip").read_bytes()
    assert not (tmp_path / "out.partial").exists()


def contents(path):
    return {p.relative_to(path): p.read_bytes() for p in [path, *path.rglob("*")] if p.is_file()}


@pytest.fixture
def stopped(bundle, predictor, tmp_path, monkeypatch):
    """Return an annotation file for which a run has been stopped after its first video."""
    valid = ytvis(tmp_path / "set", predictor)
    predict, videos = visdeploy.VISPredictor.__call__, []

    def interrupted(self, source, **options):
        videos.append(1)
        if len(videos) == 2:
            raise KeyboardInterrupt
        return predict(self, source, **options)

    with monkeypatch.context() as patch:
        patch.setattr(visdeploy.VISPredictor, "__call__", interrupted)
        with pytest.raises(KeyboardInterrupt):
            visdeploy.benchmark(bundle, valid, tmp_path / "out.json", device="cpu", threads=1)
    return valid


def test_progress_of_another_run_is_refused(bundle, stopped, tmp_path):
    before = contents(tmp_path / "out.json.partial")
    other = make_bundle(tmp_path / "other.vis", variant="other")
    with pytest.raises(OutputError, match="progress of an earlier run"):
        visdeploy.benchmark(bundle, stopped, tmp_path / "out.json", device="cpu")
    with pytest.raises(ConfigError, match="another bundle"):
        visdeploy.benchmark(other, stopped, tmp_path / "out.json", device="cpu", resume=True)
    with pytest.raises(ConfigError, match="another options"):
        visdeploy.benchmark(bundle, stopped, tmp_path / "out.json", device="cpu", resume=True, max_tracks=3)
    edit_json(stopped, lambda data: data["annotations"].pop())
    with pytest.raises(ConfigError, match="another annotations"):
        visdeploy.benchmark(bundle, stopped, tmp_path / "out.json", device="cpu", resume=True)
    assert contents(tmp_path / "out.json.partial") == before
    assert visdeploy.benchmark(bundle, stopped, tmp_path / "out.json", device="cpu", overwrite=True).videos == 3


def test_other_images_of_videos_that_are_done_are_refused(bundle, stopped, tmp_path):
    """A video that has not been processed may change, for example because an image was damaged."""
    black, images = Image.fromarray(np.zeros((60, 90, 3), np.uint8)), tmp_path / "set/JPEGImages"
    black.save(images / "gamma/00000.jpg", format="PNG")
    kept = (images / "alpha/00000.jpg").read_bytes()
    black.save(images / "alpha/00000.jpg", format="PNG")
    with pytest.raises(ConfigError, match="other images of 'alpha'"):
        visdeploy.benchmark(bundle, stopped, tmp_path / "out.json", device="cpu", resume=True)
    (images / "alpha/00000.jpg").write_bytes(kept)
    assert visdeploy.benchmark(bundle, stopped, tmp_path / "out.json", device="cpu", resume=True).videos == 3


def drop_image(tree):
    (tree / "JPEGImages/gamma/00010.jpg").unlink()


def resize_image(tree):
    Image.fromarray(np.zeros((30, 45, 3), np.uint8)).save(tree / "JPEGImages/gamma/00000.jpg", format="PNG")


def climb(tree):
    edit_json(tree / "valid.json", lambda d: d["videos"][0]["file_names"].__setitem__(1, "../../secret.jpg"))


def repeat_id(tree):
    edit_json(tree / "valid.json", lambda d: d["videos"][1].update(id=7))


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (drop_image, r"images of .* are missing \(seen: 1 of 15, such as .*gamma/00010\.jpg"),
        (resize_image, r"does not have the size .* \(seen: 30x45; expected: 60x90"),
        (climb, "a file name leads out of the folder of images"),
        (repeat_id, "repeats an id"),
    ],
)
def test_a_wrong_set_is_refused_before_the_bundle_is_opened(predictor, tmp_path, change, part):
    ytvis(tmp_path, predictor)
    change(tmp_path)
    with pytest.raises(DataError, match=part):
        visdeploy.benchmark("no.vis", tmp_path / "valid.json", tmp_path / "out.json")
    assert not list(tmp_path.glob("out.json*"))


def test_names_of_categories(bundle, predictor, tmp_path, caplog):
    """OVIS writes its categories with capitals; a map names the rest; no common class is an error."""
    valid = ytvis(tmp_path, predictor, categories={1: "Red", 2: "Green", 3: "azure"})
    done = visdeploy.benchmark(bundle, valid, tmp_path / "a.json", class_map={"blue": "azure"}, device="cpu", threads=1)
    assert {e["category_id"] for e in json.loads((tmp_path / "a.json").read_text())} == {1, 2, 3}
    assert done.zip is None
    edit_json(valid, lambda data: [c.update(name=f"x{c['id']}") for c in data["categories"]])
    with pytest.raises(ConfigError, match="no class in common"):
        visdeploy.benchmark(bundle, valid, tmp_path / "b.json", device="cpu")
    for wrong in ({"purple": "x1"}, {"red": "x9"}):
        with pytest.raises(ConfigError, match="in the class map"):
            visdeploy.benchmark(bundle, valid, tmp_path / "b.json", class_map=wrong, device="cpu")


def test_videos_that_share_a_folder(bundle, predictor, tmp_path):
    """Two videos of one folder of frames, and frames without a folder."""
    files = write_frames(tmp_path, "beta", ".jpg", 5)
    (tmp_path / "loose.jpg").write_bytes(files[0].read_bytes())
    base = {"height": 60, "width": 90}
    parts = [[f"beta/{f.name}" for f in files[:3]], [f"beta/{f.name}" for f in files[3:]], ["loose.jpg"]]
    videos = [{"id": i, "file_names": names, **base} for i, names in enumerate(parts)]
    (tmp_path / "v.json").write_text(json.dumps({"categories": [{"id": 1, "name": "red"}], "videos": videos}))
    visdeploy.benchmark(bundle, tmp_path / "v.json", tmp_path / "out.json", device="cpu", threads=1)
    lengths = {(e["video_id"], len(e["segmentations"])) for e in json.loads((tmp_path / "out.json").read_text())}
    assert lengths <= {(0, 3), (1, 3), (2, 1)}
    assert len(lengths) >= 2


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("valid.json --out JPEGImages/alpha/00000.jpg --overwrite", "would replace the input"),
        ("valid.json --out valid.json --overwrite", "would replace the input"),
        ("valid.json --out o.json --zip o.json", "would replace each other"),
        ("valid.json --out o.json --zip o.json.partial/a.zip", "would replace each other"),
        ("valid.json --out o.json --format davis", "expected: ytvis"),
        ("valid.json --out o.json --format nope", "expected: ytvis, davis, mots"),
        ("list.txt --out masks", "Pass --images"),
        ("list.txt --images . --out masks", "images of list.txt are missing"),
        ("wrong.txt --images . --out masks", "is not a list of videos"),
        ("valid.json --videos list.txt --out o.json", "lacks videos"),
        ("valid.json --out o.json --class-map red", "CLASS=CATEGORY"),
        ("JPEGImages --out masks --filter-tracks", "filter_tracks"),
        ("nothing.json --out o.json", "nothing.json does not exist"),
    ],
)
def test_wrong_arguments(predictor, tmp_path, monkeypatch, words, part, capsys):
    monkeypatch.chdir(tmp_path)
    ytvis(tmp_path, predictor)
    (tmp_path / "list.txt").write_text("nobody\n")
    (tmp_path / "wrong.txt").write_text("/JPEGImages/480p/a/0.jpg /Annotations/480p/a/0.png\n")
    assert exit_code("benchmark", "no.vis", *words.split()) == 1
    assert part in " ".join(capsys.readouterr().err.split())


def test_annotations_of_other_frames_are_refused(predictor, tmp_path):
    tree = davis(tmp_path, predictor)
    truth = tree / "Annotations_unsupervised/480p"
    (truth / "beta/00001.png").rename(truth / "beta/00050.png")
    (truth / "beta/00002.png").unlink()
    with pytest.raises(DataError, match="annotations of 'beta' do not belong to its images"):
        datasets.open_dataset(truth, tree)
