"""The proof at the end of an export: frames, engines side by side, average precision."""
