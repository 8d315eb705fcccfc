"""The C interface: goldens, random cases against float64, hostile locations, bad tensors."""

import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processors import each_instruction_set
from tests.visdeploy_plugins.ms_deform_attn_support import exact_sums
from tests.visdeploy_plugins.rounding import assert_rounded
from tests.visdeploy_plugins.support import (
    GRADIENTS,
    INPUTS,
    MSDA,
    backward,
    brute_force,
    error,
    forward,
    golden,
    random_case,
    run_on_isa,
    tolerances,
)
from visdeploy_plugins import OpError, native

pytestmark = [pytest.mark.isa, pytest.mark.usefixtures("operators")]


@pytest.mark.parametrize("name", MSDA)
def test_forward_equals_golden(shared, name):
    case = golden(shared, name)
    assert error(forward(case), case["output"]) <= tolerances(shared)["output"]


@pytest.mark.parametrize("name", MSDA)
def test_gradients_equal_golden(shared, name):
    case = golden(shared, name)
    grads = backward(case)
    for each in GRADIENTS:
        assert error(grads[each], case[each]) <= tolerances(shared)["gradients"], each


@pytest.mark.parametrize("isa", each_instruction_set())
def test_each_instruction_set_equals_golden(shared, isa):
    program = (
        "import sys; from pathlib import Path; from tests.visdeploy_plugins import support as s\n"
        "from visdeploy_plugins import native\n"
        "library, reason = native.load()\n"
        "if library is None: sys.exit(reason)\n"
        "shared = Path(sys.argv[1])\n"
        "cases = [s.golden(shared, name) for name in s.MSDA]\n"
        "worst = max(s.error(s.forward(c), c['output']) for c in cases)\n"
        "grads = max(s.error(s.backward(c)[g], c[g]) for c in cases for g in s.GRADIENTS)\n"
        "sys.stdout.write(f'{library.vd_cpu_isa().decode()} {worst} {grads}')\n"
    )
    worst, grads = run_on_isa(program, isa, shared)
    assert worst <= 1e-5
    assert grads <= 1e-4


LEVELS = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=LEVELS,
    batch=st.integers(0, 2),
    heads=st.integers(1, 3),
    channels=st.sampled_from([1, 2, 3, 4, 7, 8, 12, 16, 31, 32, 48, 61, 64]),
    queries=st.integers(0, 4),
    points=st.integers(1, 5),
    spread=st.sampled_from([0.5, 1.0, 3.0, 1e4]),
)
def test_random_cases_equal_float64(seed, levels, spread, **sizes):
    rng = np.random.default_rng(seed)
    case = random_case(rng, levels, spread=spread, **sizes)
    sums = replace(exact_sums(case), exact=brute_force(case))
    assert_rounded(forward(case), sums)
    wide = {name: each.astype(np.float64) if each.dtype == np.float32 else each for name, each in case.items()}
    assert_rounded(forward(wide), sums)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), levels=LEVELS, channels=st.sampled_from([1, 5, 8, 19]))
def test_gradients_equal_finite_differences(seed, levels, channels):
    rng = np.random.default_rng(seed)
    case = random_case(rng, levels, channels=channels, dtype=np.float64)
    grads = backward(case)
    step = 1e-6
    for name in ("value", "attention_weights", "sampling_locations"):
        direction = rng.standard_normal(case[name].shape)
        if name == "sampling_locations":
            # The op has kinks where a coordinate is an integer: keep only points that stay clear of them.
            pixels = case[name] * case["spatial_shapes"][:, None, ::-1] - 0.5
            clear = np.abs(pixels - np.round(pixels)).min(-1, keepdims=True) > 1e-3
            direction *= clear
        both = [forward({**case, name: case[name] + sign * step * direction}) for sign in (1, -1)]
        numeric = ((both[0] - both[1]) * case["grad_output"]).sum() / (2 * step)
        assert (grads[f"grad_{name}"] * direction).sum() == pytest.approx(numeric, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("threads", [2, 3, 64])
def test_threads_change_nothing(threads):
    case = random_case(np.random.default_rng(1), [(20, 30), (7, 5)], batch=2, channels=32, queries=601, points=4)
    assert np.array_equal(forward(case), forward(case, threads=threads))
    one, many = backward(case), backward(case, threads=threads)
    assert all(np.array_equal(one[name], many[name]) for name in GRADIENTS)


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e4, -1e4, 1e30, -3e38, 2.0**31, -(2.0**63)])
def test_hostile_locations_contribute_nothing(hostile):
    case = random_case(np.random.default_rng(2), [(3, 4), (1, 1)], channels=9, points=3, spread=0.4)
    clean = {name: each.copy() for name, each in case.items()}
    clean["attention_weights"][:, :, :, :, 1] = 0
    case["sampling_locations"][:, :, :, :, 1, 0] = hostile
    assert np.array_equal(forward(case), forward(clean))
    grads = backward(case)
    assert np.isfinite(grads["grad_value"]).all()
    assert not grads["grad_sampling_locations"][:, :, :, :, 1].any()
    assert not grads["grad_attention_weights"][:, :, :, :, 1].any()


