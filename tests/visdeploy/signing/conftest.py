"""A bundle with an engine, signed."""

from types import SimpleNamespace

import pytest

from tests.visdeploy.backends.engines import entry
from tests.visdeploy.plain_bundle import FILES
from tests.visdeploy.signing.key_files import write_pair
from tests.visdeploy.step_graph import fields
from visdeploy.backends.engine_files import write_entry
from visdeploy.bundle import Bundle, write_bundle
from visdeploy.signing.bundles import sign


@pytest.fixture(scope="session")
def keys(tmp_path_factory):
    """Two pairs of keys."""
    folder = tmp_path_factory.mktemp("keys")
    (private, public), (other_private, other_public) = write_pair(folder), write_pair(folder, "other")
    return SimpleNamespace(private=private, public=public, other_private=other_private, other_public=other_public)


@pytest.fixture
def unsigned(tmp_path):
    made = write_bundle(tmp_path / "a.vis", fields(), FILES | {"weights/part.bin": b"1234"})
    write_entry(made.path, entry("a.plan", b"plan"), b"plan")
    return Bundle.open(made.path)


@pytest.fixture
def signed(unsigned, keys):
    sign(unsigned.path, keys.private)
    return unsigned
