"""Cases, timing and reports of `benchmarks/ops.py`."""
