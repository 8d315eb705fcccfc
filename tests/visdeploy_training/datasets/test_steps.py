"""Lists of transforms as recipes spell them, and transforms of other packages."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from tests.visdeploy_training.material import square_clip
from visdeploy.errors import ConfigError
from visdeploy_training.datasets.transforms import (
    Chain,
    Choice,
    ColourJitter,
    Crop,
    Flip,
    MovingWindow,
    PhotometricDistort,
    Resize,
    Rotate,
    Step,
    Transform,
    find_transform,
    register,
    transform_names,
)

STEPS = TypeAdapter(list[Step])


def test_steps_keep_their_order_and_are_spelled_again_as_they_were():
    spelled = [
        {"resize": {"shorter": [40, "input"], "longest": 90, "larger_than": None}},
        {"choice": {"of": [[], [{"flip": {"mode": "frame"}}]], "weights": [1.0, 3.0]}},
        {"crop": {"height": "input", "width": 60}},
    ]
    steps = STEPS.validate_python(spelled)
    assert steps == [
        Resize(shorter=[40, "input"], longest=90),
        Choice(of=[[], [Flip(mode="frame")]], weights=[1, 3]),
        Crop(width=60),
    ]
    assert STEPS.dump_python(steps, mode="json") == spelled


def test_a_name_alone_takes_the_defaults():
    assert STEPS.validate_python(["photometric_distort", {"flip": None}, {"crop": {}}]) == [
        PhotometricDistort(),
        Flip(),
        Crop(),
    ]


@pytest.mark.parametrize(
    ("spelled", "place", "message"),
    [
        ({"bend": {}}, (0,), "unknown transform.*'bend'.*moving_window"),
        ({"flip": {}, "crop": {}}, (0,), "one transform"),
        (3, (0,), "one transform"),
        ({"resize": {"shorter": "small"}}, (0, "resize", "shorter"), "valid tuple"),
        ({"resize": {"shorter": []}}, (0, "resize", "shorter"), "at least 1 item"),
        ({"resize": {"shorter": [0]}}, (0, "resize", "shorter", 0), "number of pixels"),
        ({"resize": {"shorter": [480], "longest": "inputs"}}, (0, "resize", "longest"), "or `input`"),
        ({"resize": {"sizes": [480]}}, (0, "resize", "shorter"), "required"),
        ({"flip": {"by": "clip"}}, (0, "flip", "by"), "not permitted"),
        ({"flip": {"mode": "half"}}, (0, "flip", "mode"), "'clip' or 'frame'"),
        ({"flip": 3}, (0, "flip"), "valid dictionary"),
        ({"rotate": {"degrees": 200}}, (0, "rotate", "degrees"), "180"),
        ({"crop_between": {"smallest": 9, "largest": 5}}, (0, "crop_between"), "must not exceed largest"),
        ({"colour_jitter": {"strength": 2}}, (0, "colour_jitter", "strength"), "less than or equal"),
        ({"photometric_distort": {"hue": [0.1, -0.1]}}, (0, "photometric_distort"), "hue: the first number"),
        ({"moving_window": {"zoom": [1, 0.5]}}, (0, "moving_window"), "zoom: the first number"),
        ({"rescale": {"limits": [[640]]}}, (0, "rescale", "limits", 0, 1), "required"),
        ({"choice": {"of": [["flip"], [{"bend": {}}]]}}, (0, "choice", "of", 1, 0), "unknown transform"),
        ({"choice": {"of": [["flip"], []], "weights": [1]}}, (0, "choice"), "one for each list"),
    ],
)
def test_wrong_steps_are_named_by_their_place(spelled, place, message):
    with pytest.raises(ValidationError, match=f"(?s){message}") as error:
        STEPS.validate_python([spelled])
    assert place in [item["loc"] for item in error.value.errors()]


def test_a_choice_draws_by_its_weights():
    torch.manual_seed(0)
    lists = [[Crop(height=8, width=8)], [Crop(height=9, width=9)], []]
    even, uneven = Choice(of=lists), Choice(of=lists, weights=[0.2, 0.8, 0])
    drawn = [[choice(square_clip(1))[0][0].shape[1] for _ in range(100)] for choice in (even, uneven)]
    assert set(drawn[0]) == {8, 9, 60}
    assert set(drawn[1]) == {8, 9}
    assert 65 <= drawn[1].count(9) <= 95


@pytest.mark.parametrize(
    ("steps", "size"),
    [
        ([], None),
        ([Crop(), Flip(), ColourJitter(strength=0.1)], ("input", "input")),
        ([Crop(height=8), Rotate()], None),
        ([Rotate(), MovingWindow(width=9)], ("input", 9)),
        ([Crop(), Resize(shorter=[9])], None),
        ([Crop(), Choice(of=[[], [Flip()]])], ("input", "input")),
        ([Choice(of=[[Crop()], [MovingWindow()]])], ("input", "input")),
        ([Choice(of=[[Crop()], [Crop(width=9)]])], None),
    ],
)
def test_the_size_behind_a_list_is_known_where_it_is_one(steps, size):
    chain = Chain(steps)
    assert chain.output_size() == size
    if size is not None:
        shapes = {i.shape[1:] for seed in range(4) for i, _ in Chain(steps).sized(30, 40)(square_clip(2))}
        assert shapes == {tuple(own if s == "input" else s for s, own in zip(size, (30, 40), strict=True))}


PACKAGE = '''
from typing import ClassVar
from visdeploy_training.datasets.transforms import Transform

class Invert(Transform):
    """Turn colours into their opposites."""
    name: ClassVar[str] = "invert"
    most: int = 255
    def __call__(self, clip):
        return [(self.most - image, masks) for image, masks in clip]

class Other(Transform):
    name: ClassVar[str] = "another_name"
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Install a package that declares transforms as entry points."""

    def install(name, **entries):
        folder = tmp_path / name
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir(parents=True)
        (folder / f"{name}.py").write_text(PACKAGE)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"{entry} = {value}" for entry, value in entries.items()]
        (info / "entry_points.txt").write_text("\n".join(["[visdeploy.transforms]", *lines, ""]))
        monkeypatch.syspath_prepend(folder)

    return install


