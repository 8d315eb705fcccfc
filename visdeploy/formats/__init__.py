"""Writers and readers of results: YouTube-VIS JSON, COCO RLE JSON, DAVIS PNG folders, MOTS text, Parquet.

Each format is one module with two functions, `save(results, path, **options)` and `load(path, **options)`. The package
imports a format's module when the format is first used.
"""

from visdeploy.formats.registry import FORMATS, detect_format, load, planned_outputs, save, to_json

__all__ = ["FORMATS", "detect_format", "load", "planned_outputs", "save", "to_json"]
