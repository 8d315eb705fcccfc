"""Registry of the result formats, detection of a format from a path, and the entry points `save` and `load`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from visdeploy.arguments import as_tuple, check_names, check_path
from visdeploy.brief import shorten
from visdeploy.errors import ConfigError, DataError
from visdeploy.outputs import Output, check_inputs_kept
from visdeploy.results import VideoResult
from visdeploy.video.opening import local_files


@dataclass(frozen=True, slots=True)
class Format:
    """Result format.

    Attributes:
        name: Name in arguments and on the command line.
        endings: File endings that select the format, the most specific first; empty for formats that are folders.
        exact: Whether `load` restores the complete `VideoResult`; otherwise overlapping masks are resolved first.
        summary: Description in one line, for help texts.
    """

    name: str
    endings: tuple[str, ...]
    exact: bool
    summary: str

    def _function(self, name: str) -> Callable[..., Any]:
        function: Callable[..., Any] | None = getattr(import_module(f"visdeploy.formats.{self.name}"), str(name), None)
        if function is None:
            raise ConfigError(f"format {self.name!r} cannot do this", seen=shorten(name), expected="save or load")
        return function

    def outputs(self, names: Sequence[str], path: Path) -> list[Output]:
        """Return what `save` writes for videos of these names, after checking what can be known before.

        Raises:
            DependencyError: A package for the format is not installed.
        """
        module = import_module(f"visdeploy.formats.{self.name}")
        found: list[Output] = module.outputs(names, path) if hasattr(module, "outputs") else [Output(path)]
        return found

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Check the options of `save` before there are results.

        Raises:
            ConfigError: An option is unknown, or has an invalid value.
        """
        self._known("save", options)
        module = import_module(f"visdeploy.formats.{self.name}")
        if hasattr(module, "check_options"):
            module.check_options(**options)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Run `save` or `load` of the module; raise a `ConfigError` that names an unknown option."""
        return self._known(name, options)(*arguments, **options)

    def _known(self, name: str, options: Mapping[str, Any]) -> Callable[..., Any]:
        """Return `save` or `load` of the module, after a check that it has the options."""
        function = self._function(name)
        known = [p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        unknown = sorted(set(options) - set(known))
        if unknown:
            action = name if name in ("save", "load") else "save"
            raise ConfigError(f"format {self.name!r} cannot {action} with option {unknown[0]!r}",
                              expected=", ".join(known) or "no options")  # fmt: skip
        return function


FORMATS: dict[str, Format] = {
    f.name: f
    for f in (
        Format("coco", (".coco.json",), True, "COCO RLE JSON: videos, images, annotations with track ids, categories"),
        Format("ytvis", (".json",), True, "YouTube-VIS result list, as the evaluation servers accept it"),
        Format("mots", (".txt",), False, "MOTS text lines: frame, object, class, height, width, RLE"),
        Format("parquet", (".parquet",), True, "Parquet table, one row per instance and frame (needs pyarrow)"),
        Format("davis", (), False, "DAVIS folders of indexed PNGs, one object number per pixel"),
    )
}


def detect_format(path: str | Path) -> str:
    """Return the format of a path, by its ending, the top level of a JSON file, or the content of a folder.

    Raises:
        ConfigError: The ending belongs to no format.
    """
    path = check_path(path, "path of a result")
    if path.is_dir():
        return "mots" if _holds_mots(path) else "davis"
    name = path.name.lower()
    for entry in FORMATS.values():
        if name.endswith(entry.endings) and entry.endings:
            found = entry.name
            return "coco" if found == "ytvis" and _is_object(path) else found
    if not path.suffix:
        return "davis"
    endings = ", ".join(f"{e} ({f.name})" for f in FORMATS.values() for e in f.endings)
    raise ConfigError(f"cannot tell the format of {path}", seen=f"ending {path.suffix!r}",
                      expected=f"{endings}, or a folder (davis)",
                      hint="State the format: --format, in Python format=...")  # fmt: skip


def _holds_mots(folder: Path) -> bool:
    """Return whether a folder holds MOTS text, rather than PNGs with a list of names beside them."""
    from visdeploy.formats.davis import video_folders
    from visdeploy.formats.mots import is_text, text_files

    texts = text_files(folder)
    return bool(texts) and (not (videos := video_folders(folder)) or (videos != [folder] and any(map(is_text, texts))))


def save(
    result: VideoResult | Iterable[VideoResult], path: str | Path, *, format: str | None = None, **options: Any
) -> Path:
    """Write one or several results; the file or folder appears complete or not at all.

    Args:
        result: Result of one video, or several.
        path: File or folder to write. The ending `.json` selects YouTube-VIS, `.coco.json` COCO, `.txt` MOTS,
            `.parquet` Parquet; a path without an ending becomes a DAVIS folder.
        format: `ytvis`, `coco`, `davis`, `mots` or `parquet`; overrides the ending.
        **options: Options of the format, see `save` in its module.

    Returns:
        Path of the file or folder.

    Raises:
        ConfigError: The format or an option is unknown.
        DataError: The format cannot represent the results.
        OutputError: The file or folder cannot be written, or a source of the results would be replaced.
    """
    results = _results(result)
    path = check_path(path, "path of a result")
    entry = _for_saving(path, format)
    _check_saveable(results)
    inputs = [file for result in results if result.source is not None for file in local_files(result.source)]
    check_inputs_kept(entry.outputs([result.name for result in results], path), inputs)
    entry.call("save", results, path, **options)
    return path


def planned_outputs(
    names: Sequence[str], path: str | Path, *, format: str | None = None, options: Mapping[str, Any] | None = None
) -> list[Output]:
    """Return the files and folders that `save` would write for videos of these names.

    Args:
        names: Names of the videos.
        path: See `save`.
        format: See `save`.
        options: Options of the format, which are checked.

    Raises:
        ConfigError: The format or an option is unknown, or an option has an invalid value.
        DataError: Two videos would share a file, or something else is at the path of a DAVIS folder.
        DependencyError: A package for the format is not installed.
    """
    path = check_path(path, "path of a result")
    entry = _for_saving(path, format)
    entry.check_options(options or {})
    return entry.outputs(check_names(names, "names of videos"), path)


def load(path: str | Path, *, format: str | None = None, **options: Any) -> list[VideoResult]:
    """Read results.

    Args:
        path: File or folder written by `save`, or by another tool in the same format.
        format: See `save`; detected from the path if None.
        **options: Options of the format, see `load` in its module.

    Raises:
        ConfigError: The format or an option is unknown.
        DataError: The file is missing or malformed; the message names the file, the entry and the field.
    """
    path = check_path(path, "path of a result")
    if not path.exists():
        raise DataError(f"{path} does not exist", hint="Check the path; relative paths start at the working directory.")
    entry = FORMATS[detect_format(path)] if format is None else _entry(format)
    results: list[VideoResult] = entry.call("load", path, **options)
    return results


def to_json(result: VideoResult | Iterable[VideoResult], *, format: str = "ytvis", **options: Any) -> str:
    """Return the text that `save` writes to a JSON file.

    Args:
        result: Result of one video, or several.
        format: `ytvis` or `coco`.
        **options: Options of the format, see `save` in its module.

    Raises:
        ConfigError: The format or an option is unknown, or the format is not JSON.
        DataError: The format cannot represent the results.
    """
    results, entry = _results(result), _entry(format)
    if not any(ending.endswith(".json") for ending in entry.endings):
        raise ConfigError(f"the format {format!r} is not JSON", expected="ytvis or coco")
    _check_saveable(results)
    text: str = entry.call("to_text", results, **options)
    return text


def _results(result: Any) -> list[VideoResult]:
    """Return one or several results as a list."""
    found = (result,) if isinstance(result, VideoResult) else as_tuple(result)
    if found is None or not all(isinstance(each, VideoResult) for each in found):
        raise DataError("cannot write this object", seen=shorten(result), expected="a VideoResult, or several")
    if not found:
        raise DataError("nothing to save", seen="no results", expected="at least one VideoResult")
    return list(found)


def _entry(name: str) -> Format:
    if not isinstance(name, str) or name not in FORMATS:
        raise ConfigError("unknown result format", seen=shorten(name), expected=", ".join(FORMATS))
    return FORMATS[name]


def _for_saving(path: Path, format: str | None) -> Format:
    return FORMATS[_by_ending(path)] if format is None else _entry(format)


def _by_ending(path: Path) -> str:
    """Return the format for writing to a path, whether or not a file or folder exists there."""
    name = path.name.lower()
    found = next((f.name for f in FORMATS.values() if f.endings and name.endswith(f.endings)), None)
    return found or (detect_format(path.with_name(name)) if path.suffix and not path.is_dir() else "davis")


def _is_object(path: Path) -> bool:
    """Return whether the top level of a JSON file is an object (COCO), not a list (YouTube-VIS)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def _check_saveable(results: Sequence[VideoResult]) -> None:
    names = [r.name for r in results]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise DataError("two results have the same name", seen=repr(twice[0]), expected="one name per video")
    for result in results:
        result.check()
