"""Sizes: expressions over symbols, ranges, and what tensors say together."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from visdeploy.manifest import Dim, SizeError, TensorSpec
from visdeploy.manifest.sizes import Shaped, bind, evaluate, initial_sizes, symbols

DIMS = {
    "height": Dim(minimum=32, typical=64, maximum=128, multiple=32),
    "width": Dim(minimum=32, typical=96, maximum=128, multiple=32),
    "memory": Dim(minimum=0, typical=2, maximum=4),
}


@given(height=st.integers(0, 5000), divisor=st.integers(1, 64), offset=st.integers(0, 9))
def test_expressions_are_plain_arithmetic(height, divisor, offset):
    sizes = {"height": height}
    assert evaluate(f"ceil(height/{divisor}) + {offset}", sizes) == math.ceil(height / divisor) + offset
    assert evaluate(f"floor((height+{offset})/{divisor})*2", sizes) == (height + offset) // divisor * 2
    assert evaluate(f"{divisor}*height", sizes) == divisor * height
    if height % divisor:
        with pytest.raises(SizeError, match="a whole number"):
            evaluate(f"height/{divisor}", sizes)
    else:
        assert evaluate(f"height/{divisor}", sizes) == height // divisor


def test_symbols_of_an_expression():
    assert symbols("ceil(height/4)*width") == {"height", "width"}
    assert symbols(7) == set()


@pytest.mark.parametrize(
    "text",
    [
        "height**2", "height//2", "max(height, 2)", "ceil(height, 2)", "ceil(*height)", "height.real", "height[0]",
        "2*3", "'a'", "height and width", "lambda: 0", "__import__('os')", "height/", "(height", "True*height",
        "1.5*height", "h" * 101, "f(height)",
    ],
)  # fmt: skip
def test_anything_else_is_no_size(text):
    with pytest.raises(ValueError, match=r"size|symbol"):
        symbols(text)
    with pytest.raises(ValidationError):
        TensorSpec(name="a", dtype="float32", shape=[text], role="decode")


@pytest.mark.parametrize(("text", "value"), [("height-5", 4), ("height/width", 4)])
def test_a_size_that_cannot_be_is_an_error(text, value):
    with pytest.raises(SizeError, match="a whole number from 0"):
        evaluate(text, {"height": value, "width": 0})


def test_a_symbol_without_a_value_is_named():
    with pytest.raises(SizeError, match="no value of 'width'"):
        evaluate("height*width", {"height": 1})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"minimum": 4, "typical": 2, "maximum": 8}, "ascending order"),
        ({"minimum": 4, "typical": 6, "maximum": 8, "multiple": 4}, "multiples of 4"),
        ({"minimum": -1, "typical": 6, "maximum": 8}, "greater than or equal to 0"),
        ({"minimum": 1, "typical": 6, "maximum": 8, "multiple": 0}, "greater than or equal to 1"),
    ],
)
def test_ranges_must_be_possible(values, message):
    with pytest.raises(ValidationError, match=message):
        Dim(**values)


@given(minimum=st.integers(0, 5), span=st.integers(0, 5), multiple=st.integers(1, 6), size=st.integers(0, 80))
def test_a_range_holds_its_multiples(minimum, span, multiple, size):
    dim = Dim(
        minimum=minimum * multiple, typical=minimum * multiple, maximum=(minimum + span) * multiple, multiple=multiple
    )
    assert (size in dim) == (size in range(minimum * multiple, (minimum + span) * multiple + 1, multiple))


def test_tensors_bind_their_symbols_together():
    found = bind(
        [
            Shaped("pyramid", [256, "height/8", "width/8"], (256, 8, 12)),  # bound by the frames behind it
            Shaped("frames", ["memory", 3, "height", "width"], (0, 3, 64, 96)),
        ],
        DIMS,
    )
    assert found == {"height": 64, "width": 96, "memory": 0}


@pytest.mark.parametrize(
    ("declared", "seen", "message"),
    [
        (["height"], (64, 64), r"\[64, 64\], expected \['height'\]"),
        ([3], (4,), r"\[4\], expected \[3\]"),
        (["height"], (40,), "size 'height': 40, expected 32 to 128, multiples of 32"),
        (["height"], (160,), "size 'height': 160"),
        (["height", "height"], (64, 96), "with height 64"),
        (["height", "height/8"], (64, 9), "with height 64"),
        (["memory"], (5,), "size 'memory': 5, expected 0 to 4"),
    ],
)
def test_a_misfit_names_tensor_and_size(declared, seen, message):
    with pytest.raises(SizeError, match=message) as caught:
        bind([Shaped("frames", declared, seen)], DIMS)
    assert "'frames'" in caught.value.what


def test_known_sizes_are_kept_to():
    with pytest.raises(SizeError, match="with height 64"):
        bind([Shaped("pyramid", ["height/8"], (4,))], DIMS, {"height": 64})


def test_a_state_starts_at_the_sizes_of_the_inputs_and_the_minimum_of_its_own():
    assert initial_sizes(["memory", 256, "height/8"], {"height": 64}, DIMS) == [0, 256, 8]
