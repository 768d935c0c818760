"""What a report calls things: schemes in words, artifacts in a line, and why a cell is empty."""

from edgeseq.errors import RequestError
from edgeseq.quantize.scheme import Scheme
from edgeseq.report.contents import ArtifactRow

EVALUATED = "evaluated"  # how the words of an engine begin that computes a format without being a device for it
_MODES = {"weight_only": "weights only", "dynamic": "dynamic", "static": "static"}


def scheme_of(name: str) -> Scheme | None:
    """The scheme's fields; None for a name that is not of the grammar."""
    try:
        return Scheme.parse(name)
    except RequestError:
        return None


def is_integer(name: str) -> bool:
    """Whether weights are stored as integers."""
    scheme = scheme_of(name)
    return scheme is not None and scheme.mode != "float"


def short_scheme(name: str) -> str:
    """`int8 dynamic` for `dynamic_wi8_afp32`; the name itself where it is plain or unknown."""
    scheme = scheme_of(name)
    if scheme is None or scheme.mode == "float":
        return name
    width = f"int{scheme.weight_bits}"
    if scheme.activation_bits not in (None, scheme.weight_bits):
        width += f"/{scheme.activation_bits}"
    return f"{width} {_MODES[scheme.mode]}" + (f" b{scheme.block}" if scheme.block else "")


def explained_scheme(name: str) -> str:
    """A sentence for a newcomer."""
    scheme = scheme_of(name)
    if scheme is None:
        return "A scheme of your own."
    if scheme.mode == "float":
        return f"Weights in {scheme.weight_bits}-bit floating point; no integers."
    scales = f"one scale per {scheme.block} weights" if scheme.block else "one scale per output channel"
    weights = f"Weights in {scheme.weight_bits}-bit integers ({scales})"
    return {
        "weight_only": f"{weights}, turned back to float for every computation.",
        "dynamic": f"{weights}; activations rounded to integers as they come, so that products run in integers.",
        "static": f"{weights}; activations in {scheme.activation_bits}-bit integers, with ranges found by calibration.",
    }[scheme.mode]


def artifact(row: ArtifactRow) -> str:
    """Format and scheme, in a few words."""
    return f"{row.format} · {short_scheme(row.scheme)}"


def why_not_timed(row: ArtifactRow) -> str:
    """Why an artifact has no latency."""
    return row.verified_by if row.verified_by.startswith(EVALUATED) else f"run by {row.verified_by}, not timed here"
