"""Errors that the numerical part of the project raises.

The whole tree is drawn in ``tasks/errors.py``; these are its root and the branches that need no more than torch.
Every message says what was got, what was expected, and what to do.
"""


class GwmError(Exception):
    """Root of every error that this project raises on purpose."""


class InputError(GwmError, ValueError):
    """A value given by the caller is unusable: wrong shape, range or name."""


class WeightsError(GwmError):
    """A weights file is missing, altered (SHA-256 differs) or does not fit the network."""
