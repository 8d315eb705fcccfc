"""Time per stage of the runtime."""

from visdeploy.profiling.profiler import OFF, Profiler, Stage

__all__ = ["OFF", "Profiler", "Stage"]
