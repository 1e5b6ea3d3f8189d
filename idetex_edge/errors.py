"""The one family of errors that this package raises on purpose.

Every message says what was wrong, with what, and what to do about it, in one line.
"""


class IdetexError(Exception):
    """Base of every error raised by idetex-edge; catch this to catch them all."""


class ImageError(IdetexError):
    """The picture cannot be read or is outside the accepted limits."""


class BundleError(IdetexError):
    """The bundle is missing, altered, incomplete or of an unknown version."""


class EngineError(IdetexError):
    """The requested engine is unknown or cannot run on this machine."""


class RequestError(IdetexError):
    """A task was asked for with arguments that make no sense."""


class OutputError(IdetexError):
    """A result cannot be written where it was asked to go."""


class ExportError(IdetexError):
    """A checkpoint cannot be converted, or the result does not match it."""
