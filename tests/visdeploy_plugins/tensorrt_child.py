"""Functions that the TensorRT tests run in a child process, because an error in native code ends its process.

`run(action, **arguments)` is called by the tests and gives what the function of that name below returned in the child.
"""

import json
import subprocess
import sys
from typing import Any

import numpy as np


def run(action: str, **arguments: Any) -> dict[str, Any]:
    """Call `action` in a new process; the result contains its standard error as "stderr"."""
    command = [sys.executable, "-m", __name__, action]
    done = subprocess.run(command, input=json.dumps(arguments), capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{action} ended with {done.returncode}:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return {**json.loads(done.stdout.splitlines()[-1]), "stderr": done.stderr}


def _logger(trt: Any, lines: list[str]) -> Any:
    class Logger(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            lines.append(f"{str(severity).removeprefix('Severity.')}: {message}")

    return Logger()


def build(model: str, profile: dict[str, list[list[int]]], override: bool = True) -> dict[str, Any]:
    """Parse an ONNX file, and build a strongly typed engine with TensorRT for RTX, without a GPU."""
    import tensorrt_rtx as trt

    from visdeploy_plugins.tensorrt import load

    lines: list[str] = []
    logger = _logger(trt, lines)
    builder = trt.Builder(logger)
    load(trt.get_plugin_registry())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if override:
        parser.set_flag(trt.OnnxParserFlag.ENABLE_PLUGIN_OVERRIDE)
    found: dict[str, Any] = {"log": lines, "parsed": parser.parse_from_file(model), "plan": 0, "layers": []}
    found["parser_errors"] = [parser.get_error(i).desc() for i in range(parser.num_errors)]
    if not found["parsed"]:
        return found
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found["layers"] = [str(layer.type).removeprefix("LayerType.") for layer in layers]
    outputs = [network.get_output(i) for i in range(network.num_outputs)]
    found["outputs"] = {each.name: [list(each.shape), str(each.dtype).removeprefix("DataType.")] for each in outputs}
    config = builder.create_builder_config()
    shapes = builder.create_optimization_profile()
    for name, (low, high) in profile.items():
        shapes.set_shape(name, low, high, high)
    config.add_optimization_profile(shapes)
    plan = builder.build_serialized_network(network, config)
    if plan is not None:
        found["plan"] = plan.nbytes
        found["serialised"] = b"visdeploy_format" in bytes(plan)
    return found


def create(module: str, requests: list[list[Any]]) -> dict[str, Any]:
    """Create plugins from fields, each request being [plugin, phase, [[field, type, values], ...]].

    Returns the registered creators with their field names, and per request whether there was a plugin.
    """
    trt = __import__(module)
    from visdeploy_plugins.tensorrt import PLUGINS, load

    lines: list[str] = []
    # A registry logs through the logger of the first builder; the lean runtime has none.
    keep = trt.Builder(_logger(trt, lines)) if hasattr(trt, "Builder") else None
    registry = trt.get_plugin_registry()
    load(registry)
    load(registry)
    creators = {each.name: each for each in registry.all_creators if each.name in PLUGINS}
    found: dict[str, Any] = {"version": trt.__version__, "log": lines, "created": []}
    found["creators"] = {
        name: [each.plugin_version, each.plugin_namespace, [field.name for field in each.field_names]]
        for name, each in creators.items()
    }
    for plugin, phase, fields in requests:
        collection = [
            trt.PluginField(name, np.array(values, numpy_type(kind)), getattr(trt.PluginFieldType, kind))
            for name, kind, values in fields
        ]
        creator = registry.get_creator(plugin, "1", "")
        made = creator.create_plugin(plugin, trt.PluginFieldCollection(collection), getattr(trt.TensorRTPhase, phase))
        found["created"].append(made is not None)
        lines.append("--")
        sys.stderr.write("--\n")
        sys.stderr.flush()
    del keep
    return found


def numpy_type(kind: str) -> Any:
    return {"INT32": np.int32, "INT64": np.int64, "FLOAT32": np.float32, "FLOAT64": np.float64, "CHAR": np.int8}[kind]


if __name__ == "__main__":
    result = globals()[sys.argv[1]](**json.load(sys.stdin))
    sys.stdout.write("\n" + json.dumps(result) + "\n")
