"""Location of the goldens and of the real clips."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def shared_folder() -> Path | None:
    """Return the folder of goldens and real clips: $VISDEPLOY_SHARED, else `shared` beside the checkout."""
    folder = Path(os.environ.get("VISDEPLOY_SHARED") or REPOSITORY.parent / "shared")
    return folder if (folder / "goldens").is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of goldens and real data; without it, tests fail in CI and are skipped otherwise."""
    folder = shared_folder()
    if folder is None:
        message = "no goldens and clips: set VISDEPLOY_SHARED to their folder, or put it beside the checkout as shared/"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return folder
