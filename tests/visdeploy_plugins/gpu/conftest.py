"""The device of the GPU tests. They are chosen with `-m gpu`, and fail where there is nothing to run them on."""

import pytest
import torch

from tests.shared_folder import shared
from visdeploy_plugins.torch_ops.binding import why_no_kernel

__all__ = ["shared"]


@pytest.fixture(scope="session", autouse=True)
def device() -> torch.device:
    """Return the first CUDA device, on which our kernels run."""
    if not torch.cuda.is_available():
        pytest.fail('no CUDA device, or a PyTorch without CUDA: leave these tests out with -m "not gpu"')
    found = torch.device("cuda", 0)
    if reason := why_no_kernel(found):
        pytest.fail(f"our kernels do not run on {torch.cuda.get_device_name(found)}: {reason}")
    return found


@pytest.fixture
def memory(device: torch.device):
    """Yield a function that skips the test if the device has less free memory than the given number of bytes."""

    def ask(bytes_: int) -> None:
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        if free < bytes_:
            pytest.skip(f"needs {bytes_ / 2**30:.0f} GiB of free device memory, there are {free / 2**30:.0f}")

    yield ask
    torch.cuda.empty_cache()
