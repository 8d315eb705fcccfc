"""Report on this installation: engines, operator libraries, and the kernel of each operator in each engine.

    import visdeploy
    for engine in visdeploy.doctor().engines:
        print(engine.name, engine.version, engine.hint)

On the command line: `visdeploy doctor`. Only the runtime itself must be installed; the report names what is missing.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

from visdeploy.backends.onnxruntime.installation import CPU, CUDA, INSTALL, INSTALL_GPU, installed_builds
from visdeploy.brief import Plain, brief, counted


@dataclass(frozen=True)
class Engine:
    """Engine that visdeploy knows.

    Attributes:
        name: Its import name.
        version: Installed version; empty if it is not installed.
        detail: Providers or devices of this installation, or the reason why it does not load.
        runs_bundles: Whether the runtime can run bundles on it.
        hint: What to install or change; empty if nothing is missing.
    """

    name: str
    version: str
    detail: str
    runs_bundles: bool
    hint: str = ""

    def __repr__(self) -> str:
        return brief(self, name=self.name, version=self.version, runs_bundles=self.runs_bundles)


@dataclass(frozen=True)
class Library:
    """Compiled operator library.

    Attributes:
        name: Engine that it is built for.
        path: File; empty if it was not built.
        detail: Kernels that it contains.
        hint: How to build it.
    """

    name: str
    path: str
    detail: str = ""
    hint: str = ""

    def __repr__(self) -> str:
        return brief(self, name=self.name, path=self.path)


@dataclass(frozen=True)
class Operator:
    """Custom operator in one engine.

    Attributes:
        op: Name of the operator.
        engine: Name of the engine and its device.
        runs: Implementation that runs there; empty if there is none.
        own_kernel: Whether it is the compiled kernel of this project.
        why_not: Reason if it is not.
    """

    op: str
    engine: str
    runs: str
    own_kernel: bool
    why_not: str

    def __repr__(self) -> str:
        return brief(self, op=self.op, engine=self.engine, runs=self.runs, own_kernel=self.own_kernel)


@dataclass(frozen=True)
class Diagnosis:
    """Report of `doctor`.

    Attributes:
        engines: Engines, in the order in which the runtime prefers them.
        libraries: Operator libraries.
        operators: One entry per operator and engine.
    """

    engines: tuple[Engine, ...]
    libraries: tuple[Library, ...]
    operators: tuple[Operator, ...]

    def __repr__(self) -> str:
        installed = Plain(", ".join(engine.name for engine in self.engines if engine.version) or "none")
        return brief(self, healthy=self.healthy, engines=installed, operators=counted(self.operators))

    @property
    def healthy(self) -> bool:
        """Whether a bundle can run on at least one engine."""
        return any(engine.runs_bundles for engine in self.engines)

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain values, including `healthy`."""
        return {"healthy": self.healthy} | asdict(self)


def doctor() -> Diagnosis:
    """Inspect the engines and operator libraries of this installation.

    Installed engines are imported, to find out whether they load. Nothing is written.
    """
    engines = (_onnxruntime(), *(_tensorrt(name, purpose) for name, purpose in _TENSORRT), _torch())
    libraries, operators = _plugins()
    return Diagnosis(engines, libraries, operators)


def _onnxruntime() -> Engine:
    builds = installed_builds()
    module, reason = _import("onnxruntime")
    if module is None or not hasattr(module, "get_available_providers"):
        version = " and ".join(f"{name} {_version(name)}" for name in builds)
        return Engine("onnxruntime", version, reason or "installed in part", False, INSTALL)
    providers = module.get_available_providers()
    hint = "" if CUDA in providers else f"for NVIDIA GPUs: {INSTALL_GPU}"
    if len(builds) > 1 and not hint:
        hint = f"{' and '.join(builds)} are both installed: remove one, and install the other again"
    detail = ", ".join(each.removesuffix("ExecutionProvider") for each in providers)
    return Engine("onnxruntime", module.__version__, detail, CPU in providers, hint)


_TENSORRT = (
    ("tensorrt", "builds and runs engines on data-centre and desktop GPUs"),
    ("tensorrt_rtx", "builds engines on any machine and runs them on RTX GPUs"),
    ("tensorrt_lean", "runs engines that were built elsewhere"),
)
_MODULES = {"tensorrt_lean": ("tensorrt_lean", "tensorrt_lean_bindings")}
_DISTRIBUTIONS = {
    "tensorrt": "pip install 'visdeploy[tensorrt]'",
    "tensorrt_rtx": "pip install 'visdeploy[tensorrt-rtx]'",
    "tensorrt_lean": "pip install tensorrt_lean",
}


def _tensorrt(name: str, purpose: str) -> Engine:
    """Describe a TensorRT package. The runtime does not run bundles on it; users' programs may use its engines."""
    reason = "not installed"
    for candidate in _MODULES.get(name, (name,)):
        module, said = _import(candidate)
        if module is not None:
            return Engine(name, str(getattr(module, "__version__", "?")), purpose, False)
        if said != "not installed":
            reason = said
    return Engine(name, "", reason, False, f"{_DISTRIBUTIONS[name]}: {purpose}")


def _torch() -> Engine:
    module, reason = _import("torch")
    if module is None:
        return Engine("torch", "", reason, False, "for training and export: pip install 'visdeploy[export]'")
    devices = "CPU"
    if module.cuda.is_available():
        devices += "".join(f", {module.cuda.get_device_name(i)}" for i in range(module.cuda.device_count()))
    return Engine("torch", module.__version__, f"{devices}; for training and export", False)


def _plugins() -> tuple[tuple[Library, ...], tuple[Operator, ...]]:
    module, reason = _import("visdeploy_plugins")
    if module is None:
        hint = "custom operators run as standard ones, slower; install visdeploy with its plugins"
        return (Library("visdeploy_plugins", "", reason, hint),), ()
    found = module.capabilities()
    build = "install from source with cmake, ninja and a C++17 compiler; see plugins/README.md"
    nvcc = f"{build}, and nvcc"
    cuda = f"CUDA kernels for {' '.join(found.cuda_architectures)}" if found.cuda_architectures else "no CUDA kernels"
    cpu = f"CPU kernels ({found.instruction_set}), {cuda}" if found.instruction_set else "does not load"
    offers = (
        ("PyTorch and C", found.operators_library, cpu, build),
        ("ONNX Runtime", found.onnxruntime_library, cuda, build),
        ("TensorRT", found.tensorrt_library, cuda, nvcc),
    )
    libraries = [
        Library(name, str(path), detail) if path else Library(name, "", "not built", hint)
        for name, path, detail, hint in offers
    ]
    operators = tuple(Operator(op.op, op.engine, op.runs, op.own_kernel, op.why_not) for op in found.ops)
    return tuple(libraries), operators


def _import(name: str) -> tuple[Any, str]:
    """Import a module. Return None and the reason if this fails."""
    if importlib.util.find_spec(name) is None:
        return None, "not installed"
    try:
        return importlib.import_module(name), ""
    except Exception as error:  # a damaged installation can raise anything, and the report shows it
        return None, f"does not load: {type(error).__name__}: {error}".split("\n")[0]


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""
