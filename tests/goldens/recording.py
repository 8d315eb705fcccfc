"""Recording of the inputs and outputs of modules while a network runs."""

from __future__ import annotations

import re
from contextlib import ExitStack
from typing import Any

from torch import nn


class Recorder:
    """Outputs of modules by name, inputs under `<name>/input` (the first) and `/inputs`; later calls get `#1`, ..."""

    def __init__(self, model: nn.Module, names: set[str]) -> None:
        self.values: dict[str, Any] = {}
        self._stack = ExitStack()
        for name in names:
            module = model.get_submodule(name)
            self._stack.callback(module.register_forward_hook(self._hook(name)).remove)

    def _hook(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            calls = sum(re.fullmatch(re.escape(name) + r"(#\d+)?", k) is not None for k in self.values)
            suffix = f"#{calls}" if calls else ""
            self.values[name + suffix] = output
            self.values[f"{name}{suffix}/input"] = args[0]
            self.values[f"{name}{suffix}/inputs"] = args

        return hook

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()
