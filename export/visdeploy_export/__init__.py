"""Checkpoint to bundle: graph, proof, manifest."""
