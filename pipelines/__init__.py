"""Prefect flows, presets and the command line: what runs when, and what is told about it."""
