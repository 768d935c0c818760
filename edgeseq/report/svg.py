"""Scalable pictures without a plotting library: a drawing, scales with round ticks, and markers of equal area.

Colours are classes that `page.css` defines twice, for light and for dark pages.
"""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

FONT_PX = 12
_CHARACTER_PX = 6.7  # wider than most letters of a 12 px system font, so that what is measured to fit does
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SIDES = (0, 4, 3, 5, 6)  # circle, square, triangle, pentagon; the hexagon is the teacher's

Attributes = dict[str, str | float]


class Drawing:
    """An SVG whose height is known last; `describe` is what a screen reader says instead, nothing for a decoration."""

    def __init__(self, width: float, describe: str = "") -> None:
        self.width = width
        seen_as = {"role": "img", "aria-label": _clean(describe)} if describe else {"aria-hidden": "true"}
        self.root = ElementTree.Element("svg", seen_as)

    def add(self, tag: str, attributes: Attributes, *, text: str = "", tooltip: str = "") -> None:
        """Append an element, with text inside it or a tooltip over it."""
        node = ElementTree.SubElement(self.root, tag, {key: _plain(value) for key, value in attributes.items()})
        if text:
            node.text = _clean(text)
        if tooltip:
            ElementTree.SubElement(node, "title").text = _clean(tooltip)

    def text(self, x: float, y: float, text: str, *, kind: str = "", anchor: str = "start", tooltip: str = "") -> None:
        """A line of text whose baseline is at `y`."""
        if tooltip:
            group = ElementTree.SubElement(self.root, "g")
            ElementTree.SubElement(group, "title").text = _clean(tooltip)
        else:
            group = self.root
        attributes = {"x": _plain(x), "y": _plain(y), "class": f"t {kind}".strip(), "text-anchor": anchor}
        ElementTree.SubElement(group, "text", attributes).text = _clean(text)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str = "grid") -> None:
        """A straight line."""
        self.add("line", {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "class": kind})

    def marker(self, x: float, y: float, radius: float, shape: int, kind: str, *, tooltip: str = "") -> None:
        """The shape of that number with the area of a circle of that radius."""
        sides = _SIDES[shape % len(_SIDES)]
        if not sides:
            self.add("circle", {"cx": x, "cy": y, "r": radius, "class": kind}, tooltip=tooltip)
            return
        turn = 2 * math.pi / sides
        reach = radius * math.sqrt(turn / math.sin(turn))
        start = -math.pi / 2 + (turn / 2 if sides == 4 else 0)  # a square stands on its side
        corners = [
            (x + reach * math.cos(start + i * turn), y + reach * math.sin(start + i * turn)) for i in range(sides)
        ]
        points = " ".join(f"{_plain(cx)},{_plain(cy)}" for cx, cy in corners)
        self.add("polygon", {"points": points, "class": kind}, tooltip=tooltip)

    def finish(self, height: float, kind: str = "") -> str:
        """The SVG as text."""
        self.root.set("viewBox", f"0 0 {_plain(self.width)} {_plain(height)}")
        self.root.set("width", _plain(self.width))
        self.root.set("height", _plain(height))
        if kind:
            self.root.set("class", kind)
        return ElementTree.tostring(self.root, encoding="unicode")


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Maps values between `low` and `high` to pixels between `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value: float) -> float:
        """The pixel of a value; values outside land on the nearer end."""
        value = min(max(value, self.low), self.high)
        turn: Callable[[float], float] = math.log if self.is_log else float
        return self.start + (self.end - self.start) * (turn(value) - turn(self.low)) / (
            turn(self.high) - turn(self.low)
        )

    def ticks(self, most: int = 7) -> list[float]:
        """At most so many round values."""
        if self.is_log:
            for steps in ((1, 2, 5), (1, 3), (1,)):
                found = self._log_ticks(steps)
                if 2 <= len(found) <= most:
                    return found
        return self._linear_ticks(most)

    def _log_ticks(self, steps: Sequence[int]) -> list[float]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [step * 10.0**decade for decade in decades for step in steps]
        return [value for value in values if self.low <= value <= self.high]

    def _linear_ticks(self, most: int) -> list[float]:
        raw = (self.high - self.low) / most
        unit = 10.0 ** math.floor(math.log10(raw))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(i * step, 12) for i in range(first, last + 1)]


def text_width(text: str) -> float:
    """Roughly how wide a line of text will be, in pixels."""
    return _CHARACTER_PX * len(text)


def shortened(text: str, width: float) -> str:
    """The text, or as much of it as fits."""
    room = max(int(width / _CHARACTER_PX), 2)
    return text if len(text) <= room else text[: room - 1] + "…"


def _plain(value: str | float) -> str:
    return _clean(value) if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")


def _clean(text: str) -> str:
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", text)
