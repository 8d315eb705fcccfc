"""The C interface of deformable convolution: goldens, shapes against float64, hostile offsets, bad tensors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processors import each_instruction_set
from tests.visdeploy_plugins.deform_conv_support import (
    DCN,
    SHAPES,
    backward,
    exact_sums,
    forward,
    random_case,
    reference,
)
from tests.visdeploy_plugins.rounding import assert_rounded, assert_typical, round_to
from tests.visdeploy_plugins.support import error, golden, run_on_isa, tolerances
from visdeploy_plugins import OpError, native

pytestmark = [pytest.mark.isa, pytest.mark.usefixtures("operators")]


@pytest.mark.parametrize("name", DCN)
def test_golden(shared, name):
    case = golden(shared, name)
    assert error(forward(case), case["output"]) <= tolerances(shared)["output"]
    for each, grad in backward(case).items():
        assert error(grad, case[each]) <= tolerances(shared)["gradients"], each


@pytest.mark.parametrize("isa", each_instruction_set())
def test_each_instruction_set_equals_golden_and_reference(shared, isa):
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from tests.visdeploy_plugins import deform_conv_support as d, support as s\n"
        "from visdeploy_plugins import native\n"
        "library, reason = native.load()\n"
        "if library is None: sys.exit(reason)\n"
        "cases = [s.golden(Path(sys.argv[1]), name) for name in d.DCN]\n"
        "for shape in d.SHAPES.values():\n"
        "    case = d.random_case(np.random.default_rng(1), **shape)\n"
        "    output, grads = d.reference(case, grad=True)\n"
        "    cases.append(case | grads | {'output': output})\n"
        "worst = max(s.error(d.forward(c), c['output']) for c in cases)\n"
        "grads = max(s.error(g, c[n]) for c in cases for n, g in d.backward(c).items())\n"
        "sys.stdout.write(f'{library.vd_cpu_isa().decode()} {worst} {grads}')\n"
    )
    worst, grads = run_on_isa(program, isa, shared)
    assert worst <= 1e-5
    assert grads <= 1e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_float64_equals_reference(shape):
    case = random_case(np.random.default_rng(2), **SHAPES[shape], dtype=np.float64)
    output, grads = reference(case, grad=True)
    assert error(forward(case), output) <= 1e-13
    for name, grad in backward(case).items():
        assert error(grad, grads[name]) <= 1e-13, name


@st.composite
def shapes(draw):
    """Return a valid call: groups that divide, a kernel that fits."""
    groups, offset_groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, dilation = (tuple(draw(st.integers(1, 3)) for _ in range(2)) for _ in range(2))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(4))
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 - padding[axis] - padding[axis + 2] for axis in range(2)]
    return {
        "channels": int(np.lcm(groups, offset_groups)) * draw(st.integers(1, 3)),
        "outputs": groups * draw(st.integers(1, 3)),
        "size": tuple(max(1, each) + draw(st.integers(0, 4)) for each in reach),
        "kernel": kernel,
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(2)),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "offset_groups": offset_groups,
        "mask": draw(st.booleans()),
        "bias": draw(st.booleans()),
        "spread": draw(st.sampled_from([0.0, 0.5, 3.0, 1e4])),
    }


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes())
def test_random_cases_are_rounded_sums(seed, shape):
    case = random_case(np.random.default_rng(seed), **shape, batch=2)
    assert_rounded(forward(case), exact_sums(case))


def exact_coordinates(seed):
    """Draw offsets in 64ths of a pixel, so that neither coordinates nor distances are rounded."""
    shape = {"channels": 6, "outputs": 4, "groups": 2, "offset_groups": 3}
    case = random_case(np.random.default_rng(seed), **shape)
    return case | {"offset": np.round(64 * case["offset"]) / 64}


def test_mean_error_is_that_of_rounded_sums():
    cases = [exact_coordinates(seed) for seed in range(200)]
    assert_typical([(forward(case), exact_sums(case)) for case in cases])


@pytest.mark.parametrize("bits", [8, 11])
@pytest.mark.parametrize("name", ["input", "weight", "offset"])
def test_inputs_of_fewer_bits_are_found(name, bits):
    case = random_case(np.random.default_rng(0), channels=6, groups=2)
    with pytest.raises(AssertionError, match="beyond the limit"):
        assert_rounded(forward(case | {name: round_to(case[name], bits)}), exact_sums(case))


def test_inputs_of_twenty_bits_are_found_in_the_mean():
    cases = [exact_coordinates(seed) for seed in range(200)]
    pairs = [(forward(case | {"input": round_to(case["input"], 20)}), exact_sums(case)) for case in cases]
    with pytest.raises(AssertionError, match="root mean square"):
        assert_typical(pairs)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes())
def test_ten_thousand_random_cases(seed, shape):
    """Ten images, each a case of its own, per example."""
    case = random_case(np.random.default_rng(seed), **shape, batch=10)
    assert_rounded(forward(case), exact_sums(case))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes(), integers=st.booleans())
def test_random_gradients_equal_the_reference(seed, shape, integers):
    """Some offsets put points exactly on pixels or on -1, where the definition of the operator decides the gradient."""
    case = random_case(np.random.default_rng(seed), **shape, dtype=np.float64)
    if integers:
        case["offset"] = np.round(case["offset"])
    _, grads = reference(case, grad=True)
    for name, grad in backward(case).items():
        assert error(grad, grads[name]) <= 1e-10, name


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_threads_change_nothing(threads):
    case = random_case(np.random.default_rng(3), batch=2, channels=64, outputs=64, size=(21, 34), offset_groups=2)
    assert np.array_equal(forward(case), forward(case, threads=threads))
    one, many = backward(case), backward(case, threads=threads)
    assert all(np.array_equal(one[name], many[name]) for name in one)


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e4, -1e4, 1e30, -3e38, 2.0**31, -(2.0**63)])
def test_hostile_offsets_contribute_nothing(hostile):
    case = random_case(np.random.default_rng(4), channels=9, size=(4, 5))
    clean = {name: each.copy() for name, each in case.items()}
    clean["mask"][:, 4] = 0
    case["offset"][:, 9] = hostile  # x of tap 4
    assert np.array_equal(forward(case), forward(clean))
    grads = backward(case)
    assert np.isfinite(grads["grad_input"]).all()
    assert np.isfinite(grads["grad_weight"]).all()
    assert not grads["grad_offset"][:, 8:10].any()
    assert not grads["grad_mask"][:, 4].any()


def test_infinite_values_do_not_leak_into_other_places():
    case = random_case(np.random.default_rng(5), channels=17, size=(4, 4), kernel=(1, 1), padding=(0, 0, 0, 0))
    case["input"][:, :, 1:] = np.inf
    case["offset"][:, 0] = -0.5 - np.arange(4)[:, None]  # all rows read half of row 0, and nothing above it
    assert np.isfinite(forward(case)).all()


def test_empty_batch():
    case = random_case(np.random.default_rng(6), batch=0)
    assert forward(case).shape == (0, 4, 5, 6)
    grads = backward(case)
    assert not grads["grad_weight"].any()
    assert not grads["grad_bias"].any()


def _set(**changed):
    return lambda case: case.update({name: np.array(value) for name, value in changed.items()})


def _dtype(name, dtype):
    return lambda case: case.update({name: case[name].astype(dtype)})


def _cut(name, cut):
    return lambda case: case.update({name: np.ascontiguousarray(cut(case[name]))})


BAD = {
    "non-contiguous": (
        lambda case: case.update(input=np.asfortranarray(case["input"])),
        r"deform_conv: tensor input is not contiguous \(seen: strides \[1, ",
    ),
    "dtype": (_dtype("input", np.int64), r"tensor input has the wrong dtype \(seen: int64; expected: float32 or"),
    "dtypes differ": (_dtype("offset", np.float64), r"tensor offset .*seen: float64; expected: float32"),
    "unknown dtype": (_dtype("mask", np.int8), r"tensor mask .*seen: another dtype; expected: float32"),
    "rank": (_cut("input", lambda a: a[0]), r"tensor input has the wrong number of dimensions \(seen: 3 in"),
    "offset channels": (
        _cut("offset", lambda a: a[:, :-1]),
        r"offset has the wrong shape \(seen: \[1, 35, 5, 6\]; exp",
    ),
    "offset size": (_cut("offset", lambda a: a[..., :-1]), r"offset has the wrong shape .*expected: \[1, 36, 5, 6\]"),
    "mask": (_cut("mask", lambda a: a[:, 1:]), r"mask has the wrong shape \(seen: \[1, 17, 5, 6\]; expected: \[1, 18,"),
    "bias": (_cut("bias", lambda a: a[1:]), r"bias has the wrong shape \(seen: \[3\]; expected: \[4\]"),
    "weight": (
        _cut("weight", lambda a: a[:, 1:]),
        r"weight has the wrong shape \(seen: \[4, 1, 3, 3\]; expected: \[4,",
    ),
    "groups and channels": (
        _set(groups=3),
        r"parameter groups \(seen: 3; expected: a divisor of tensor input's 4 chan",
    ),
    "groups and outputs": (
        _cut("weight", lambda a: a[1:]),
        r"groups \(seen: 2; .*divisor of tensor weight's 3 outputs",
    ),
    "offset groups": (_set(deform_groups=3), r"parameter offset_groups \(seen: 3; expected: a divisor of tensor input"),
    "no groups": (_set(groups=0), r"parameter groups \(seen: 0"),
    "negative groups": (_set(deform_groups=-1), r"parameter offset_groups \(seen: -1"),
    "zero stride": (_set(stride=(1, 0)), r"parameter stride \(seen: \[1, 0\]; expected: each at least 1"),
    "negative stride": (_set(stride=(-2, 1)), r"parameter stride \(seen: \[-2, 1\]"),
    "negative padding": (
        _set(padding=(1, 1, 1, -1)),
        r"parameter padding \(seen: \[1, 1, 1, -1\]; expected: each at lea",
    ),
    "zero dilation": (_set(dilation=(0, 1)), r"parameter dilation \(seen: \[0, 1\]"),
    "huge dilation": (_set(dilation=(2**62, 1)), r"parameter dilation \(seen: \[4611686018427387904, 1\]"),
    "kernel too large": (_set(dilation=(1, 4)), r"kernel width with its dilation \(seen: 9; expected: at most .* 8"),
    "no channels": (_cut("input", lambda a: a[:, :0]), r"tensor input \(seen: \[1, 0, 5, 6\]; expected: at least one"),
    "no pixels": (_cut("input", lambda a: a[..., :0]), r"tensor input \(seen: \[1, 4, 5, 0\]; expected: at least one"),
    "no taps": (_cut("weight", lambda a: a[..., :0]), r"tensor weight \(seen: \[4, 2, 3, 0\]; expected: at least one"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_calls_are_named(bad):
    spoil, message = BAD[bad]
    case = random_case(np.random.default_rng(7), groups=2, offset_groups=2)
    spoil(case)
    with pytest.raises(OpError, match=message):
        forward(case)


def test_bad_gradients_are_named():
    case = random_case(np.random.default_rng(8))
    with pytest.raises(OpError, match=r"wrong dtype \(seen: float16; expected: float32 or float64\)"):
        backward({name: each.astype(np.float16) if each.dtype == np.float32 else each for name, each in case.items()})
    case["grad_output"] = case["grad_output"][..., 1:].copy()
    with pytest.raises(
        OpError, match=r"grad_output has the wrong shape \(seen: \[1, 4, 5, 5\]; expected: \[1, 4, 5, 6\]"
    ):
        backward(case)


def test_null_tensors_and_parameters_are_refused():
    library, _ = native.load()
    assert library is not None
    assert library.vd_deform_conv_forward(None, None, None, None, None, None, None, 1) == 1
    assert b"deform_conv: parameters (seen: a null pointer" in library.vd_last_error()
    params = native.DeformConvParams((1, 1), (0,) * 4, (1, 1), 1, 1)
    assert library.vd_deform_conv_forward(None, None, None, None, None, None, params, 1) == 1
    assert b"tensor input (seen: a null pointer" in library.vd_last_error()


def test_mask_without_its_gradient_is_named():
    case = random_case(np.random.default_rng(9))
    with pytest.raises(OpError, match=r"tensor grad_mask \(seen: none; expected: one if there is a mask"):
        backward_without_grad_mask(case)


def backward_without_grad_mask(case):
    from tests.visdeploy_plugins.deform_conv_support import params
    from tests.visdeploy_plugins.support import view

    inputs = [case[name] for name in ("input", "offset", "weight", "mask", "grad_output")]
    grads = [np.empty_like(case[name]) for name in ("input", "offset", "weight")]
    native.call("vd_deform_conv_backward", [*map(view, inputs + grads), None, None], params=params(case))
