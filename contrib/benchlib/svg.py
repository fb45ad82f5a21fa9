# SPDX-License-Identifier: GPL-2.0-or-later
"""Line charts as SVG: linear or logarithmic axes, grid, legend."""

import math
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 92, 24, 72, 58
FONT = "font-family='DejaVu Sans, Verdana, sans-serif'"


@dataclass
class Axis:
    label: str
    low: float
    high: float
    log: bool = False
    format: object = None  # value -> str

    def place(self, value, start, end):
        low, high = self.low, self.high
        if self.log:
            value, low, high = map(math.log10, (value, low, high))
        return start + (value - low) / (high - low) * (end - start)

    def ticks(self):
        if self.log:
            first = math.floor(math.log10(self.low) + 1e-9)
            last = math.ceil(math.log10(self.high) - 1e-9)
            return [10.0**e for e in range(first, last + 1)
                    if self.low * 0.999 <= 10.0**e <= self.high * 1.001]
        step = _nice_step((self.high - self.low) / 7)
        first = math.ceil(self.low / step - 1e-9)
        count = int(math.floor(self.high / step + 1e-9)) - first + 1
        return [(first + i) * step for i in range(count)]

    def text(self, value):
        return self.format(value) if self.format else f"{value:g}"


@dataclass
class Curve:
    name: str
    color: str
    points: list
    width: float = 1.8
    dash: str | None = None
    marks: list = field(default_factory=list)  # (x, y, shape)


@dataclass
class Chart:
    title: str
    subtitle: str
    x: Axis
    y: Axis
    curves: list
    notes: list = field(default_factory=list)  # vertical lines: (x, text)
    marks: list = field(default_factory=list)  # what they mean: (shape, text)

    def render(self):
        x0, x1 = LEFT, WIDTH - RIGHT
        y0, y1 = HEIGHT - BOTTOM, TOP
        parts = [
            "<!-- SPDX-License-Identifier: GPL-2.0-or-later -->",
            f"<svg xmlns='http://www.w3.org/2000/svg' width='{WIDTH}' "
            f"height='{HEIGHT}' viewBox='0 0 {WIDTH} {HEIGHT}' {FONT} "
            "font-size='12'>",
            f"<rect width='{WIDTH}' height='{HEIGHT}' fill='#ffffff'/>",
            f"<clipPath id='plot'><rect x='{x0}' y='{y1}' width='{x1 - x0}' "
            f"height='{y0 - y1}'/></clipPath>",
            _text(LEFT, 20, self.title, size=15, weight="bold"),
            _text(LEFT, 38, self.subtitle, color="#555555"),
        ]
        for value in self.x.ticks():
            at = self.x.place(value, x0, x1)
            parts.append(_line(at, y0, at, y1, "#e4e4e4"))
            parts.append(_text(at, y0 + 18, self.x.text(value), "middle"))
        for value in self.y.ticks():
            at = self.y.place(value, y0, y1)
            parts.append(_line(x0, at, x1, at, "#e4e4e4"))
            parts.append(_text(x0 - 8, at + 4, self.y.text(value), "end"))
        for value, text in self.notes:
            at = self.x.place(value, x0, x1)
            parts.append(_line(at, y0, at, y1, "#888888", "4 3"))
            parts.append(_text(at + 4, y1 + 13, text, color="#555555",
                               size=11))  # fmt: skip
        parts.append(f"<rect x='{x0}' y='{y1}' width='{x1 - x0}' "
                     f"height='{y0 - y1}' fill='none' stroke='#888888'/>")
        for curve in self.curves:
            parts += self._curve(curve, x0, x1, y0, y1)
        if self.marks:
            parts.append(_text(x0, HEIGHT - 14, self.x.label))
        else:
            parts.append(_text((x0 + x1) / 2, HEIGHT - 14, self.x.label,
                               "middle"))  # fmt: skip
        middle = (y0 + y1) / 2
        parts.append(f"<g transform='rotate(-90 18 {middle:.0f})'>"
                     + _text(18, middle, self.y.label, "middle") + "</g>")
        parts += self._legend()
        at = x1
        for shape, text in reversed(self.marks):
            at -= 7 * len(text)
            parts.append(_text(at, HEIGHT - 14, text, color="#555555"))
            parts.append(_mark(at - 10, HEIGHT - 18, shape, "#555555"))
            at -= 34
        return "\n".join([*parts, "</svg>", ""])

    def _curve(self, curve, x0, x1, y0, y1):
        def at(x, y):
            y = min(max(y, self.y.low), self.y.high)
            return self.x.place(x, x0, x1), self.y.place(y, y0, y1)

        points = " ".join("{:.1f},{:.1f}".format(*at(*p))
                          for p in curve.points)
        dash = f" stroke-dasharray='{curve.dash}'" if curve.dash else ""
        yield (f"<polyline clip-path='url(#plot)' fill='none' "
               f"stroke='{curve.color}' stroke-width='{curve.width}' "
               f"stroke-linejoin='round'{dash} points='{points}'/>")
        for x, y, shape in curve.marks:
            if self.x.low <= x <= self.x.high:
                yield _mark(*at(x, y), shape, curve.color)

    def _legend(self):
        at = LEFT
        for curve in self.curves:
            dash = f" stroke-dasharray='{curve.dash}'" if curve.dash else ""
            yield (f"<line x1='{at}' y1='56' x2='{at + 22}' y2='56' "
                   f"stroke='{curve.color}' stroke-width='3'{dash}/>")
            yield _text(at + 28, 60, curve.name)
            at += 28 + 7.4 * len(curve.name) + 20


def _nice_step(rough):
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough * 0.999)


def _line(xa, ya, xb, yb, color, dash=None):
    dash = f" stroke-dasharray='{dash}'" if dash else ""
    return (f"<line x1='{xa:.1f}' y1='{ya:.1f}' x2='{xb:.1f}' y2='{yb:.1f}' "
            f"stroke='{color}'{dash}/>")


def _text(x, y, text, anchor="start", size=12, weight="normal",
          color="#222222"):
    return (f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' "
            f"font-size='{size}' font-weight='{weight}' fill='{color}'>"
            f"{escape(text)}</text>")


def _mark(x, y, shape, color):
    if shape == "dot":
        return (f"<circle cx='{x:.1f}' cy='{y:.1f}' r='4.5' fill='#ffffff' "
                f"stroke='{color}' stroke-width='2'/>")
    return (f"<rect x='{x - 4:.1f}' y='{y - 4:.1f}' width='8' height='8' "
            f"fill='{color}' stroke='#ffffff'/>")
