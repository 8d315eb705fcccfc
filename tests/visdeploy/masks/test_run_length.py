import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from visdeploy.errors import DataError
from visdeploy.masks import Mask
from visdeploy.masks.run_length import covers, read_fast

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))
MASKS = SIZES.flatmap(lambda size: st.lists(arrays(bool, size), min_size=1, max_size=4))


def accepted(text: bytes, height: int, width: int) -> bool:
    try:
        Mask.from_coco({"size": [height, width], "counts": text})
    except DataError:
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(MASKS)
def test_every_real_encoding_passes(masks):
    height, width = masks[0].shape
    items = [Mask.encode(mask).to_coco() for mask in masks]
    found = read_fast(items, height, width)
    assert [None if mask is None else mask.decode().tolist() for mask in found] == [m.tolist() for m in masks]


@settings(max_examples=200, deadline=None)
@given(MASKS, st.data())
def test_damaged_texts_are_judged_as_the_exact_reader_does(masks, data):
    height, width = masks[0].shape
    texts = []
    for mask in masks:
        text = bytearray(Mask.encode(mask).counts)
        for _ in range(data.draw(st.integers(0, 2))):
            text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(30, 127))
        texts.append(bytes(text[: data.draw(st.integers(1, len(text)))]))
    assert covers(texts, height * width).tolist() == [accepted(text, height, width) for text in texts]


def test_what_is_not_plainly_right_is_left_to_the_exact_reader():
    good = Mask.encode(np.eye(6)).to_coco()
    items = [None, 5, good, {"size": [6, 7], "counts": good["counts"]}, {"size": [6, 6]}, good | {"counts": "é"}]
    items += [good | {"counts": [36]}, good | {"counts": [35]}, good | {"counts": []}, good | {"counts": [1.5, 34.5]}]
    found = read_fast(items, 6, 6)
    assert [index for index, mask in enumerate(found) if mask is not None] == [2, 6]


@pytest.mark.parametrize("counts", [[2400], [2400, 0], [10, 0, 2390], [0, 0, 2400]])
def test_an_empty_mask_has_an_empty_box(counts):
    mask = Mask.from_coco({"size": [40, 60], "counts": counts})
    assert (mask.area, mask.box) == (0, (0, 0, 0, 0))


@pytest.mark.parametrize("text", ["o" * 2_000_000, "P" * 2_000_000 + "0", "o0" * 1_000_000])
def test_megabytes_of_text_are_refused_at_once(text):
    with pytest.raises(DataError, match="malformed run-length mask"):
        Mask.from_coco({"size": [40, 60], "counts": text})


def test_numpy_sees_the_dense_mask():
    dense = np.eye(6, dtype=bool)
    mask = Mask.encode(dense)
    assert np.asarray(mask).dtype == bool
    np.testing.assert_array_equal(np.asarray(mask), dense)
    np.testing.assert_array_equal(np.array(mask, dtype=np.float32), dense.astype(np.float32))
    np.testing.assert_array_equal(mask.to_array(), dense)
    assert np.array(mask, copy=True).flags.owndata


@pytest.mark.parametrize("counts", [b"garbage", b"1o", b"oooooooo"])
def test_damaged_counts_given_to_the_constructor_are_a_typed_error(counts):
    with pytest.raises(DataError, match="malformed run-length mask"):
        Mask(5, 5, counts).decode()
