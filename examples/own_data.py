"""Write a small data set as the recipe own_data reads it: folders of frames, and YouTube-VIS annotations.

Balls and boxes move over a noisy background. The masks here are known; yours come from a labelling tool.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from visdeploy.masks import Mask

CLASSES = ("ball", "box")
HEIGHT, WIDTH = 120, 200


def draw(rng: np.random.Generator, frames: int) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Return the frames of one video, and the mask of each of its two objects in each frame."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    background = rng.integers(60, 110, (HEIGHT, WIDTH, 3))
    starts, speeds = rng.uniform((20, 20), (HEIGHT - 20, WIDTH - 20), (2, 2)), rng.uniform(-4, 4, (2, 2))
    colours = rng.integers(130, 255, (2, 3))
    images, masks = [], [[], []]
    for t in range(frames):
        image = background.copy()
        for number in range(2):
            y, x = starts[number] + t * speeds[number]
            distance = np.hypot(rows - y, columns - x) if number == 0 else np.maximum(abs(rows - y), abs(columns - x))
            mask = distance < 14
            image[mask] = colours[number]
            for earlier in masks[:number]:
                earlier[t] &= ~mask
            masks[number].append(mask)
        images.append(image.astype(np.uint8))
    return images, masks


def annotation(number: int, video: int, category: int, masks: list[np.ndarray]) -> dict[str, Any]:
    """Return the entry of one object: a mask, a box and an area for each frame, or null where it is not visible."""
    found = [Mask.encode(mask) if mask.any() else None for mask in masks]
    return {
        "id": number,
        "video_id": video,
        "category_id": category,
        "iscrowd": 0,
        "segmentations": [None if mask is None else mask.to_coco() for mask in found],
        "bboxes": [None if mask is None else sides(mask) for mask in found],
        "areas": [None if mask is None else mask.area for mask in found],
    }


def sides(mask: Mask) -> list[float]:
    """Return left, top, width and height of a mask."""
    left, top, right, bottom = mask.box
    return [left, top, right - left, bottom - top]


def write(folder: Path, file: str, names: list[str], frames: int, rng: np.random.Generator) -> None:
    """Write the frames of some videos to `folder/frames`, and their annotations to `folder/file`."""
    videos, annotations = [], []
    for video, name in enumerate(names, start=1):
        images, masks = draw(rng, frames)
        (folder / "frames" / name).mkdir(parents=True, exist_ok=True)
        paths = [f"{name}/{t:05d}.jpg" for t in range(frames)]
        for path, image in zip(paths, images, strict=True):
            Image.fromarray(image).save(folder / "frames" / path, quality=95)
        videos.append({"id": video, "width": WIDTH, "height": HEIGHT, "length": frames, "file_names": paths})
        for category, each in enumerate(masks, start=1):
            annotations.append(annotation(len(annotations) + 1, video, category, each))
    categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)]
    content = {"videos": videos, "categories": categories, "annotations": annotations}
    (folder / file).write_text(json.dumps(content))


def main() -> None:
    """Write the videos for training and one for validation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--videos", type=int, default=8, help="videos for training")
    parser.add_argument("--frames", type=int, default=12, help="frames of a video")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    write(options.folder, "train.json", [f"train_{i}" for i in range(options.videos)], options.frames, rng)
    write(options.folder, "valid.json", ["valid_0"], options.frames, rng)
    print(f"wrote {options.folder}: train.json, valid.json, frames/")


if __name__ == "__main__":
    main()
