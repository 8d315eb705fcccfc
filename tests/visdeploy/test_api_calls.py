"""Wrong arguments of every public function: each call works or raises one error of the family."""

import logging

import pytest

from tests.campaigns.api_calls import GROUPS, Inputs, group_calls, outcome

LEAST = {
    "results": 1600, "predictions": 1000, "evaluation": 1000, "formats": 700, "pictures": 500, "sources": 900,
    "exports": 250, "others": 150,
}  # fmt: skip
"""Number of calls that each group has at least."""
WITHOUT_GOOD = {"verify with good arguments", "export with good arguments"}
"""Functions whose good arguments fail here: the bundle has no real self-test, and there is no checkpoint."""


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    pytest.importorskip("onnx")
    return Inputs.make(tmp_path_factory.mktemp("calls"))


@pytest.mark.parametrize("group", GROUPS)
def test_every_call_works_or_raises_a_typed_error(inputs, group, caplog):
    caplog.set_level(logging.CRITICAL)
    if group == "exports":
        pytest.importorskip("torch")
    found = {name: outcome(call) for name, call in group_calls(group, inputs)}
    raw = {name: how for name, how in found.items() if how.startswith("raw")}
    assert not raw
    good = {name: how for name, how in found.items() if name.endswith("with good arguments")}
    assert {name for name, how in good.items() if how != "works"} <= WITHOUT_GOOD
    assert len(found) >= LEAST[group]
