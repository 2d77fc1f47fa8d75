"""The exception tree: everything a person can mend is a StyleGANError with one sentence that says how."""

from __future__ import annotations


class StyleGANError(Exception):
    """A fault that the person at the keyboard can mend; the command line prints it and exits with 2."""


class RequestError(StyleGANError):
    """A setting, seed, layer range or saved request that cannot be rendered as asked."""


class CheckpointError(StyleGANError):
    """A model file that is missing, damaged, of another kind, or larger than is sensible."""


class DataError(StyleGANError):
    """Pictures, folders or archives that cannot be used as training data."""


class TrainingError(StyleGANError):
    """A training run that cannot start, go on or be resumed."""


class DownloadError(StyleGANError):
    """A file that could not be fetched, or is not what its address promised."""


class DirectionError(StyleGANError):
    """A direction that is unknown, or belongs to another model."""
