"""The C interface of masked convolution: goldens, shapes against float64, masks of all kinds, bad tensors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processors import each_instruction_set
from tests.visdeploy_plugins.masked_conv_support import (
    GOLDENS,
    GRADIENTS,
    SHAPES,
    backward,
    exact_sums,
    forward,
    random_case,
    reference,
)
from tests.visdeploy_plugins.rounding import assert_rounded, assert_typical, round_to
from tests.visdeploy_plugins.support import error, golden, run_on_isa
from visdeploy_plugins import OpError

pytestmark = [pytest.mark.isa, pytest.mark.usefixtures("operators")]


@pytest.fixture(params=["cpu", "emulated cuda"])
def kernels(request):
    """Return the options of forward and backward for the CPU kernels, or for the CUDA kernels on the host."""
    return {} if request.param == "cpu" else {"emulation": request.getfixturevalue("emulation")}


def outside(case):
    return np.broadcast_to(~(case["mask"] > 0)[:, None], case["grad_y"].shape)


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(shared, name, kernels):
    case = golden(shared, name)
    output = forward(case, **kernels)
    assert np.abs(output - case["y"]).max() <= 1e-5
    assert not output[outside(case)].any()
    if "y_im2col" in case:
        assert error(output, case["y_im2col"]) <= 1e-5
    grads = backward(case, **kernels)
    for each in GRADIENTS[: 3 if "grad_bias" in case else 2]:
        assert np.abs(grads[each] - case[each]).max() <= 1e-5, each


@pytest.mark.parametrize("isa", each_instruction_set())
def test_each_instruction_set_equals_golden_and_reference(shared, isa):
    program = (
        "import sys; from pathlib import Path; import numpy as np\n"
        "from tests.visdeploy_plugins import masked_conv_support as m, support as s\n"
        "from visdeploy_plugins import native\n"
        "library, reason = native.load()\n"
        "if library is None: sys.exit(reason)\n"
        "cases = [s.golden(Path(sys.argv[1]), name) for name in m.GOLDENS]\n"
        "for shape in m.SHAPES.values():\n"
        "    case = m.random_case(np.random.default_rng(1), **shape)\n"
        "    output, grads = m.reference(case, grad=True)\n"
        "    cases.append(case | grads | {'y': output})\n"
        "worst = max(s.error(m.forward(c), c['y']) for c in cases)\n"
        "grads = max(s.error(g, c[n]) for c in cases for n, g in m.backward(c).items() if n in c)\n"
        "sys.stdout.write(f'{library.vd_cpu_isa().decode()} {worst} {grads}')\n"
    )
    worst, grads = run_on_isa(program, isa, shared)
    assert worst <= 1e-5
    assert grads <= 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "limit"), [("float64", 1e-13), ("float32", 1e-5)])
def test_equals_reference_in_float64(shape, dtype, limit, kernels):
    case = random_case(np.random.default_rng(2), **SHAPES[shape], dtype=np.dtype(dtype))
    output, grads = reference(case, grad=True)
    seen = forward(case, **kernels)
    assert error(seen, output) <= limit
    assert not seen[outside(case)].any()
    found = backward(case, **kernels)
    for name, grad in grads.items():
        assert error(found[name], grad) <= limit, name


@pytest.mark.parametrize("shape", ["odd sizes", "wide groups", "depthwise", "deep"])
def test_float16_is_rounded_once(shape, kernels):
    case = random_case(np.random.default_rng(3), **SHAPES[shape], dtype=np.float16)
    assert_rounded(forward(case, **kernels), exact_sums(case))


@st.composite
def shapes(draw):
    """Return a valid call: groups that divide, a kernel that fits."""
    groups = draw(st.integers(1, 3))
    kernel, dilation = (tuple(draw(st.integers(1, 3)) for _ in range(2)) for _ in range(2))
    padding = tuple(draw(st.integers(0, 2)) for _ in range(2))
    reach = [dilation[axis] * (kernel[axis] - 1) + 1 - 2 * padding[axis] for axis in range(2)]
    return {
        "channels": groups * draw(st.integers(1, 4)),
        "outputs": groups * draw(st.integers(1, 4)),
        "size": tuple(max(1, each) + draw(st.integers(0, 5)) for each in reach),
        "kernel": kernel,
        "stride": tuple(draw(st.integers(1, 3)) for _ in range(2)),
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "active": draw(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])),
        "bias": draw(st.booleans()),
    }


def test_mean_error_is_that_of_rounded_sums(kernels):
    shape = {"channels": 6, "outputs": 4, "groups": 2}
    cases = [random_case(np.random.default_rng(seed), **shape) for seed in range(200)]
    assert_typical([(forward(case, **kernels), exact_sums(case)) for case in cases])


@pytest.mark.parametrize("bits", [8, 11])
@pytest.mark.parametrize("name", ["x", "weight"])
def test_inputs_of_fewer_bits_are_found(name, bits):
    case = random_case(np.random.default_rng(0), channels=6, groups=2)
    with pytest.raises(AssertionError, match="beyond the limit"):
        assert_rounded(forward(case | {name: round_to(case[name], bits)}), exact_sums(case))


def test_inputs_of_twenty_bits_are_found_in_the_mean():
    cases = [random_case(np.random.default_rng(seed), channels=6, groups=2) for seed in range(200)]
    pairs = [(forward(case | {"x": round_to(case["x"], 20)}), exact_sums(case)) for case in cases]
    with pytest.raises(AssertionError, match="root mean square"):
        assert_typical(pairs)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes())
def test_random_cases_are_rounded_sums(seed, shape):
    case = random_case(np.random.default_rng(seed), **shape, batch=2)
    assert_rounded(forward(case), exact_sums(case))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes())
def test_random_cases_on_emulated_cuda(emulation, seed, shape):
    case = random_case(np.random.default_rng(seed), **shape, batch=2)
    assert_rounded(forward(case, emulation=emulation), exact_sums(case))
    for name, grad in backward(case, emulation=emulation).items():
        assert error(grad, backward(case)[name]) <= 1e-5, name


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes())
def test_ten_thousand_random_cases(seed, shape):
    """Ten samples with masks of their own, each a case, per example."""
    case = random_case(np.random.default_rng(seed), **shape, batch=10)
    assert_rounded(forward(case), exact_sums(case))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), shape=shapes())
def test_random_gradients_equal_the_reference(seed, shape):
    case = random_case(np.random.default_rng(seed), **shape, dtype=np.float64)
    for name, grad in reference(case, grad=True)[1].items():
        assert error(backward(case)[name], grad) <= 1e-12, name


@pytest.mark.parametrize("threads", [2, 3, 64])
@pytest.mark.parametrize("groups", [1, 64])
def test_threads_change_nothing(threads, groups):
    case = random_case(np.random.default_rng(4), batch=2, channels=64, outputs=64, size=(31, 34), groups=groups)
    assert np.array_equal(forward(case), forward(case, threads=threads))
    one, many = backward(case), backward(case, threads=threads)
    assert all(np.array_equal(one[name], many[name]) for name in one)


MASK_VALUES = [np.nan, -np.nan, 0.0, -0.0, -1e-30, -np.inf, np.inf, 1e-45, 3e38]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bool"])
def test_only_positive_mask_values_are_active(dtype, kernels):
    case = random_case(np.random.default_rng(5), size=(3, 3), dtype=np.dtype("float32" if dtype == "bool" else dtype))
    values = np.array(MASK_VALUES).reshape(1, 3, 3)
    with np.errstate(over="ignore", under="ignore"):
        case["mask"] = values > 0 if dtype == "bool" else values.astype(dtype)
    output = forward(case, **kernels)
    expected = [False] * 6 + [True, dtype != "float16", True]  # 1e-45 is 0 in float16
    assert (output != 0).all(1).ravel().tolist() == expected


@pytest.mark.parametrize("mask", ["float32", "bool"])
def test_mask_may_be_float32_or_bool_beside_other_values(mask, kernels):
    case = random_case(np.random.default_rng(6), dtype=np.float16)
    same = forward(case, **kernels)
    case["mask"] = case["mask"] > 0 if mask == "bool" else case["mask"].astype(mask)
    assert np.array_equal(forward(case, **kernels), same)


def test_what_no_active_position_reads_does_not_leak(kernels):
    case = random_case(np.random.default_rng(7), channels=17, outputs=70, size=(6, 8))
    case["mask"][:] = 0
    case["mask"][:, 1, 1] = 1
    clean = forward(case, **kernels)
    case["x"][:, :, 3:], case["x"][:, :, :, 3:] = np.nan, np.inf
    case["grad_y"][:, :, 2:] = np.nan
    assert np.array_equal(forward(case, **kernels), clean)
    grads = backward(case, **kernels)
    assert all(np.isfinite(each).all() for each in grads.values())
    assert not grads["grad_x"][:, :, 3:].any()


def _set(**changed):
    return lambda case: case.update({name: np.array(value) for name, value in changed.items()})


def _dtype(name, dtype):
    return lambda case: case.update({name: case[name].astype(dtype)})


def _cut(name, cut):
    return lambda case: case.update({name: np.ascontiguousarray(cut(case[name]))})


BAD = {
    "non-contiguous": (
        lambda case: case.update(x=np.asfortranarray(case["x"])),
        r"masked_conv: tensor x is not contiguous \(seen: strides \[1, ",
    ),
    "non-contiguous mask": (
        lambda case: case.update(mask=np.asfortranarray(case["mask"])),
        r"tensor mask is not contiguous \(seen: strides \[1, ",
    ),
    "dtype": (_dtype("x", np.int64), r"tensor x has the wrong dtype \(seen: int64; expected: float32 or"),
    "dtypes differ": (_dtype("weight", np.float64), r"tensor weight .*seen: float64; expected: float32"),
    "mask dtype": (_dtype("mask", np.int32), r"mask .*seen: int32; expected: float32 or bool"),
    "unknown mask dtype": (_dtype("mask", np.int8), r"tensor mask .*seen: another dtype"),
    "rank": (_cut("x", lambda a: a[0]), r"tensor x has the wrong number of dimensions \(seen: 3 in"),
    "mask rank": (_cut("mask", lambda a: a[None]), r"tensor mask has the wrong number of dimensions \(seen: 4"),
    "mask size": (_cut("mask", lambda a: a[..., :-1]), r"mask has the wrong shape \(seen: \[1, 5, 5\]; .*\[1, 5, 6\]"),
    "bias": (_cut("bias", lambda a: a[1:]), r"bias has the wrong shape \(seen: \[3\]; expected: \[4\]"),
    "output": (_cut("grad_y", lambda a: a[:, 1:]), r"output has the wrong shape \(seen: \[1, 3, 5, 6\]; expected: \[1"),
    "weight": (_cut("weight", lambda a: a[:, 1:]), r"weight has the wrong shape \(seen: \[4, 3, 3, 3\]; expected: \[4"),
    "groups and channels": (_set(groups=[3]), r"parameter groups \(seen: 3; expected: a divisor of the 4 input and 4 "),
    "groups and outputs": (
        lambda case: (_set(groups=[2])(case), _cut("weight", lambda a: a[1:, :2])(case)),
        r"parameter groups \(seen: 2; expected: a divisor of the 4 input and 3 output channels",
    ),
    "no groups": (_set(groups=[0]), r"parameter groups \(seen: 0"),
    "negative groups": (_set(groups=[-2]), r"parameter groups \(seen: -2"),
    "stride": (_set(stride=[1, -1]), r"parameter stride \(seen: \[1, -1\]; expected: two numbers from 1 to"),
    "zero stride": (_set(stride=[0, 1]), r"parameter stride \(seen: \[0, 1\]"),
    "padding": (_set(padding=[-1, 0]), r"parameter padding \(seen: \[-1, 0\]; expected: two numbers from 0"),
    "huge padding": (_set(padding=[1, 2**62]), r"parameter padding"),
    "dilation": (_set(dilation=[0, 1]), r"parameter dilation \(seen: \[0, 1\]"),
    "huge dilation": (_set(dilation=[1, 2**31 - 1]), r"larger than the padded input \(seen: 4294967295 along axis 3"),
    "no channels": (_cut("x", lambda a: a[:, :0]), r"tensor x has an impossible size \(seen: \[1, 0, 5, 6\]"),
    "no outputs": (_cut("weight", lambda a: a[:0]), r"tensor weight has no output channels"),
    "no taps": (_cut("weight", lambda a: a[..., :0]), r"tensor weight has an impossible size"),
    "kernel too large": (_set(padding=[0, 0], dilation=[3, 1]), r"larger than the padded input \(seen: 7 along axis 2"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tensors_are_named(bad):
    spoil, message = BAD[bad]
    case = random_case(np.random.default_rng(8))
    spoil(case)
    with pytest.raises(OpError, match=message):
        forward(case)


def test_bad_gradients_are_named():
    case = random_case(np.random.default_rng(9))
    case["grad_y"] = case["grad_y"][:, :, :-1].copy()
    with pytest.raises(
        OpError, match=r"grad_output has the wrong shape \(seen: \[1, 4, 4, 6\]; expected: \[1, 4, 5, 6"
    ):
        backward(case)


def test_float16_backward_is_refused_by_name(kernels):
    case = random_case(np.random.default_rng(10), dtype=np.float16)
    with pytest.raises(OpError, match=r"wrong dtype \(seen: float16; expected: float32 or float64\)"):
        backward(case, **kernels)
