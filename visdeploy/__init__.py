"""Training, export and inference of video instance segmentation models.

The names in `__all__` are the public interface. They are imported on first use, so that `import visdeploy` is fast and
never imports torch. Only `visdeploy.export` needs the extra `export`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from visdeploy.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    DataError,
    DependencyError,
    EngineError,
    ExportError,
    OutputError,
    SourceError,
    StreamError,
    VerificationError,
    VisdeployError,
)

if TYPE_CHECKING:
    from visdeploy.bundle import Bundle
    from visdeploy.diagnosis import doctor
    from visdeploy.evaluation import evaluate
    from visdeploy.exporting import export
    from visdeploy.masks import Mask
    from visdeploy.parity.verification import verify
    from visdeploy.predictor import VISPredictor
    from visdeploy.profiling import Profiler
    from visdeploy.protocol import benchmark
    from visdeploy.results import FrameResult, Instance, Track, VideoResult
    from visdeploy.signing.bundles import sign
    from visdeploy.streaming.stream import Stream

__version__ = "0.1.0"

_HOMES = {
    "Bundle": "visdeploy.bundle",
    "FrameResult": "visdeploy.results",
    "Instance": "visdeploy.results",
    "Mask": "visdeploy.masks",
    "Profiler": "visdeploy.profiling",
    "Stream": "visdeploy.streaming.stream",
    "Track": "visdeploy.results",
    "VISPredictor": "visdeploy.predictor",
    "VideoResult": "visdeploy.results",
    "benchmark": "visdeploy.protocol",
    "doctor": "visdeploy.diagnosis",
    "evaluate": "visdeploy.evaluation",
    "export": "visdeploy.exporting",
    "sign": "visdeploy.signing.bundles",
    "verify": "visdeploy.parity.verification",
}

__all__ = [
    "Bundle",
    "BundleError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DependencyError",
    "EngineError",
    "ExportError",
    "FrameResult",
    "Instance",
    "Mask",
    "OutputError",
    "Profiler",
    "SourceError",
    "Stream",
    "StreamError",
    "Track",
    "VISPredictor",
    "VerificationError",
    "VideoResult",
    "VisdeployError",
    "__version__",
    "benchmark",
    "doctor",
    "evaluate",
    "export",
    "sign",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'visdeploy' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
