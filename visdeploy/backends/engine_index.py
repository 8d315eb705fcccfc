"""Index of the engines that were built for a bundle: `engines/index.json` (contract 1).

A plan is deserialised only if it has an entry in the index and its checksum matches, see
`visdeploy.backends.engine_files`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from visdeploy.bundle_files import INDEX, regular_size
from visdeploy.errors import BundleError
from visdeploy.manifest import describe_errors
from visdeploy.parity.certificate import Certificate

INDEX_VERSION = 1
REBUILD = "Build the engines again: remove the folder 'engines' of the bundle, then call visdeploy.build_engine."

EngineName = Literal["tensorrt", "tensorrt-rtx"]
EnginePrecision = Literal["fp32", "tf32", "fp16", "bf16", "int8"]
Compatibility = Literal["none", "same_compute_capability", "ampere_plus"]
Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
PlanName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*\.plan$", max_length=128)]
Symbol = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class SizeRange(_Strict):
    """Range of sizes of one symbol that an engine accepts; the engine is optimised for the typical size."""

    minimum: Annotated[int, Field(ge=0)]
    typical: Annotated[int, Field(ge=0)]
    maximum: Annotated[int, Field(ge=1)]

    @model_validator(mode="after")
    def _ordered(self) -> SizeRange:
        if not self.minimum <= self.typical <= self.maximum:
            raise ValueError("minimum, typical and maximum must be in ascending order")
        return self

    def __contains__(self, size: int) -> bool:
        return self.minimum <= size <= self.maximum


@dataclass(frozen=True)
class Target:
    """Requirements on an engine: the runtime, the GPU, the precision and the sizes.

    Attributes:
        engine: Runtime that is to execute the engine.
        version: Version of that runtime.
        gpu: Name of the GPU, as reported by the driver.
        compute_capability: Compute capability of that GPU, for example `9.0`.
        precision: Requested precision.
        model_sha256: Checksum of the bundle's `model.onnx`.
        sizes: Map from symbol to size; symbols whose size is not known yet are omitted.
    """

    engine: str
    version: str
    gpu: str
    compute_capability: str
    precision: str
    model_sha256: str
    sizes: Mapping[str, int]


class EngineEntry(_Strict):
    """One built engine.

    Attributes:
        file: Name of the plan inside `engines/`.
        sha256: Checksum of the plan.
        size: Size of the plan in bytes.
        engine: Runtime that executes the engine.
        engine_version: Version of the builder.
        gpu: Name of the GPU on which the engine was built and certified.
        compute_capability: Compute capability of that GPU, for example `9.0`.
        driver_version: Driver version of that machine, for information only.
        precision: Precision reported by the engine itself, which may differ from the requested one.
        hardware_compatibility: Other GPUs that it was built for: `none`, those of the `same_compute_capability`, or
            all with compute capability 8.0 or higher (`ampere_plus`).
        version_compatible: Whether later versions of the runtime with the same major version can also execute it.
        profile: Map from symbol to the range of sizes that the engine accepts.
        created: Time of the build, with time zone.
        model_sha256: Checksum of the `model.onnx` from which it was built.
        certificate: Parity certificate of this engine.
    """

    file: PlanName
    sha256: Sha256
    size: Annotated[int, Field(ge=1)]
    engine: EngineName
    engine_version: Text
    gpu: Text
    compute_capability: Annotated[str, Field(pattern=r"^[0-9]{1,2}\.[0-9]$")]
    driver_version: Text | None = None
    precision: EnginePrecision
    hardware_compatibility: Compatibility = "none"
    version_compatible: bool = False
    profile: dict[Symbol, SizeRange]
    created: AwareDatetime
    model_sha256: Sha256
    certificate: Certificate

    def obstacles(self, target: Target) -> list[str]:
        """Return the reasons why this engine cannot be used for `target`, one clause each; empty if it can be used."""
        checks = (
            (self.model_sha256 == target.model_sha256, "it was built from another model.onnx"),
            (self.certificate.passed, f"its certificate failed ({'; '.join(self.certificate.failures)})"),
            (self.engine == target.engine, f"it is for {self.engine}, not {target.engine}"),
            (self._runs_in(target.version), f"it was built by version {self.engine_version}, this is {target.version}"),
            (self._runs_on(target), f"it was built for {self._hardware()}, this is {target.gpu}"),
            (self.precision == target.precision, f"its precision is {self.precision}, not {target.precision}"),
        )
        return [reason for fits, reason in checks if not fits] + list(self._wrong_sizes(target.sizes))

    def distance(self, sizes: Mapping[str, int]) -> float:
        """Return the distance of `sizes` from the typical sizes of the engine, summed over all symbols; at least 0."""
        known = [(size, self.profile[symbol].typical) for symbol, size in sizes.items() if symbol in self.profile]
        return sum(abs(math.log((size + 1) / (typical + 1))) for size, typical in known)

    def _runs_in(self, version: str) -> bool:
        if version == self.engine_version:
            return True
        mine, other = _numbers(self.engine_version), _numbers(version)
        return self.version_compatible and mine[:1] == other[:1] and other >= mine

    def _runs_on(self, target: Target) -> bool:
        if self.gpu == target.gpu and self.compute_capability == target.compute_capability:
            return True
        if self.hardware_compatibility == "same_compute_capability":
            return self.compute_capability == target.compute_capability
        return self.hardware_compatibility == "ampere_plus" and _numbers(target.compute_capability) >= (8, 0)

    def _hardware(self) -> str:
        others = {
            "none": "",
            "same_compute_capability": f" and others of compute capability {self.compute_capability}",
            "ampere_plus": " and others with compute capability 8.0 or higher",
        }
        return self.gpu + others[self.hardware_compatibility]

    def _wrong_sizes(self, sizes: Mapping[str, int]) -> list[str]:
        reasons = []
        for symbol, size in sizes.items():
            accepted = self.profile.get(symbol)
            if accepted is None:
                reasons.append(f"its profile has no {symbol}")
            elif size not in accepted:
                reasons.append(f"it accepts {symbol} from {accepted.minimum} to {accepted.maximum}, not {size}")
        return reasons


@dataclass(frozen=True)
class Found:
    """Engines for a target.

    Attributes:
        usable: Engines that can be used, in ascending order of their distance from the sizes, then newest first.
        refused: One sentence for the log for each engine that cannot be used.
    """

    usable: tuple[EngineEntry, ...]
    refused: tuple[str, ...]


class EngineIndex(_Strict):
    """Entries of all engines of a bundle, in the order in which they were added."""

    schema_version: Literal[1] = 1
    entries: list[EngineEntry] = []

    @field_validator("entries")
    @classmethod
    def _one_entry_per_file(cls, entries: list[EngineEntry]) -> list[EngineEntry]:
        names = [entry.file.lower() for entry in entries]  # a bundle may be copied to a file system that ignores case
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"one file name is used by two entries: {', '.join(twice)}")
        return entries

    def find(self, target: Target) -> Found:
        """Return the engines that can be used for a target, and the reasons against the others."""
        usable, refused = [], []
        for entry in reversed(self.entries):
            if obstacles := entry.obstacles(target):
                refused.append(f"engines/{entry.file} is not used: {'; '.join(obstacles)}")
            else:
                usable.append(entry)
        return Found(tuple(sorted(usable, key=lambda entry: entry.distance(target.sizes))), tuple(refused))


def read_index(folder: Path) -> EngineIndex:
    """Read the engine index of a bundle; a bundle without one has no engines.

    Args:
        folder: The bundle.

    Raises:
        BundleError: The index is damaged, of a newer schema, or a field is unknown, missing or wrong.
    """
    path = folder / INDEX
    if not path.is_symlink() and not path.exists():
        return EngineIndex()
    regular_size(path)
    try:
        text = path.read_text(encoding="utf-8")
        data = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read", seen=str(error)[:200], hint=REBUILD) from error
    _check_version(path, data)
    try:
        return EngineIndex.model_validate_json(text)
    except ValidationError as error:
        raise BundleError(f"{path}: {describe_errors(error)}", hint=REBUILD) from error


def _check_version(path: Path, data: Any) -> None:
    if not isinstance(data, dict):
        raise BundleError(f"{path} is malformed", seen=type(data).__name__, expected="a JSON object", hint=REBUILD)
    version = data.get("schema_version")
    if isinstance(version, int) and version > INDEX_VERSION:
        raise BundleError(
            f"{path} is of a newer schema",
            seen=f"schema_version {version}",
            expected=f"at most {INDEX_VERSION}",
            hint=f"Install a newer visdeploy. Or: {REBUILD}",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
