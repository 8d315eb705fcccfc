"""Miniatures of the folder trees of YouTube-VIS, DAVIS and KITTI MOTS, with annotations that a small bundle finds."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.visdeploy.step_graph import CLASSES, clip
from visdeploy import VISPredictor
from visdeploy.formats import save

LENGTHS = {"alpha": 4, "beta": 6, "gamma": 5}


def write_frames(folder: Path, name: str, ending: str, digits: int, step: int = 1) -> list[Path]:
    """Write the frames of one video as images without loss, whatever their ending."""
    (folder / name).mkdir(parents=True)
    files = [folder / name / f"{t * step:0{digits}d}{ending}" for t in range(LENGTHS[name])]
    for file, frame in zip(files, clip(LENGTHS[name], seed=len(name)), strict=True):
        Image.fromarray(frame).save(file, format="PNG")
    return files


def found(predictor: VISPredictor, files: list[Path], name: str):
    """Return what the bundle finds, as truth: the scores are then perfect."""
    return predictor(files, name=name)


def ytvis(folder: Path, predictor: VISPredictor, *, categories=None, annotated: bool = True) -> Path:
    """Write `valid.json` and `JPEGImages/VIDEO/00000.jpg`; ids of videos and categories have gaps and are not in order.

    As in the published lists for servers, `annotations` is null without `annotated`.
    """
    names = categories or {30: "blue", 10: "red", 20: "green", 40: "elephant"}
    content = {"categories": [{"id": i, "name": n} for i, n in names.items()], "videos": [], "annotations": []}
    ids = {n: i for i, n in names.items()}
    for video_id, name in zip((7, 3, 12), LENGTHS, strict=True):
        files = write_frames(folder / "JPEGImages", name, ".jpg", 5, step=5)
        entry = {"id": video_id, "height": 60, "width": 90, "length": len(files)}
        content["videos"].append(entry | {"file_names": [f"{name}/{f.name}" for f in files]})
        for track in found(predictor, files, name).tracks:
            if CLASSES[track.label] not in ids:
                continue
            masks = [track.masks.get(t) for t in range(len(files))]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1, "video_id": video_id, "iscrowd": 0,
                    "category_id": ids[CLASSES[track.label]],
                    "segmentations": [None if m is None else m.to_coco() for m in masks],
                    "areas": [None if m is None else m.area for m in masks],
                }
            )  # fmt: skip
    if not annotated:
        content["annotations"] = None
    path = folder / "valid.json"
    path.write_text(json.dumps(content))
    return path


def davis(folder: Path, predictor: VISPredictor, *, step: int = 1) -> Path:
    """Write `JPEGImages/480p`, `Annotations_unsupervised/480p` and `ImageSets/2017/val.txt`, which lists two videos."""
    truth = folder / "Annotations_unsupervised/480p"
    for name in LENGTHS:
        files = write_frames(folder / "JPEGImages/480p", name, ".jpg", 5, step=step)
        video = found(predictor, files, name)
        video.positions = [t * step for t in range(len(files))] if step > 1 else ()
        save(video, truth, format="davis")
        (truth / name / "tracks.json").unlink()
    (folder / "ImageSets/2017").mkdir(parents=True)
    (folder / "ImageSets/2017/val.txt").write_text("gamma\nalpha\n")
    return folder


def kitti_mots(folder: Path, predictor: VISPredictor, class_map: dict[str, str]) -> Path:
    """Write `training/image_02/VIDEO/000000.png`, `instances_txt/VIDEO.txt` and `val.seqmap`."""
    names = ("car", "pedestrian")
    (folder / "instances_txt").mkdir(parents=True)
    for name in LENGTHS:
        files = write_frames(folder / "training/image_02", name, ".png", 6)
        video = found(predictor, files, name)
        video.tracks = [t for t in video.tracks if CLASSES[t.label] in class_map]
        for track in video.tracks:
            track.label, track.scores = names.index(class_map[CLASSES[track.label]]), ()
        video.classes = names
        save(video, folder / "instances_txt", format="mots")
        (folder / "instances_txt" / f"{name}.tracks.json").unlink()
    (folder / "val.seqmap").write_text("beta empty 000000 000005\nalpha empty 000000 000003\n")
    return folder


def pixels(file: Path) -> np.ndarray:
    """Return the values of an indexed PNG."""
    return np.asarray(Image.open(file))
