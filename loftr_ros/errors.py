"""Errors that a caller can act on. Each message says what was found, what was needed and what to do."""


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


class TrainingError(LoftrRosError, RuntimeError):
    """A training cannot go on."""
