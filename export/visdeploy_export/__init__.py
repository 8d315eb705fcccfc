"""Export of checkpoints to bundles: graph, self-test, parity certificate. Requires torch."""

from visdeploy_export.exporter import export

__all__ = ["export"]