def test_infinite_values_do_not_leak_into_other_places():
    case = random_case(np.random.default_rng(3), [(4, 4)], channels=8, points=2)
    case["sampling_locations"][:] = 0.0  # a quarter of the weight is on token 0, the rest lies outside the map
    case["value"][:, 1:] = np.inf
    expected = 0.25 * case["attention_weights"].sum((3, 4))[..., None] * case["value"][:, :1]
    np.testing.assert_allclose(forward(case), expected.reshape(1, 3, -1), rtol=1e-5, atol=1e-6)


def _noncontiguous(case):
    case["value"] = np.asfortranarray(case["value"])


def _unaligned(case):
    bytes_ = np.zeros(case["value"].nbytes + 1, np.uint8)[1:]
    case["value"] = bytes_.view(case["value"].dtype).reshape(case["value"].shape)


def _dtype(name, dtype):
    return lambda case: case.update({name: case[name].astype(dtype)})


def _replace(name, array):
    return lambda case: case.update({name: np.ascontiguousarray(array(case[name]))})


BAD = {
    "non-contiguous": (_noncontiguous, r"ms_deform_attn: tensor value is not contiguous \(seen: strides \[1, "),
    "unaligned": (_unaligned, r"ms_deform_attn: tensor value is not aligned \(seen: an address 1 bytes beyond a mul"),
    "dtype": (_dtype("value", np.int64), r"tensor value has the wrong dtype \(seen: int64; expected: float32 or"),
    "dtypes differ": (_dtype("attention_weights", np.float64), r"attention_weights.*seen: float64; expected: float32"),
    "index dtype": (_dtype("spatial_shapes", np.float32), r"spatial_shapes.*seen: float32; expected: int64 or int32"),
    "index dtypes differ": (_dtype("spatial_shapes", np.int32), r"level_start_index.*seen: int64; expected: int32"),
    "unknown dtype": (_dtype("level_start_index", np.int8), r"level_start_index.*seen: another dtype; expected: int64"),
    "rank": (_replace("value", lambda a: a[0]), r"tensor value has the wrong number of dimensions \(seen: 3 in"),
    "heads": (
        _replace("sampling_locations", lambda a: a[:, :, :1]),
        r"sampling_locations.*expected: \[1, 3, 2, 2, 2, 2",
    ),
    "weights": (_replace("attention_weights", lambda a: a[..., :1]), r"attention_weights.*seen: \[1, 3, 2, 2, 1\]"),
    "tokens missing": (_replace("value", lambda a: a[:, :-1]), r"spatial_shapes, level 1 does not fit into value"),
    "tokens left": (
        _replace("spatial_shapes", lambda a: a - [[0, 0], [1, 0]]),
        r"value has more tokens .*seen: 14; exp.*: 13",
    ),
    "zero level": (
        _replace("spatial_shapes", lambda a: a * [[0], [1]]),
        r"level 0 \(seen: \[0, 0\]; expected: a height",
    ),
    "negative level": (_replace("spatial_shapes", lambda a: -a), r"spatial_shapes, level 0 \(seen: \[-3, -4\]"),
    "huge level": (_replace("spatial_shapes", lambda a: a + 2**62), r"level 0 does not fit"),
    "start": (_replace("level_start_index", lambda a: a + 1), r"level_start_index, level 0 \(seen: 1; expected: 0\)"),
    "no points": (lambda case: case.update(_no_points(case)), r"at least one head, channel, level and point"),
}


def _no_points(case):
    shrunk = {"sampling_locations": case["sampling_locations"][:, :, :, :, :0]}
    return shrunk | {"attention_weights": case["attention_weights"][..., :0]}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tensors_are_named(bad):
    spoil, message = BAD[bad]
    case = random_case(np.random.default_rng(4), [(3, 4), (2, 1)])
    spoil(case)
    with pytest.raises(OpError, match=message):
        forward(case)


def test_float16_backward_is_refused_by_name():
    case = random_case(np.random.default_rng(5), [(3, 4)], dtype=np.float16)
    with pytest.raises(OpError, match=r"wrong dtype \(seen: float16; expected: float32 or float64\)"):
        backward(case)


def test_wrong_output_shape_is_named():
    case = random_case(np.random.default_rng(6), [(3, 4)])
    case["grad_output"] = case["grad_output"][:, :, :-1].copy()
    with pytest.raises(OpError, match=r"grad_output has the wrong shape \(seen: \[1, 3, 7\]; expected: \[1, 3, 8\]\)"):
        backward(case)


def _halves():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    return np.concatenate([every, np.float16([65504, 6e-8, -0.0])])


