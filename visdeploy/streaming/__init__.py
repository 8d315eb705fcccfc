"""From frames to results: preprocessing, windows, the pipeline around an engine, streams and their saved form."""
