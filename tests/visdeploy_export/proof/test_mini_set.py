import json

import numpy as np
import pytest
from PIL import Image

from visdeploy.errors import SourceError
from visdeploy_export.proof.mini_set import first_video


def test_frames_are_those_of_the_runtime(tmp_path):
    """A photo that was taken with the camera upside down."""
    upright = np.zeros((6, 8, 3), np.uint8)
    upright[:2, :3] = 200
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.fromarray(upright[::-1, ::-1]).save(tmp_path / "0.png", exif=exif)
    video = {"id": 1, "height": 6, "width": 8, "file_names": ["0.png", "1.png"]}
    content = {"videos": [video], "categories": [{"id": 1, "name": "cat"}], "annotations": []}
    (tmp_path / "a.json").write_text(json.dumps(content))
    frames = first_video(tmp_path / "a.json", tmp_path)
    np.testing.assert_array_equal(next(frames), upright)
    with pytest.raises(SourceError, match=r"1\.png.*certify_on"):
        next(frames)
