"""A small recurrent segmenter, brought to visdeploy by entry points (see pyproject.toml)."""
