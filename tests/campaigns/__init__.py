"""Campaigns: many inputs of one kind, with a table of their outcomes."""
