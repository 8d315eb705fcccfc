"""Evaluation of a bundle on a whole data set by its published protocol: `visdeploy.benchmark`."""

from visdeploy.protocol.running import Benchmark, benchmark

__all__ = ["Benchmark", "benchmark"]