def test_every_half_survives_the_kernel():
    """One map per half, sampled at its centre with weight one: loads and stores must be exact."""
    values = _halves()
    count = len(values)
    case = random_case(np.random.default_rng(7), [(1, 1)], batch=count, heads=1, channels=1, queries=1, points=1)
    case = {name: each.astype(np.float16) if each.dtype == np.float32 else each for name, each in case.items()}
    case["value"][:] = values[:, None, None, None]
    case["sampling_locations"][:] = 0.5
    case["attention_weights"][:] = 1
    np.testing.assert_array_equal(forward(case)[:, 0, 0], values)


def test_half_rounds_to_nearest():
    rng = np.random.default_rng(8)
    wide = np.concatenate([rng.standard_normal(2000) * 10.0 ** rng.integers(-9, 6, 2000), [65519.0, 65520.0, 1e9]])
    case = random_case(rng, [(1, 1)], batch=len(wide), heads=1, channels=1, queries=1, points=2)
    case = {name: each.astype(np.float16) if each.dtype == np.float32 else each for name, each in case.items()}
    case["sampling_locations"][:] = 0.5
    # value * 1 + value * small, summed in float32, rounded once at the end
    with np.errstate(over="ignore"):
        value = wide.astype(np.float16)
    case["value"][:] = value[:, None, None, None]
    case["attention_weights"][..., 0], case["attention_weights"][..., 1] = 1, np.float16(0.3)
    total = value.astype(np.float32) + value.astype(np.float32) * np.float32(np.float16(0.3))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(forward(case)[:, 0, 0], total.astype(np.float16))


def test_unknown_instruction_set_is_named():
    program = "import sys; from visdeploy_plugins import native; sys.stdout.write(native.load()[1])"
    env = {**os.environ, "VISDEPLOY_PLUGINS_ISA": "mmx", "PYTHONPATH": ":".join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert "VISDEPLOY_PLUGINS_ISA (seen: mmx; expected: " in done.stdout


def test_null_tensor_is_refused():
    library, _ = native.load()
    assert library is not None
    assert library.vd_ms_deform_attn_forward(None, None, None, None, None, None, 1) == 1
    assert b"tensor value (seen: a null pointer" in library.vd_last_error()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
@pytest.mark.parametrize("channels", [1, 5, 12, 32, 61])
def test_many_queries_equal_few(channels, dtype):
    """Many queries take packed maps, a few go straight to value; shapes decide, so both must agree."""
    levels = [(7, 9), (4, 5), (1, 1)]
    case = random_case(np.random.default_rng(9), levels, batch=2, channels=channels, queries=300, dtype=dtype)
    many = forward(case)
    few = [forward({**case, **_queries(case, slice(q, q + 2))}) for q in range(0, 300, 2)]
    limit = {np.float32: 1e-6, np.float64: 1e-14, np.float16: 1e-3}[dtype]
    assert error(np.concatenate(few, 1), many) <= limit


def _queries(case, which):
    return {name: np.ascontiguousarray(case[name][:, which]) for name in (*INPUTS[3:], "grad_output")}


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e30, -3e38, 2.0**31])
def test_hostile_locations_among_many_contribute_nothing(hostile):
    case = random_case(np.random.default_rng(10), [(3, 4), (1, 1)], channels=9, points=3, spread=0.4, queries=200)
    clean = {name: each.copy() for name, each in case.items()}
    clean["attention_weights"][:, :, :, :, 1] = 0
    case["sampling_locations"][:, :, :, :, 1, 1] = hostile
    assert np.array_equal(forward(case), forward(clean))
    case["value"][:] = np.inf
    case["sampling_locations"][:] = hostile
    assert not forward(case).any()


@pytest.mark.parametrize("queries", [3, 300])
def test_float_points_beside_half_values(emulation, queries):
    """Locations that half precision would round to another place."""
    case = random_case(np.random.default_rng(12), [(30, 40)], channels=8, queries=queries, spread=0.5)
    case |= {name: case[name].astype(np.float16) for name in ("value", "grad_output")}
    exact = brute_force(case)
    emulated = np.empty_like(case["grad_output"])
    emulation("vd_ms_deform_attn_forward", [*(case[name] for name in INPUTS), emulated])
    for output in (forward(case), emulated):
        assert (np.abs(output - exact) <= 0.51 * 2**-10 * np.abs(exact) + 1e-5).all()
    halves = {name: case[name].astype(np.float16) for name in INPUTS[3:]}
    assert np.abs(forward({**case, **halves}) - exact).max() > 1e-2


def test_int32_index_tensors(emulation):
    case = random_case(np.random.default_rng(13), [(3, 4), (2, 2)])
    narrow = {**case, **{name: case[name].astype(np.int32) for name in INPUTS[1:3]}}
    assert np.array_equal(forward(narrow), forward(case))
    output = np.empty_like(case["grad_output"])
    emulation("vd_ms_deform_attn_forward", [*(narrow[name] for name in INPUTS), output])
    assert error(output, forward(case)) <= 1e-6
