"""What can go wrong, by who can mend it; the exit code says which."""


class EdgeseqError(Exception):
    """Work that was asked for and failed, or a gate that was not passed."""

    exit_code = 1


class GateError(EdgeseqError):
    """A check ran to its end and its answer is no."""


class ConversionError(EdgeseqError):
    """A converter or quantizer failed on a model that it accepts."""


class RequestError(EdgeseqError):
    """The request itself is wrong: an unknown name, a missing file, a value of the wrong type."""

    exit_code = 2


class UnsupportedError(RequestError):
    """A format, scheme or engine cannot express what was asked for."""


class UnavailableError(EdgeseqError):
    """It could not be checked here: a package, a download, an engine or a device is missing."""

    exit_code = 4
