"""Measurement of the time per stage of the runtime."""

from visdeploy.profiling.profiler import OFF, Profiler, StageTime
from visdeploy.profiling.stages import Stage

__all__ = ["OFF", "Profiler", "Stage", "StageTime"]
