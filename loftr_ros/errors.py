"""Errors that a caller can act on. Each message says what was found, what was needed and what to do."""

import difflib
from collections.abc import Iterable


class LoftrRosError(Exception):
    """Root of every error that this package raises on purpose."""


class ConfigError(LoftrRosError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class InputError(LoftrRosError, ValueError):
    """An image, a camera or an array is not of the form that the function takes."""


class MissingDependencyError(LoftrRosError, ImportError):
    """A package that this part needs is not installed."""


class OutputError(LoftrRosError, OSError):
    """A file could not be written."""


class WorkerError(LoftrRosError, RuntimeError):
    """Processes that shared the work died again and again."""


class TrainingError(LoftrRosError, RuntimeError):
    """A training cannot go on."""


SHORT_LIST = 20
"""Names that an error lists in any case; of more, only the nearest is named where one is near."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return 'did you mean X? known are X, Y, ...' for an unknown `name`, to complete an error message."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    parts = [f'did you mean {close[0]}?'] if close else []
    if not close or len(known) <= SHORT_LIST:
        parts.append(f'known are {", ".join(known)}')
    return ' '.join(parts)
