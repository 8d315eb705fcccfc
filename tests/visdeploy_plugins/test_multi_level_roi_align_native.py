"""The C interface: goldens, torchvision, random cases against float64, hostile boxes, bad tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processors import each_instruction_set
from tests.visdeploy_plugins.roi_align_support import (
    backward,
    features,
    forward,
    golden_cases,
    random_case,
    settings_of,
)
from tests.visdeploy_plugins.roi_align_torchvision import border_distance, exact_sums, tensors_of, torchvision_align
from tests.visdeploy_plugins.rounding import assert_rounded, round_to
from tests.visdeploy_plugins.support import error, run_on_isa
from visdeploy_plugins import OpError, native
from visdeploy_plugins.torch_ops.multi_level_roi_align_reference import roi_levels

pytestmark = [pytest.mark.isa, pytest.mark.usefixtures("operators")]

KNOWN_SHARE = 0.44  # of the golden's values, which the stored cells of its pyramid determine
WHOLE = [5, 6, 7, 10, 12]  # boxes of which all values are known


@pytest.mark.parametrize("bins", [7, 14])
def test_forward_equals_golden(shared, bins):
    case = golden_cases(shared)[bins]
    output = forward(case)
    known = np.isfinite(output)
    assert known.mean() > KNOWN_SHARE
    assert known[WHOLE].all()
    assert error(output[known], case["expected"][known]) <= 1e-5
    assert np.abs(case["expected"][7]).max() > 1


def test_levels_equal_golden(shared):
    case = golden_cases(shared)[7]
    assert roi_levels(torch.from_numpy(case["rois"]), 4, 56.0).tolist() == case["levels"].tolist()
    for level in range(4):
        case[f"feature{level}"] = np.full_like(case[f"feature{level}"], level + 1)
    inside = [0, 1, 2, 4, 5, 7, 8, 11, 12, 13]
    assert forward(case).max((1, 2, 3))[inside].round().astype(int).tolist() == (case["levels"][inside] + 1).tolist()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("ratio", [1, 2, 3])
@pytest.mark.parametrize("output", [(7, 7), (14, 14), (3, 37), (1, 1)], ids=str)
def test_forward_and_gradients_equal_torchvision(dtype, ratio, output):
    case = random_case(np.random.default_rng(1), rois=40, channels=11, output=output, ratio=ratio, dtype=dtype)
    _equals_torchvision(case, 1e-6 if dtype == "float32" else 1e-13)


def test_adaptive_sampling_equals_torchvision():
    # Upright boxes: torchvision ends the program over one that is turned around.
    case = random_case(np.random.default_rng(2), rois=40, ratio=0)
    low, high = np.minimum(*np.split(case["rois"], 2, 1)), np.maximum(*np.split(case["rois"], 2, 1))
    case["rois"] = np.concatenate([low, high], 1)
    _equals_torchvision(case, 1e-6)


def test_adaptive_sampling_of_turned_or_empty_boxes_is_zero():
    case = random_case(np.random.default_rng(3), rois=4, ratio=0)
    case["rois"][:] = [[50, 60, 10, 12], [50, 12, 10, 60], [10, 60, 50, 12], [20, 20, 20, 50]]
    assert not forward(case).any()
    assert not any(each.any() for each in backward(case))


def _equals_torchvision(case, limit):
    maps, rois, indices = tensors_of(case, grad=True)
    expected = torchvision_align(maps, rois, indices, **settings_of(case))
    assert error(forward(case), expected.detach().numpy()) <= limit
    expected.backward(torch.from_numpy(case["grad_output"]))
    for seen, each in zip(backward(case), maps, strict=True):
        assert error(seen, each.grad.numpy()) <= 10 * limit


@pytest.mark.parametrize("isa", each_instruction_set())
def test_each_instruction_set_equals_golden_and_torchvision(shared, tmp_path, isa):
    for i, (size, output) in enumerate([((96, 160), (7, 7)), ((40, 400), (3, 19)), ((20, 20), (14, 14))]):
        case = random_case(np.random.default_rng(4), image=size, output=output, rois=30)
        case["expected"] = torchvision_align(*tensors_of(case), **settings_of(case)).numpy()
        np.savez(tmp_path / f"{i}.npz", **case)
    program = (
        "import sys; from pathlib import Path; import numpy as np; from visdeploy_plugins import native\n"
        "library, reason = native.load()\n"
        "if library is None: sys.exit(reason)\n"
        "from tests.visdeploy_plugins import roi_align_support as s\n"
        "cases = [*s.golden_cases(Path(sys.argv[1])).values()]\n"
        "cases += [dict(np.load(path)) for path in Path(sys.argv[2]).glob('*.npz')]\n"
        "worst = max(np.nanmax(np.abs(s.forward(case) - case['expected'])) for case in cases)\n"
        "sys.stdout.write(f'{library.vd_cpu_isa().decode()} {len(cases)} {worst}')\n"
    )
    count, worst = run_on_isa(program, isa, shared, tmp_path)
    assert count == 5
    assert worst <= 5e-6


@pytest.mark.slow
@settings(max_examples=1000, deadline=None, database=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    output=st.tuples(st.integers(1, 5), st.integers(1, 20)),
    image=st.tuples(st.integers(1, 60), st.integers(1, 90)),
    levels=st.integers(1, 3),
    ratio=st.integers(1, 3),
)
def test_ten_thousand_random_boxes_are_rounded_sums(seed, output, image, levels, ratio):
    rng = np.random.default_rng(seed)
    finest = float(rng.choice([4.0, 16.0, 56.0]))
    sizes = {"output": output, "image": image, "levels": levels, "ratio": ratio, "finest": finest}
    case = random_case(rng, rois=10, batch=2, channels=2, **sizes)
    # A sample that float32 puts on the other side of the outer border than float64 gives a value or zero: a tie.
    clear = border_distance(case) > 1e-3
    case["rois"], case["batch_indices"] = case["rois"][clear], case["batch_indices"][clear]
    assert_rounded(forward(case), exact_sums(case))


@pytest.mark.parametrize("bits", [8, 11])
@pytest.mark.parametrize("names", [("rois",), ("feature0", "feature1", "feature2", "feature3")], ids=["boxes", "maps"])
def test_inputs_of_fewer_bits_are_found(names, bits):
    case = random_case(np.random.default_rng(13))
    with pytest.raises(AssertionError, match="beyond the limit"):
        assert_rounded(forward(case | {name: round_to(case[name], bits) for name in names}), exact_sums(case))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_is_rounded_once(dtype):
    from visdeploy_plugins.torch_ops import multi_level_roi_align

    case = random_case(np.random.default_rng(5), rois=60, channels=9)
    maps, rois, indices = tensors_of(case, dtype=getattr(torch, dtype))
    halves = {f"feature{level}": each.float().numpy() for level, each in enumerate(maps)}
    output = multi_level_roi_align(maps, rois, indices, **settings_of(case))
    assert output.dtype == getattr(torch, dtype)
    assert_rounded(output.float().numpy(), exact_sums(case | halves), dtype=dtype)


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_threads_change_nothing(threads):
    case = random_case(np.random.default_rng(6), rois=300, channels=40, batch=3, image=(120, 200))
    assert np.array_equal(forward(case), forward(case, threads=threads))
    pairs = zip(backward(case), backward(case, threads=threads), strict=True)
    assert all(np.array_equal(one, many) for one, many in pairs)


@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e9, -1e9, 1e13, 3e38, -3e38])
def test_hostile_boxes_read_nothing_outside_and_disturb_no_others(hostile, ratio):
    rng = np.random.default_rng(7)
    clean = random_case(rng, rois=9, ratio=ratio)
    case = {name: each.copy() for name, each in clean.items()}
    corners = [[hostile, 0, 9, 9], [0, 0, hostile, 9], [0, hostile, 9, hostile], [hostile] * 4, [-9, -9, 9, hostile]]
    case["rois"][2:7] = corners
    others = [0, 1, 7, 8]
    output = forward(case)
    assert np.array_equal(output[others], forward(clean)[others])
    assert np.isfinite(output).all()
    if not abs(hostile) <= 1e12:
        assert not output[2:7].any()
    assert all(np.isfinite(each).all() for each in backward(case))


def test_box_of_1e9_pixels_samples_what_lies_inside():
    case = random_case(np.random.default_rng(8), rois=1, output=(1, 1), ratio=1, levels=1)
    case["rois"][:] = [[-1e9, -1e9, 1e9, 1e9]]
    corner = case["feature0"][case["batch_indices"][0], :, 0, 0]
    np.testing.assert_array_equal(forward(case)[0, :, 0, 0], corner)


@pytest.mark.parametrize("sizes", [{"rois": 0}, {"rois": 0, "batch": 0}, {"image": (1, 1)}, {"channels": 1}], ids=str)
def test_smallest_cases(sizes):
    case = random_case(np.random.default_rng(9), **sizes)
    output = forward(case)
    assert output.shape == case["grad_output"].shape
    assert np.isfinite(output).all()
    grads = backward(case)
    assert all(np.isfinite(each).all() for each in grads)
    if not sizes.get("rois", 1):
        assert not any(each.any() for each in grads)


def test_infinite_values_reach_only_bins_that_take_them():
    case = random_case(np.random.default_rng(10), rois=1, levels=1, output=(4, 40), image=(60, 200))
    case["rois"][:] = [[3, 3, 180, 50]]
    clean = forward(case)
    case["feature0"][:, :, :, 20] = np.inf  # the pixels around 82
    output = forward(case)
    touched = ~np.isfinite(output)
    assert 0 < touched.any((0, 1, 2)).sum() <= 4
    assert np.array_equal(output[~touched], clean[~touched])


def _set(name, value):
    return lambda case: case.update({name: value(case[name])})


BAD = {
    "rank": (_set("feature0", lambda a: a[0]), r"tensor features\[0\] has the wrong number of dimensions \(seen: 3 in"),
    "dtype": (_set("feature0", lambda a: a.astype(np.int64)), r"features\[0\] has the wrong dtype \(seen: int64; exp"),
    "dtypes differ": (_set("feature1", lambda a: a.astype("f8")), r"features\[1\].*seen: float64; expected: float32"),
    "rois dtype": (_set("rois", lambda a: a.astype("f8")), r"tensor rois.*seen: float64; expected: float32"),
    "rois shape": (_set("rois", lambda a: np.hstack([a, a])), r"rois has the wrong shape \(seen: \[12, 8\]; .*12, 4\]"),
    "index dtype": (_set("batch_indices", lambda a: a.astype("i4")), r"batch_indices.*seen: int32; expected: int64"),
    "index length": (_set("batch_indices", lambda a: a[1:]), r"batch_indices has the wrong shape \(seen: \[11\]"),
    "index range": (_set("batch_indices", lambda a: a + 2), r"batch_indices, roi 0 \(seen: \d; expected: 0 to 1\)"),
    "negative index": (_set("batch_indices", lambda a: a - 2), r"batch_indices, roi 0 \(seen: -\d; expected: 0 to 1"),
    "channels differ": (_set("feature2", lambda a: a[:, :2]), r"features\[2\] has the wrong shape"),
    "non-contiguous": (_set("feature3", np.asfortranarray), r"features\[3\] is not contiguous \(seen: strides"),
    "no rows": (_set("feature1", lambda a: a[:, :, :0]), r"features\[1\] \(seen: \[2, 3, 0, 20\]; expected: at least"),
    "no bins": (_set("output_size", lambda a: a * 0), r"output_height \(seen: 0; expected: 1 to 1024\)"),
    "many bins": (_set("output_size", lambda a: [7, 5000]), r"output_width \(seen: 5000; expected: 1 to 1024\)"),
    "ratio": (_set("ratio", lambda a: -1), r"sampling_ratio \(seen: -1; expected: 0 to 1024\)"),
    "scale": (_set("scales", lambda a: -a), r"spatial_scales\[0\] \(seen: -0.25"),
    "NaN scale": (_set("scales", lambda a: a * np.nan), r"spatial_scales\[0\] \(seen: -?nan"),
    "finest": (_set("finest", lambda a: 0.0), r"finest_scale \(seen: 0.000000; expected: above 0"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_arguments_are_named(bad):
    spoil, message = BAD[bad]
    case = random_case(np.random.default_rng(11))
    if "contiguous" not in bad:
        spoil(case)
        case = {name: np.ascontiguousarray(each) if np.ndim(each) else each for name, each in case.items()}
    else:
        spoil(case)
    with pytest.raises(OpError, match=f"multi_level_roi_align: .*{message}"):
        forward(case)


def test_numbers_of_features_and_scales_must_agree():
    case = random_case(np.random.default_rng(12))
    made = native.RoiAlignParams(7, 7, 2, 3, 56.0)
    library, _ = native.load()
    assert library is not None
    with pytest.raises(OpError, match=r"parameter spatial_scales \(seen: 3 scales; expected: 4, one per feature\)"):
        _call(case, made)
    with pytest.raises(OpError, match=r"number of features \(seen: 0; expected: 1 to 8\)"):
        _call({**case, "scales": case["scales"][:0]}, made)


def _call(case, made):
    from tests.visdeploy_plugins.support import view

    tensors = [case["rois"], case["batch_indices"], *features(case), *[None] * (8 - len(case["scales"]))]
    views = [None if each is None else view(each) for each in [*tensors, case["grad_output"]]]
    native.call("vd_multi_level_roi_align_forward", views, params=made)


def test_float16_backward_is_refused_by_name():
    case = random_case(np.random.default_rng(13), dtype="float16")
    with pytest.raises(OpError, match=r"grad_features\[0\].*\(seen: float16; expected: float32 or float64\)"):
        backward(case)


def test_null_tensor_is_refused():
    library, _ = native.load()
    assert library is not None
    assert library.vd_multi_level_roi_align_forward(*[None] * 11, None, 1) == 1
    assert b"multi_level_roi_align: parameters (seen: a null pointer" in library.vd_last_error()
