"""Paths of data sets: environment variables, and the two names of the validation set of YouTube-VIS."""

from __future__ import annotations

import os
import re
from pathlib import Path

from visdeploy.errors import ConfigError

DATA = "VISDEPLOY_DATA"
"""Environment variable of the folder of the data sets in the recipes of this package."""
VARIABLES = {
    DATA: "the folder with the data sets of the recipe",
    "STEMSEG_JSON_ANNOTATIONS_DIR": "folder of coco.json, pascal_voc.json, mapillary.json, youtube_vis_train.json, ...",
    "STEMSEG_MODELS_DIR": "folder with the folders pretrained and checkpoints",
    "DAVIS_BASE_DIR": "JPEGImages/480p of DAVIS",
    "YOUTUBE_VIS_BASE_DIR": "folder that contains train and valid (or val) of YouTube-VIS",
    "KITTIMOTS_BASE_DIR": "folder of the sequences of KITTI MOTS",
    "COCO_TRAIN_IMAGES_DIR": "train2017 of COCO",
    "PASCAL_VOC_IMAGES_DIR": "JPEGImages of Pascal VOC",
    "MAPILLARY_IMAGES_DIR": "all images of the training and validation sets of Mapillary Vistas",
}
"""Environment variables, with their contents; most are those of STEm-Seg. Other variables can be used as well."""
_VALIDATION = {"val": "valid", "valid": "val"}


def expand(path: str) -> str:
    """Replace `$NAME` and `${NAME}` by environment variables.

    Raises:
        ConfigError: A variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        found = os.environ.get(name)
        if not found:
            raise ConfigError(
                f"the environment variable {name} is not set",
                seen=f"in the path {path}",
                expected=VARIABLES.get(name, "a folder"),
                hint=f"Set it: export {name}=FOLDER. Or change "
                + ("data_root in the recipe (data_root=FOLDER)." if name == DATA else "the path in the recipe."),
            )
        return found

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, path)


def existing(path: Path) -> Path:
    """Return a path, or, if only that exists, the one with `val` in place of a part called `valid`, or vice versa."""
    if path.exists():
        return path
    for index, part in enumerate(path.parts):
        other = Path(*path.parts[:index], _VALIDATION.get(part, part), *path.parts[index + 1 :])
        if part in _VALIDATION and other.exists():
            return other
    return path
