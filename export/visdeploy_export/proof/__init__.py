"""Parity check at the end of an export: frames, comparison of engines, average precision."""
