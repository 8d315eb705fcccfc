"""Small data sets on disk: moving rectangles, in all layouts."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision import tv_tensors

from visdeploy.masks import Mask

HEIGHT, WIDTH = 48, 80
CLASSES = ("person", "vehicle")


def mask_at(x: int, y: int, size: int = 16) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y : y + size, x : x + size] = True
    return mask


def picture(masks: list[np.ndarray]) -> Image.Image:
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    for mask, colour in zip(masks, ((250, 20, 20), (20, 20, 250)), strict=False):
        image[mask] = colour
    return Image.fromarray(image)


def ytvis_set(folder: Path, *, videos: int = 2, length: int = 5) -> tuple[Path, Path]:
    """Write a red square that moves right, and a blue one that is absent in the last frame."""
    images, entries, objects = folder / "frames", [], []
    for v in range(1, videos + 1):
        (images / f"clip{v}").mkdir(parents=True, exist_ok=True)
        red = [mask_at(4 + 4 * t, 6) for t in range(length)]
        blue = [mask_at(50, 24 - 2 * t) if t < length - 1 else None for t in range(length)]
        for t in range(length):
            picture([m for m in (red[t], blue[t]) if m is not None]).save(images / f"clip{v}" / f"{t}.png")
        names = [f"clip{v}/{t}.png" for t in range(length)]
        entries.append({"id": v, "height": HEIGHT, "width": WIDTH, "length": length, "file_names": names})
        for category, masks in ((1, red), (2, blue)):
            rles = [None if m is None else Mask.encode(m).to_coco() for m in masks]
            objects.append({"id": len(objects) + 1, "video_id": v, "category_id": category, "segmentations": rles})
    path = folder / "ytvis.json"
    path.write_text(json.dumps({"categories": categories(), "videos": entries, "annotations": objects}))
    return path, images


def coco_set(folder: Path, *, count: int = 3) -> tuple[Path, Path]:
    """Write images with a red square as polygon and a blue one as run lengths; licences 1, 2, 3, ..."""
    images, entries, objects = folder / "images", [], []
    images.mkdir(parents=True, exist_ok=True)
    for i in range(1, count + 1):
        red, blue = mask_at(6, 8), mask_at(40, 20)
        picture([red, blue]).save(images / f"{i}.png")
        entries.append({"id": i, "height": HEIGHT, "width": WIDTH, "file_name": f"{i}.png", "license": i})
        polygon = [[6, 8, 22, 8, 22, 24, 6, 24]]
        for category, segmentation in ((1, polygon), (2, Mask.encode(blue).to_coco())):
            objects.append(
                {
                    "id": len(objects) + 1,
                    "image_id": i,
                    "category_id": category,
                    "iscrowd": 0,
                    "segmentation": segmentation,
                }
            )
    path = folder / "coco.json"
    path.write_text(json.dumps({"categories": categories(), "images": entries, "annotations": objects}))
    return path, images


def _counts(mask: np.ndarray) -> str:
    return Mask.encode(mask).to_coco()["counts"]


def stemseg_videos(folder: Path, *, videos: int = 2, length: int = 5) -> tuple[Path, Path]:
    """Write the objects of `ytvis_set` in the layout of STEm-Seg: instance 3 is red, instance 7 blue."""
    _, images = ytvis_set(folder, videos=videos, length=length)
    red = [mask_at(4 + 4 * t, 6) for t in range(length)]
    blue = [mask_at(50, 24 - 2 * t) for t in range(length - 1)]
    frames = [{"3": _counts(m), **({"7": _counts(blue[t])} if t < len(blue) else {})} for t, m in enumerate(red)]
    entries = [
        {
            "id": f"clip{v}",
            "height": HEIGHT,
            "width": WIDTH,
            "image_paths": [f"clip{v}/{t}.png" for t in range(length)],
            "categories": {"3": 1, "7": 2},
            "segmentations": frames,
        }
        for v in range(1, videos + 1)
    ]
    path = folder / "videos.json"
    path.write_text(json.dumps({"meta": stemseg_meta(), "sequences": entries}))
    return path, images


def stemseg_images(folder: Path, *, count: int = 3) -> tuple[Path, Path]:
    """Write the objects of `coco_set` in the layout of STEm-Seg; the rightmost 4 columns are ignored."""
    _, images = coco_set(folder, count=count)
    ignore = np.zeros((HEIGHT, WIDTH), bool)
    ignore[:, -4:] = True
    entries = [
        {
            "image_path": f"{i}.png",
            "height": HEIGHT,
            "width": WIDTH,
            "categories": [1, 2],
            "segmentations": [_counts(mask_at(6, 8)), _counts(mask_at(40, 20))],
            "ignore": _counts(ignore),
        }
        for i in range(1, count + 1)
    ]
    path = folder / "images.json"
    path.write_text(json.dumps({"meta": stemseg_meta(), "images": entries}))
    return path, images


def stemseg_meta() -> dict:
    return {"category_labels": {str(i + 1): name for i, name in enumerate(CLASSES)}}


def square_clip(frames: int = 3, height: int = 60, width: int = 100) -> list[tuple[tv_tensors.Image, tv_tensors.Mask]]:
    """Return a clip to augment: a white rectangle on grey; its mask contains the white pixels."""
    mask = torch.zeros(1, height, width, dtype=torch.uint8)
    mask[0, 20:40, 30:60] = 1
    image = torch.where(mask.bool().expand(3, -1, -1), 255, 60).to(torch.uint8)
    return [(tv_tensors.Image(image.clone()), tv_tensors.Mask(mask.clone())) for _ in range(frames)]


def categories() -> list[dict]:
    return [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
