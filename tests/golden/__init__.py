"""Holds the project against numbers that were recorded from other programs.

``python -m tests.golden DIR`` checks every archive of a directory; ``tests/test_golden.py`` runs the same checks.
"""
