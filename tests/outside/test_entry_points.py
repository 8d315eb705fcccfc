"""Methods of other packages: found by their entry points, and named in the error if they cannot be used."""

import sys
from types import SimpleNamespace

import pytest
import torch

from tests.outside.packages import lay_out, on_path
from visdeploy.entry_points import EXPORT_METHODS, METHODS, TRAINING_METHODS
from visdeploy.errors import BundleError, ConfigError, DependencyError
from visdeploy.methods import DECODERS, decoder_class
from visdeploy_export.methods import BUILDERS, build_step
from visdeploy_training import convert_checkpoint, get_method
from visdeploy_training.model import ModelInfo


def build(method):
    return build_step(SimpleNamespace(info=ModelInfo(method, "small", ("cat",))))


LOOK_UP = {METHODS: decoder_class, TRAINING_METHODS: get_method, EXPORT_METHODS: build}
GROUPS = list(LOOK_UP)


@pytest.fixture
def install(tmp_path):
    """Yield a function that puts packages with one entry point, `other`, on the import path."""
    path = []

    def add(group, value, *, package="other-package", name="other", **modules):
        site = lay_out(tmp_path / package, package, {group: {name: value}}, modules=modules)
        path.append(on_path(site))
        path[-1].__enter__()

    yield add
    for each in reversed(path):
        each.__exit__(None, None, None)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize(
    ("value", "source", "cause"),
    [
        ("gone:THING", "", "ModuleNotFoundError: No module named 'gone'"),
        ("module:THING", "", "AttributeError: module 'module' has no attribute 'THING'"),
        ("module:THING", "import no_such_library", "No module named 'no_such_library'"),
        ("module:THING", "raise RuntimeError('needs a newer driver')", "RuntimeError: needs a newer driver"),
        ("module:THING", "THING = = 1", "SyntaxError"),
        ("module THING", "THING = 1", "module THING"),
    ],
)
def test_an_entry_point_that_fails_to_load(install, group, value, source, cause):
    install(group, value, module=source)
    with pytest.raises(DependencyError) as caught:
        LOOK_UP[group]("other")
    text = str(caught.value)
    for part in ("'other'", repr(value), "'other-package'", repr(group), cause):
        assert part in text


DECODER = "from visdeploy.methods.visolo import VisoloDecoder as THING"
METHOD = (
    "from dataclasses import replace\nfrom visdeploy_training.methods.visolo import METHOD\nTHING = replace(METHOD, "
)
WRONG = [
    (METHODS, "THING = 7", "a subclass of visdeploy.methods.Decoder"),
    (METHODS, "class THING: pass", "a subclass of visdeploy.methods.Decoder"),
    (METHODS, "def THING(*args, **options): return None", "a subclass of visdeploy.methods.Decoder"),
    (TRAINING_METHODS, "THING = 'other'", "Method with the name 'other'"),
    (TRAINING_METHODS, f"{METHOD}name='another')", "Method with the name 'other'"),
    (TRAINING_METHODS, f"{METHOD}name='other')\ndef THING(made=THING): return made", "Method with the name 'other'"),
    (EXPORT_METHODS, "THING = {}", "a function from a network to a visdeploy_export.step.StepGraph"),
    (EXPORT_METHODS, "def THING(model): return model", "a visdeploy_export.step.StepGraph"),
]


@pytest.mark.parametrize(("group", "source", "expected"), WRONG)
def test_an_entry_point_of_the_wrong_kind(install, group, source, expected):
    install(group, "module:THING", module=source)
    with pytest.raises(DependencyError) as caught:
        LOOK_UP[group]("other")
    assert caught.value.expected.endswith(expected)
    assert "'other'" in caught.value.what
    assert caught.value.seen


RIGHT = [(METHODS, DECODER), (TRAINING_METHODS, f"{METHOD}name='other')")]


@pytest.mark.parametrize(("group", "source"), RIGHT)
def test_an_entry_point_of_the_right_kind(install, group, source):
    install(group, "module:THING", module=source)
    assert LOOK_UP[group]("other") is sys.modules["module"].THING


@pytest.mark.parametrize("group", GROUPS)
def test_two_packages_that_give_one_name(install, group):
    install(group, "module:THING", module=DECODER)
    install(group, "rival:THING", package="rival-package", rival=DECODER)
    with pytest.raises(DependencyError, match=r"several packages give 'other'.*other-package, rival-package"):
        LOOK_UP[group]("other")


def test_one_package_that_is_installed_twice(install):
    """As with a development install that shadows another copy."""
    install(METHODS, "module:THING", module=DECODER)
    install(METHODS, "module:THING", package="other_package", module=DECODER)
    assert issubclass(decoder_class("other"), DECODERS["visolo"])


@pytest.mark.parametrize(
    ("group", "error"), [(METHODS, BundleError), (TRAINING_METHODS, ConfigError), (EXPORT_METHODS, ConfigError)]
)
def test_an_unknown_method(install, group, error):
    install(group, "module:THING", module="")
    with pytest.raises(error, match="unheard") as caught:
        LOOK_UP[group]("unheard")
    for name in ("defvis", "other", "visolo"):
        assert name in caught.value.expected, "methods of all packages are offered"


@pytest.mark.parametrize("group", GROUPS)
def test_the_methods_of_visdeploy_cannot_be_replaced(install, group):
    install(group, "module:THING", name="visolo", module="raise RuntimeError('must not be imported')")
    assert decoder_class("visolo") is DECODERS["visolo"]
    assert get_method("visolo").name == "visolo"
    with pytest.raises(TypeError, match="takes a VISOLO network"):  # from the builder of visdeploy
        build("visolo")
    assert set(BUILDERS) == set(DECODERS)


def test_a_broken_package_does_not_hide_the_methods_of_visdeploy(install):
    """Official checkpoints are recognised by asking the methods in turn, those of visdeploy first."""
    install(TRAINING_METHODS, "gone:METHOD", name="a_first_one")
    weight = torch.zeros(3, 256, 3, 3)
    state = {"model.Category_branch_post.pred.weight": weight, "model.Memory_module.conv1.weight": weight}
    assert convert_checkpoint(state).method == "visolo"
    with pytest.raises(DependencyError, match="a_first_one"):
        convert_checkpoint({"unknown": torch.zeros(1)})
