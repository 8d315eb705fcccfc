"""From a checkpoint to a bundle: graph, self-test, parity certificate. Needs torch."""

from visdeploy_export.exporter import export

__all__ = ["export"]
