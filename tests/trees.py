"""Miniatures of the folder trees of YouTube-VIS, DAVIS, KITTI MOTS and MOTSChallenge, with one object in one video."""

import json
from pathlib import Path
from typing import Any

from visdeploy.formats import save
from visdeploy.masks import Mask
from visdeploy.results import Track, VideoResult
from visdeploy.video import open_source


def write_trees(folder: Path, annotations: dict[str, Any]) -> None:
    """Write the trees `ytvis`, `DAVIS`, `KITTI` and `MOTS` for the video `street.mp4` of a folder.

    Args:
        folder: The folder.
        annotations: Annotations of the video as in YouTube-VIS.
    """
    (video,), (truth,) = annotations["videos"], annotations["annotations"]
    images = {
        "ytvis/JPEGImages": "{}.jpg",
        "DAVIS/JPEGImages/480p": "{:05d}.jpg",
        "KITTI/training/image_02": "{:06d}.png",
    }
    for tree, pattern in images.items():
        for frame in open_source(folder / "street.mp4"):
            _write_image(folder / tree / "VIDEO" / pattern.format(frame.index), frame.image)
    for frame in open_source(folder / "street.mp4"):
        _write_image(folder / f"MOTS/train/VIDEO/img1/{frame.index + 1:06d}.png", frame.image)
    (folder / "ytvis/valid.json").write_text(json.dumps(annotations))
    masks = {t: Mask.from_coco(rle) for t, rle in enumerate(truth["segmentations"])}
    result = VideoResult("VIDEO", video["height"], video["width"], video["length"], ("car", "pedestrian"))
    result.tracks = [Track(0, 1, 1.0, masks)]
    save(result, folder / "DAVIS/Annotations_unsupervised/480p", format="davis")
    save(result, folder / "KITTI/instances_txt", format="mots")
    save(result, folder / "MOTS/instances_txt", format="mots", numbering="motschallenge")
    for sidecar in folder.rglob("*tracks.json"):
        sidecar.unlink()
    (folder / "DAVIS/ImageSets/2017").mkdir(parents=True)
    (folder / "DAVIS/ImageSets/2017/val.txt").write_text("VIDEO\n")
    (folder / "KITTI/val.seqmap").write_text("VIDEO empty 000000 000003\n")


def _write_image(path: Path, image: Any) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
