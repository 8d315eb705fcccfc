"""Writers and readers of results: YouTube-VIS JSON, COCO RLE JSON, DAVIS PNG folders, MOTS text, Parquet.

Each format is one module with two functions, `save(results, path, **options)` and `load(path, **options)`. The package
itself imports none of them before it is asked to.
"""

from visdeploy.formats.registry import FORMATS, detect_format, load, save

__all__ = ["FORMATS", "detect_format", "load", "save"]