def test_a_transform_of_another_package_is_found_by_its_entry_point(package):
    package("inverting", invert="inverting:Invert", broken="nowhere:Broken")
    assert {"invert", "broken", "flip"} <= set(transform_names())  # nothing is loaded for the list
    (step,) = STEPS.validate_python([{"invert": {"most": 200}}])
    assert isinstance(step, Transform)
    assert STEPS.dump_python([step]) == [{"invert": {"most": 200}}]
    assert int(step(square_clip(1))[0][0].min()) == 140  # of the grey 60
    with pytest.raises(ValidationError) as error:
        STEPS.validate_python([{"invert": {"most": "much"}}])
    assert error.value.errors()[0]["loc"] == (0, "invert", "most")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("nowhere:Broken", "'bad' cannot be loaded.*bad = nowhere:Broken of wrong.*No module named 'nowhere'"),
        ("wrong:Missing", "'bad' cannot be loaded.*Missing"),
        ("wrong:PACKAGE_PATH", "'bad' cannot be loaded"),
        ("wrong:Other", "is not the transform 'bad'.*Other"),
        ("json:dumps", "is not the transform 'bad'.*dumps"),
    ],
)
def test_an_entry_point_that_cannot_serve_is_named(package, value, message):
    package("wrong", bad=value)
    with pytest.raises(ConfigError, match=message):
        find_transform("bad")
    with pytest.raises(ValidationError, match=message):
        STEPS.validate_python(["flip", "bad"])


def test_two_entry_points_of_one_name_are_refused(package):
    package("first", invert="first:Invert")
    package("second", invert="second:Invert")
    with pytest.raises(ConfigError, match=r"several packages.*(first.*second|second.*first)"):
        find_transform("invert")


def test_a_built_in_name_cannot_be_taken(package):
    package("flipping", flip="nowhere:Flip")
    assert find_transform("flip") is Flip
    with pytest.raises(ConfigError, match=r"the same name.*flip"):
        register(Flip)
