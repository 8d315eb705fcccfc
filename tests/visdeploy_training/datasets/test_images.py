"""Training and evaluation see the images of the runtime: turned upright, with the same colours."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.visdeploy_training.material import HEIGHT, WIDTH, categories, mask_at, picture
from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.video import open_source
from visdeploy_training.datasets import ImageStore, read_records, validation_clips

TURN = Image.Transpose
# how a file of each EXIF orientation is made from the upright image
STORED = {1: None, 2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE,
          6: TURN.ROTATE_90, 7: TURN.TRANSVERSE, 8: TURN.ROTATE_270}  # fmt: skip
ENDINGS = {".jpg": {"quality": 95, "subsampling": 0}, ".png": {}, ".webp": {"lossless": True}, ".tif": {}}
OBJECT = mask_at(6, 8)


def turned(path, orientation):
    """Write the image of `OBJECT`, stored as cameras do when they are held in other ways."""
    image = picture([OBJECT])
    if STORED[orientation] is not None:
        image = image.transpose(STORED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif, **ENDINGS[path.suffix])


def is_red(image):
    return (image[..., 0] > 200) & (image[..., 1] < 60)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("orientation", STORED)
def test_images_are_upright(tmp_path, ending, orientation):
    path = tmp_path / f"1{ending}"
    turned(path, orientation)
    image = ImageStore()(path, HEIGHT, WIDTH)
    assert image.is_contiguous()
    image = image.permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(is_red(image), OBJECT)
    np.testing.assert_array_equal(image, next(iter(open_source(path))).image)


@pytest.mark.parametrize("layout", ["coco", "ytvis"])
def test_masks_lie_on_their_objects_in_every_layout(tmp_path, layout):
    names = [f"v/{orientation}.jpg" for orientation in STORED]
    (tmp_path / "v").mkdir()
    for orientation, name in zip(STORED, names, strict=True):
        turned(tmp_path / name, orientation)
    rle, size = Mask.encode(OBJECT).to_coco(), {"height": HEIGHT, "width": WIDTH}
    if layout == "ytvis":
        images = {"videos": [{"id": 1, **size, "file_names": names}]}
        objects = [{"id": 1, "video_id": 1, "category_id": 1, "segmentations": [rle] * len(names)}]
    else:
        images = {"images": [{"id": i, **size, "file_name": name} for i, name in enumerate(names, start=1)]}
        objects = [{"id": i, "image_id": i, "category_id": 1, "segmentation": rle} for i in range(1, len(names) + 1)]
    (tmp_path / "a.json").write_text(json.dumps({"categories": categories(), **images, "annotations": objects}))
    records = read_records(tmp_path / "a.json", tmp_path, layout=layout, classes=("person", "vehicle"))
    for record in records:
        for clip in validation_clips([record], pseudo_frames=2) if layout == "ytvis" else ():
            assert all((is_red(image) == OBJECT).all() for image in clip.frames())
        for file, mask in zip(record.files, record.instances[0].masks, strict=True):
            image = ImageStore()(file, record.height, record.width).permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(is_red(image), mask.decode())


def test_annotations_of_the_image_as_stored_are_named(tmp_path):
    turned(tmp_path / "1.jpg", 6)
    with pytest.raises(DataError, match=r"seen: 48x80; expected: 80x48\).*EXIF"):
        ImageStore()(tmp_path / "1.jpg", WIDTH, HEIGHT)
    with pytest.raises(DataError, match=r"expected: 24x40\).*same release"):
        ImageStore()(tmp_path / "1.jpg", 24, 40)


def test_larger_images_are_turned_before_they_are_scaled(tmp_path):
    turned(tmp_path / "1.png", 8)
    image = ImageStore()(tmp_path / "1.png", HEIGHT // 2, WIDTH // 2, shrink=True).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(is_red(image), OBJECT[::2, ::2])


def test_deep_grey_images_are_scaled_as_in_the_runtime(tmp_path):
    deep = np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(deep).save(tmp_path / "1.png")
    image = ImageStore()(tmp_path / "1.png", HEIGHT, WIDTH)
    np.testing.assert_array_equal(image[0].numpy(), np.round(deep / 257))
    Image.fromarray(deep.astype(np.float32)).save(tmp_path / "1.tif")
    with pytest.raises(DataError, match="cannot read the image"):
        ImageStore()(tmp_path / "1.tif", HEIGHT, WIDTH)
