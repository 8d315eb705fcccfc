"""Fixtures that every test folder shares."""

from hypothesis import settings

from tests.bundles import tiny_bundle, tiny_checkpoint
from tests.shared_folder import REPOSITORY, shared, shared_folder

__all__ = ["REPOSITORY", "shared", "shared_folder", "tiny_bundle", "tiny_checkpoint"]

settings.register_profile("no deadline", deadline=None)  # a busy machine is no failure
settings.load_profile("no deadline")
