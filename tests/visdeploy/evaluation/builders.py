"""Small ground truths and predictions for tests."""

import copy

from tests.support import rectangle

HEIGHT, WIDTH, FRAMES = 40, 60, 5


def box_rle(x: int, y: int, w: int, h: int, *, height: int = HEIGHT, width: int = WIDTH) -> dict:
    return rectangle(height, width, y, x, h, w).to_coco()


def moving(x: int, y: int, w: int, h: int, frames: int = FRAMES, step: int = 1) -> list[dict]:
    return [box_rle(x + step * t, y, w, h) for t in range(frames)]


def video(number: int, frames: int = FRAMES) -> dict:
    names = [f"clip{number}/{t:05d}.jpg" for t in range(frames)]
    return {"id": number, "height": HEIGHT, "width": WIDTH, "length": frames, "file_names": names}


def annotation(number: int, video_id: int, category_id: int, masks: list, **more) -> dict:
    entry = {"id": number, "video_id": video_id, "category_id": category_id, "iscrowd": 0, "segmentations": masks}
    return entry | more


def prediction(video_id: int, category_id: int, score: float, masks: list) -> dict:
    return {"video_id": video_id, "category_id": category_id, "score": score, "segmentations": masks}


def ground_truth() -> dict:
    """Return two videos, two classes, three objects; the last one is absent in its middle frame."""
    absent = moving(5, 20, 9, 12)
    absent[2] = None
    return {
        "categories": [{"id": 1, "name": "cat"}, {"id": 7, "name": "dog"}],
        "videos": [video(1), video(2)],
        "annotations": [
            annotation(1, 1, 1, moving(2, 3, 12, 10)),
            annotation(2, 1, 7, moving(30, 8, 15, 20)),
            annotation(3, 2, 1, absent),
        ],
    }


def perfect(truth: dict) -> list[dict]:
    """Return the ground truth as predictions, with distinct scores."""
    return [
        prediction(a["video_id"], a["category_id"], 0.9 - 0.01 * a["id"], copy.deepcopy(a["segmentations"]))
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]
