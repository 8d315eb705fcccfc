"""What `benchmarks/ops.py` measures the operators with."""
