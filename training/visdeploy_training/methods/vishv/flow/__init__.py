"""Normalising flow of the appearance embedding (Glow: Kingma and Dhariwal, NeurIPS 2018), for the training only."""

from visdeploy_training.methods.vishv.flow.glow import FlowResult, Glow
from visdeploy_training.methods.vishv.flow.likelihood import bits_per_dim

__all__ = ["FlowResult", "Glow", "bits_per_dim"]
