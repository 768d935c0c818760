"""Numbers as people read them: three significant digits, with their unit, and a dash where there is none."""

import math

DASH = "–"
_SPACE = "\u00a0"  # a number and its unit stay on one line


def significant(value: float, digits: int = 3) -> str:
    """So many significant digits, never in exponent notation: 0.0123, 1.23, 123, 12300."""
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".split("e")[1])  # after rounding: 9.996 is 10.0
    decimals = digits - 1 - exponent
    return f"{round(value, decimals):.{max(decimals, 0)}f}".replace("-", "−")


def milliseconds(value: float | None) -> str:
    """`12.0 ms`."""
    return f"{significant(value)}{_SPACE}ms" if value is not None and math.isfinite(value) else DASH


def size(count: int | None) -> str:
    """Bytes in decimal units: `2.20 MB`."""
    if count is None:
        return DASH
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= scale:
            return f"{significant(count / scale)}{_SPACE}{unit}"
    return f"{count}{_SPACE}B"


def percent(fraction: float | None, decimals: int = 2) -> str:
    """`84.52 %`."""
    return f"{100 * fraction:.{decimals}f}{_SPACE}%" if fraction is not None and math.isfinite(fraction) else DASH


def points(difference: float | None, decimals: int = 1) -> str:
    """A difference of two fractions, in percentage points with its sign: `−1.7`."""
    if difference is None or not math.isfinite(difference):
        return DASH
    text = f"{100 * difference:+.{decimals}f}".replace("-", "−")
    return text[1:] if float(text.replace("−", "-")) == 0 else text


def error(value: float | None) -> str:
    """An absolute error: `1.2e-6`, `0.013`."""
    if value is None or math.isnan(value):
        return "not a number"
    if math.isinf(value) or value == 0:
        return "infinite" if value else "0"
    if value >= 1e-3:
        return significant(value, 2)
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def decibels(value: float | None) -> str:
    """A signal-to-noise ratio; infinite means equal to the bit."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.1f}{_SPACE}dB".replace("-", "−")


def times(ratio: float) -> str:
    """`52×`, `4.1×`: two digits are what a repeated measurement keeps."""
    return f"{significant(ratio, 2)}×"


def compared(ratio: float, more: str, less: str) -> str:
    """A ratio in words: `52× faster`, or the other way round below one."""
    if 0.98 < ratio < 1.02:
        return f"no {more}"
    return f"{times(ratio)} {more}" if ratio > 1 else f"{times(1 / ratio)} {less}"
