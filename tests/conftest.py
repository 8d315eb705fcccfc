"""Fixtures for all test folders."""

import pytest
from hypothesis import settings

from tests.bundles import tiny_bundle, tiny_checkpoint, tiny_export
from tests.processor_time import ProcessorTime
from tests.processors import Capabilities
from tests.shared_folder import REPOSITORY, shared, shared_folder

__all__ = ["REPOSITORY", "shared", "shared_folder", "tiny_bundle", "tiny_checkpoint", "tiny_export"]

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--processor-times", type=int, default=0, help="list so many tests by their processor time")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "campaign: takes minutes or hours; runs with `make campaign` alone")
    config.addinivalue_line("markers", "isa: numerically sensitive; runs again with the libraries held to less")
    config.addinivalue_line("markers", "needs_isa(name): needs a processor with that instruction set")
    config.pluginmanager.register(Capabilities())
    config.pluginmanager.register(ProcessorTime(config.getoption("--processor-times")))
