"""Processing of frames to results: preprocessing, windows, the pipeline around an engine, streams, saved streams."""
