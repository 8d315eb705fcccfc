"""The fused op through the C interface, on the CPU and as CUDA kernels compiled for the host."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.processors import each_instruction_set
from tests.visdeploy_plugins.ms_deform_attn_fused_support import FUSED_INPUTS, forward_fused, fused_case, unfused
from tests.visdeploy_plugins.support import error, forward, run_on_isa
from visdeploy_plugins import OpError

pytestmark = [pytest.mark.isa, pytest.mark.usefixtures("operators")]
LEVELS = [(6, 5), (3, 3), (1, 2)]


def emulated(emulation, case):
    output = np.empty(case["grad_output"].shape, case["value"].dtype)
    output.view(np.uint8).fill(0xFF)
    emulation("vd_ms_deform_attn_fused_forward", [*(case[name] for name in FUSED_INPUTS), output])
    return output


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    levels=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 7)), min_size=1, max_size=4),
    reference_size=st.sampled_from([2, 4]),
    batch=st.integers(0, 2),
    heads=st.integers(1, 3),
    channels=st.sampled_from([1, 3, 8, 16, 31, 32, 48]),
    queries=st.sampled_from([0, 1, 3, 40]),
    points=st.integers(1, 9),
)
def test_random_cases_equal_float64(emulation, seed, levels, **sizes):
    case = fused_case(np.random.default_rng(seed), levels, **sizes)
    exact = forward(unfused(case))
    assert error(forward_fused(case), exact) <= 1e-5
    assert error(emulated(emulation, case), exact) <= 1e-5
    wide = {name: each.astype(np.float64) if each.dtype == np.float32 else each for name, each in case.items()}
    assert error(forward_fused(wide), exact) <= 1e-13
    assert error(emulated(emulation, wide), exact) <= 1e-13


@pytest.mark.parametrize("isa", each_instruction_set())
def test_each_instruction_set_equals_float64(isa):
    program = (
        "import sys, numpy as np; from tests.visdeploy_plugins import ms_deform_attn_fused_support as f, support as s\n"
        "from visdeploy_plugins import native\n"
        "library, reason = native.load()\n"
        "if library is None: sys.exit(reason)\n"
        "worst = 0.0\n"
        "for queries in (3, 500):\n"  # few: straight from value; many: packed maps
        "    for channels in (1, 12, 48):\n"
        "        case = f.fused_case(np.random.default_rng(0), [(6, 5), (3, 3)], channels=channels, queries=queries)\n"
        "        worst = max(worst, s.error(f.forward_fused(case), s.forward(f.unfused(case))))\n"
        "sys.stdout.write(f'{library.vd_cpu_isa().decode()} {worst}')\n"
    )
    assert run_on_isa(program, isa)[0] <= 1e-5


@pytest.mark.parametrize("queries", [3, 700])
@pytest.mark.parametrize("wide", [(), ("reference_points",), FUSED_INPUTS[3:]], ids=["half", "references", "points"])
def test_half_is_as_good_as_its_inputs(emulation, queries, wide):
    case = fused_case(np.random.default_rng(41), LEVELS, channels=19, queries=queries, dtype=np.float16)
    case |= {name: case[name].astype(np.float32) for name in wide}
    exact = forward(unfused(case))
    for output in (forward_fused(case), emulated(emulation, case)):
        assert output.dtype == np.float16
        assert (np.abs(output - exact) <= 0.51 * 2**-10 * np.abs(exact) + 1e-5).all()


@pytest.mark.parametrize("queries", [3, 700])
def test_threads_change_nothing(queries):
    case = fused_case(np.random.default_rng(42), LEVELS, batch=2, channels=32, queries=queries, points=4)
    assert np.array_equal(forward_fused(case), forward_fused(case, threads=3))


def test_extreme_logits(emulation):
    case = fused_case(np.random.default_rng(43), LEVELS, queries=4, points=3)
    logits = case["attention_logits"]
    logits[0, 0] = -np.inf
    logits[0, 0, :, 1, 2] = 5  # the only point that counts
    logits[0, 1] += 1e4
    logits[0, 2, :, 0] = -200
    exact = forward(unfused(case))
    assert error(forward_fused(case), exact) <= 1e-4  # 1e4 + logit has float32 steps of 1e-3
    assert error(emulated(emulation, case), exact) <= 1e-4
    logits[0, 3, 1] = -np.inf  # a softmax of nothing
    logits[0, 3, 0, 0, 0] = np.nan
    for output in (forward_fused(case), emulated(emulation, case)):
        assert np.isnan(output[0, 3]).all()
        assert np.isfinite(output[0, :3]).all()


@pytest.mark.parametrize("hostile", [np.nan, np.inf, -np.inf, 1e30, -3e38])
@pytest.mark.parametrize("name", ["reference_points", "sampling_offsets"])
def test_hostile_coordinates_contribute_nothing(emulation, name, hostile):
    for queries in (2, 400):
        case = fused_case(np.random.default_rng(44), LEVELS, queries=queries, reference_size=4)
        case[name][..., 0] = hostile
        if name == "reference_points":
            case[name][..., 2] = 0
        assert not forward_fused(case).any()
        assert not emulated(emulation, case).any()


BAD = {
    "references": ("reference_points", lambda a: a[..., :1], r"reference_points.*seen: .*1\]; expected: .*3, 2\]"),
    "references' levels": ("reference_points", lambda a: a[:, :, 1:], r"reference_points.*seen: \[1, 3, 2, 2\]"),
    "references' dtype": ("reference_points", lambda a: a.astype(np.float16), "reference_points has the wrong dtype"),
    "offsets": ("sampling_offsets", lambda a: a[..., :1], "sampling_offsets has the wrong shape"),
    "offsets' dtype": ("sampling_offsets", lambda a: a.astype(np.float16), r"sampling_offsets.*expected: float32\)"),
    "logits": ("attention_logits", lambda a: a[:, :, :1], r"attention_logits has the wrong shape"),
    "logits' dtype": ("attention_logits", lambda a: a.astype(np.float64), r"attention_logits has the wrong dtype"),
    "levels": ("spatial_shapes", lambda a: a + 1, "level 0 does not fit into value"),
}


@pytest.mark.parametrize("bad", BAD)
def test_bad_tensors_are_named(bad):
    name, spoil, message = BAD[bad]
    case = fused_case(np.random.default_rng(45), LEVELS)
    case[name] = np.ascontiguousarray(spoil(case[name]))
    if bad == "levels":
        case[name][0] = 9
    with pytest.raises(OpError, match=f"ms_deform_attn_fused: tensor .*{message}"):
        forward_fused(case)
