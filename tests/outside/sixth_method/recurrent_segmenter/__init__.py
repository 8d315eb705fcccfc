"""Small recurrent segmenter that extends visdeploy by entry points (see pyproject.toml)."""
