"""The manifest of a bundle (contract 1): inputs, outputs and state of a graph, how it is run, and its tolerances."""

from visdeploy.manifest.digest import manifest_digest
from visdeploy.manifest.manifest import (
    SCHEMA_VERSION,
    CustomOp,
    FileEntry,
    GraphSpec,
    Manifest,
    ModelSpec,
    Provenance,
    describe_errors,
)
from visdeploy.manifest.processing import Preprocessing, Window
from visdeploy.manifest.sizes import Dim, SizeError
from visdeploy.manifest.tensors import DType, StateSpec, TensorSpec, host_dtype
from visdeploy.manifest.tolerance import LOWER_LIMITS, EngineTolerance, Precision, Tolerance, Tolerances

__all__ = [
    "LOWER_LIMITS",
    "SCHEMA_VERSION",
    "CustomOp",
    "DType",
    "Dim",
    "EngineTolerance",
    "FileEntry",
    "GraphSpec",
    "Manifest",
    "ModelSpec",
    "Precision",
    "Preprocessing",
    "Provenance",
    "SizeError",
    "StateSpec",
    "TensorSpec",
    "Tolerance",
    "Tolerances",
    "Window",
    "describe_errors",
    "host_dtype",
    "manifest_digest",
]
