"""Objects that the simulated stimuli show: one drawing function per category, in unit coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from PIL import ImageDraw, ImageFont

Colour = tuple[int, int, int]
Point = tuple[float, float]

SKIN: tuple[Colour, ...] = ((255, 219, 188), (236, 188, 150), (198, 134, 92), (141, 85, 54), (92, 58, 40))
HAIR: tuple[Colour, ...] = ((30, 24, 20), (92, 56, 30), (200, 160, 84), (150, 150, 150), (150, 62, 26))
LETTERS = "ABCDEFGHIKLMNOPRSTUVWZ"


class Pen:
    """Draws shapes given in an object's own frame: x right, y down, the object fills -1..1."""

    def __init__(self, draw: ImageDraw.ImageDraw, centre: Point, scale: float, tilt: float) -> None:
        self.draw, self.centre, self.scale = draw, centre, scale
        self.cos, self.sin = math.cos(tilt), math.sin(tilt)

    def place(self, points: Sequence[Point]) -> list[Point]:
        """Object frame to pixels."""
        cx, cy = self.centre
        return [
            (cx + self.scale * (self.cos * x - self.sin * y), cy + self.scale * (self.sin * x + self.cos * y))
            for x, y in points
        ]

    def polygon(self, points: Sequence[Point], colour: Colour) -> None:
        self.draw.polygon(self.place(points), fill=(*colour, 255))

    def box(self, left: float, top: float, right: float, bottom: float, colour: Colour) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], colour)

    def ellipse(
        self, x: float, y: float, rx: float, ry: float, colour: Colour, start: float = 0.0, end: float = 1.0
    ) -> None:
        """An ellipse, or the segment of it between two turns (0 is right, 0.25 is down)."""
        turns = np.linspace(start, end, 36) * 2 * math.pi
        self.polygon([(x + rx * math.cos(a), y + ry * math.sin(a)) for a in turns], colour)

    def line(self, points: Sequence[Point], width: float, colour: Colour) -> None:
        """A stroke with round ends."""
        pixels, thick = self.place(points), max(1, round(width * self.scale))
        self.draw.line(pixels, fill=(*colour, 255), width=thick, joint="curve")
        for x, y in (pixels[0], pixels[-1]):
            r = thick / 2
            self.draw.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, 255))


def any_colour(rng: np.random.Generator, low: int = 30, high: int = 235) -> Colour:
    """A saturated colour: one channel high, one low, one between."""
    values = [high, low, int(rng.integers(low, high))]
    r, g, b = (values[int(k)] for k in rng.permutation(3))
    return r, g, b


def shade(colour: Colour, factor: float) -> Colour:
    """A darker (factor < 1) or lighter (factor > 1) version of a colour."""
    r, g, b = (int(min(255, max(0, c * factor))) for c in colour)
    return r, g, b


def pick(rng: np.random.Generator, options: Sequence[Colour]) -> Colour:
    return options[int(rng.integers(len(options)))]


def draw_face(pen: Pen, rng: np.random.Generator) -> None:
    skin, hair = pick(rng, SKIN), pick(rng, HAIR)
    wide, long_hair, smile = rng.uniform(0.6, 0.74), rng.random() < 0.5, rng.uniform(-0.06, 0.16)
    if long_hair:
        pen.ellipse(0, 0.0, wide + 0.2, 0.98, hair)
    pen.ellipse(0, -0.2, wide + 0.08, 0.8, hair)
    for side in (-1, 1):
        pen.ellipse(side * wide, 0.05, 0.12, 0.2, shade(skin, 0.9))
    pen.ellipse(0, 0.08, wide, 0.86, skin)
    pen.ellipse(0, -0.62, wide * 0.86, 0.3, hair)
    iris = pick(rng, ((60, 110, 170), (70, 50, 30), (60, 120, 70)))
    for side in (-1, 1):
        x = side * wide * 0.46
        pen.ellipse(x, -0.06, 0.17, 0.1, (250, 250, 250))
        pen.ellipse(x, -0.06, 0.085, 0.095, iris)
        pen.ellipse(x, -0.06, 0.04, 0.05, (10, 10, 10))
        pen.line([(x - 0.18, -0.24), (x, -0.29), (x + 0.18, -0.24)], 0.05, shade(hair, 0.8))
    pen.line([(0.0, -0.02), (-0.09, 0.3), (0.08, 0.32)], 0.05, shade(skin, 0.72))
    mouth = [(t * 0.3, 0.56 + smile * (1 - t * t)) for t in np.linspace(-1, 1, 9)]
    pen.polygon([*mouth, *[(x, y + 0.1) for x, y in reversed(mouth)]], (176, 52, 58))
    if rng.random() < 0.25:
        pen.ellipse(0, 0.86, wide * 0.6, 0.18, hair)


def draw_body(pen: Pen, rng: np.random.Generator) -> None:
    """A clothed figure without a face, as body localizers show."""
    skin, shirt, trousers = pick(rng, SKIN), any_colour(rng), any_colour(rng)
    lean = rng.uniform(-0.1, 0.1)
    hip, shoulder = (0.0, 0.12), (lean, -0.55)
    for side in (-1, 1):
        spread = rng.uniform(0.08, 0.34)
        knee = (side * (0.1 + spread * 0.6), 0.5)
        foot = (side * (0.1 + spread), 0.93)
        pen.line([(side * 0.13, 0.14), knee, foot], 0.21, trousers)
        pen.line([foot, (foot[0] + side * 0.14, 0.95)], 0.11, (40, 34, 34))
        raised = rng.uniform(-0.5, 0.45)
        elbow = (shoulder[0] + side * 0.5, shoulder[1] + 0.3 + raised * 0.4)
        hand = (elbow[0] + side * rng.uniform(-0.1, 0.25), elbow[1] + 0.32 * (1 if raised > 0 else -1))
        pen.line([(shoulder[0] + side * 0.22, shoulder[1] + 0.05), elbow], 0.17, shirt)
        pen.line([elbow, hand], 0.12, skin)
        pen.ellipse(hand[0], hand[1], 0.09, 0.09, skin)
    pen.polygon([(shoulder[0] - 0.33, -0.6), (shoulder[0] + 0.33, -0.6), (0.25, 0.22), (-0.25, 0.22)], shirt)
    pen.box(hip[0] - 0.25, 0.12, hip[0] + 0.25, 0.28, trousers)
    pen.line([(shoulder[0], -0.72), (shoulder[0], -0.6)], 0.14, skin)
    pen.ellipse(shoulder[0], -0.84, 0.14, 0.17, pick(rng, HAIR))


def draw_place(pen: Pen, rng: np.random.Generator) -> None:
    """A house, a room in perspective, or a street of towers; fills its frame."""
    kind = int(rng.integers(3))
    if kind == 0:
        wall, roof = shade(any_colour(rng, 120, 230), 0.95), shade(any_colour(rng, 50, 150), 0.8)
        pen.box(-1.4, -1.4, 1.4, 0.62, (150, 196, 236))
        pen.box(-1.4, 0.6, 1.4, 1.4, (96, 140, 70))
        pen.box(-0.8, -0.2, 0.8, 0.8, wall)
        pen.polygon([(-0.98, -0.2), (0.98, -0.2), (0.5, -0.8), (-0.5, -0.8)], roof)
        pen.box(-0.14, 0.3, 0.14, 0.8, shade(roof, 0.7))
        for x in (-0.5, 0.5):
            for y in (0.0, 0.45):
                pen.box(x - 0.18, y - 0.12, x + 0.18, y + 0.14, (246, 246, 240))
                pen.box(x - 0.15, y - 0.09, x + 0.15, y + 0.11, (70, 96, 130))
        pen.polygon([(-0.14, 0.8), (0.14, 0.8), (0.5, 1.4), (-0.5, 1.4)], (190, 180, 164))
        for x in (-1.08, 1.08):
            pen.box(x - 0.05, 0.2, x + 0.05, 0.75, (92, 64, 40))
            pen.ellipse(x, 0.0, 0.24, 0.36, (48, 110, 52))
    elif kind == 1:
        wall, floor = any_colour(rng, 150, 235), shade((178, 130, 84), rng.uniform(0.6, 1.1))
        pen.box(-1.4, -1.4, 1.4, 1.4, shade(wall, 0.85))
        pen.polygon([(-1.4, -1.4), (1.4, -1.4), (0.5, -0.5), (-0.5, -0.5)], shade(wall, 1.15))
        pen.polygon([(-1.4, 1.4), (1.4, 1.4), (0.5, 0.45), (-0.5, 0.45)], floor)
        for k in np.linspace(-1.4, 1.4, 9):
            pen.line([(float(k), 1.4), (float(k) * 0.36, 0.45)], 0.02, shade(floor, 0.7))
        pen.box(-0.5, -0.5, 0.5, 0.45, shade(wall, 1.0))
        pen.box(-0.2, -0.3, 0.24, 0.2, (206, 230, 250))
        pen.line([(0.02, -0.3), (0.02, 0.2)], 0.03, (250, 250, 250))
        pen.polygon([(-1.15, -0.7), (-0.75, -0.45), (-0.75, 0.72), (-1.15, 1.05)], (112, 74, 44))
        pen.polygon([(0.7, 0.3), (1.2, 0.55), (1.2, 1.1), (0.7, 0.75)], shade(any_colour(rng), 0.8))
    else:
        pen.box(-1.4, -1.4, 1.4, 0.5, (176, 206, 232))
        pen.box(-1.4, 0.45, 1.4, 1.4, (96, 96, 100))
        edges = np.cumsum(rng.uniform(0.3, 0.5, 9)) - 1.6
        for left, right in pairwise(edges):
            top, tone = rng.uniform(-1.1, -0.2), int(rng.integers(80, 190))
            pen.box(left, top, right - 0.03, 0.5, (tone, tone - 10, tone - 20))
            for y in np.arange(top + 0.1, 0.4, 0.17):
                for x in np.arange(left + 0.06, right - 0.1, 0.12):
                    pen.box(float(x), float(y), float(x) + 0.06, float(y) + 0.09, (240, 226, 150))
        pen.polygon([(-0.9, 1.4), (0.9, 1.4), (0.1, 0.5), (-0.1, 0.5)], (64, 64, 68))
        for y in (0.65, 0.9, 1.2):
            pen.polygon([(-0.03, y), (0.03, y), (0.05, y + 0.13), (-0.05, y + 0.13)], (240, 240, 230))


def draw_word(pen: Pen, rng: np.random.Generator) -> None:
    """One or two lines of capital letters, on a sign in half of the cases."""
    lines = ["".join(LETTERS[int(k)] for k in rng.integers(len(LETTERS), size=int(rng.integers(3, 6))))]
    if rng.random() < 0.6:
        lines.append("".join(LETTERS[int(k)] for k in rng.integers(len(LETTERS), size=len(lines[0]))))
    ink: Colour = (250, 250, 246)
    if rng.random() < 0.5:
        high = 0.42 * len(lines)
        pen.box(-1, -high, 1, high, pick(rng, ((250, 250, 240), (250, 226, 90), (236, 236, 236))))
        ink = pick(rng, ((16, 16, 20), (150, 20, 24), (20, 40, 120)))
    font = ImageFont.load_default(max(6.0, pen.scale * 1.9 * 1.35 / len(lines[0])))
    for row, text in enumerate(lines):
        x, y = pen.place([(0.0, 0.78 * (row - (len(lines) - 1) / 2))])[0]
        stroke = max(1, round(pen.scale * 0.03))
        fill = (*ink, 255)
        pen.draw.text((x, y), text, fill, font, anchor="mm", stroke_width=stroke, stroke_fill=fill)


def draw_food(pen: Pen, rng: np.random.Generator) -> None:
    """A pizza or a bowl of fruit on a plate, or a burger."""
    kind = int(rng.integers(3))
    if kind == 2:
        bun = (214, 146, 70)
        pen.ellipse(0, 0.5, 0.86, 0.3, bun)
        pen.box(-0.88, 0.12, 0.88, 0.42, (92, 50, 28))
        pen.polygon(
            [(-0.94, 0.02), (0.94, 0.02), (0.7, 0.3), (0.3, 0.06), (-0.2, 0.32), (-0.6, 0.08)], (250, 200, 60)
        )
        pen.ellipse(0, 0.04, 0.96, 0.13, (96, 170, 60))
        pen.ellipse(0, -0.08, 0.9, 0.12, (206, 50, 40))
        pen.ellipse(0, -0.1, 0.88, 0.66, bun, 0.5, 1.0)
        for _ in range(14):
            pen.ellipse(rng.uniform(-0.55, 0.55), rng.uniform(-0.6, -0.3), 0.045, 0.03, (250, 232, 190))
        return
    pen.ellipse(0, 0, 1.0, 1.0, (238, 238, 242))
    pen.ellipse(0, 0, 0.9, 0.9, (214, 214, 222))
    if kind == 0:
        pen.ellipse(0, 0, 0.82, 0.82, (196, 130, 64))
        pen.ellipse(0, 0, 0.72, 0.72, (246, 200, 92))
        for k in range(9):
            turn, far = k * 2.4 + rng.uniform(0, 0.4), 0.1 + 0.5 * math.sqrt(k / 9)
            pen.ellipse(far * math.cos(turn), far * math.sin(turn), 0.13, 0.13, (190, 44, 30))
        for _ in range(8):
            x, y = rng.uniform(-0.45, 0.45, 2)
            pen.ellipse(float(x), float(y), 0.07, 0.04, (70, 130, 50))
    else:
        fruits: tuple[Colour, ...] = ((206, 36, 40), (246, 150, 30), (120, 176, 50), (250, 214, 60))
        for x, y in ((-0.38, -0.3), (0.36, -0.34), (-0.36, 0.34), (0.4, 0.32), (0.0, 0.0)):
            fruit = pick(rng, fruits)
            pen.ellipse(x, y, 0.36, 0.36, shade(fruit, 0.75))
            pen.ellipse(x - 0.03, y - 0.03, 0.32, 0.32, fruit)
            pen.ellipse(x - 0.12, y - 0.13, 0.08, 0.06, (255, 246, 230))
            pen.line([(x, y - 0.3), (x + 0.04, y - 0.42)], 0.05, (84, 58, 30))


def draw_animal(pen: Pen, rng: np.random.Generator) -> None:
    """A four-legged animal from the side; spotted, striped or plain."""
    coat = pick(rng, ((236, 236, 230), (214, 150, 80), (120, 84, 54), (170, 170, 176), (236, 190, 120)))
    dark, facing = shade(coat, 0.45), 1 if rng.random() < 0.5 else -1
    neck = rng.uniform(0.1, 0.45)

    def at(x: float, y: float) -> Point:
        return facing * x, y

    for x in (-0.52, -0.3, 0.3, 0.5):
        pen.line([at(x, 0.2), at(x + rng.uniform(-0.08, 0.08), 0.9)], 0.14, shade(coat, 0.85))
    pen.line([at(-0.6, -0.05), at(-0.85, 0.05), at(-0.92, 0.4)], 0.08, dark)
    pen.ellipse(0, 0.05, 0.68, 0.34, coat)
    head = (0.72, -0.2 - neck)
    pen.line([at(0.5, -0.05), at(*head)], 0.3, coat)
    pen.ellipse(facing * head[0], head[1], 0.24, 0.2, coat)
    pen.ellipse(facing * (head[0] + 0.2), head[1] + 0.06, 0.15, 0.11, shade(coat, 0.8))
    pen.ellipse(facing * (head[0] + 0.3), head[1] + 0.03, 0.04, 0.04, (20, 16, 16))
    for dx in (-0.14, 0.04):
        ear = [at(head[0] + dx - 0.07, head[1] - 0.12), at(head[0] + dx + 0.07, head[1] - 0.14)]
        pen.polygon([*ear, at(head[0] + dx - 0.02, head[1] - 0.42)], dark)
    pen.ellipse(facing * (head[0] + 0.04), head[1] - 0.04, 0.045, 0.045, (15, 15, 15))
    style = int(rng.integers(3))
    for k in range(7):
        x = -0.5 + k * 0.16
        if style == 0:
            pen.ellipse(x, 0.05 + rng.uniform(-0.18, 0.18), 0.08, 0.07, dark)
        elif style == 1:
            pen.line([(x, -0.18), (x + 0.03, 0.22)], 0.05, dark)


def draw_tool(pen: Pen, rng: np.random.Generator) -> None:
    """A hammer, a spanner or a pair of scissors."""
    handle, steel = any_colour(rng, 40, 220), (176, 180, 188)
    kind = int(rng.integers(3))
    if kind == 0:
        pen.line([(0, 0.9), (0, -0.5)], 0.2, (170, 112, 60))
        pen.line([(0, 0.9), (0, 0.3)], 0.24, handle)
        pen.polygon([(-0.6, -0.8), (0.4, -0.8), (0.75, -0.5), (0.35, -0.42), (-0.6, -0.42)], steel)
        pen.box(-0.72, -0.86, -0.5, -0.36, shade(steel, 0.7))
    elif kind == 1:
        pen.line([(0, 0.65), (0, -0.45)], 0.24, steel)
        pen.line([(0, 0.45), (0, -0.25)], 0.1, shade(steel, 0.7))
        pen.ellipse(0, -0.62, 0.36, 0.34, steel)
        pen.polygon([(-0.17, -1.05), (0.17, -1.05), (0.14, -0.6), (-0.14, -0.6)], (30, 30, 36))
        pen.ellipse(0, 0.72, 0.28, 0.28, steel)
        pen.ellipse(0, 0.72, 0.14, 0.14, (30, 30, 36))
    else:
        for side in (-1, 1):
            pen.line(
                [(side * 0.22, 0.45), (-side * 0.34, -0.9)], 0.12, shade(steel, 1.0 if side < 0 else 0.8)
            )
            pen.ellipse(side * 0.36, 0.66, 0.34, 0.32, handle)
            pen.ellipse(side * 0.36, 0.66, 0.19, 0.17, (236, 236, 236))
        pen.ellipse(0, -0.06, 0.07, 0.07, (60, 60, 66))


def draw_vehicle(pen: Pen, rng: np.random.Generator) -> None:
    """A car or a bus from the side."""
    paint, glass, tyre = any_colour(rng), (170, 206, 226), (24, 24, 26)
    if rng.random() < 0.5:
        pen.polygon([(-0.55, -0.05), (-0.35, -0.42), (0.3, -0.42), (0.6, -0.05)], paint)
        pen.polygon([(-0.45, -0.05), (-0.29, -0.34), (-0.04, -0.34), (-0.04, -0.05)], glass)
        pen.polygon([(0.03, -0.34), (0.26, -0.34), (0.47, -0.05), (0.03, -0.05)], glass)
        pen.polygon(
            [(-0.96, 0.0), (-0.55, -0.08), (0.6, -0.08), (0.95, 0.04), (0.97, 0.35), (-0.97, 0.35)], paint
        )
        pen.line([(-0.9, 0.3), (0.9, 0.3)], 0.05, shade(paint, 0.6))
        pen.ellipse(0.9, 0.1, 0.06, 0.06, (255, 244, 190))
        wheels = 0.2
    else:
        pen.box(-1.0, -0.6, 1.0, 0.42, paint)
        for x in np.linspace(-0.88, 0.58, 5):
            pen.box(float(x), -0.45, float(x) + 0.24, -0.08, glass)
        pen.box(-1.0, 0.08, 1.0, 0.16, (244, 244, 244))
        pen.box(0.8, -0.4, 1.0, -0.02, glass)
        wheels = 0.19
    for x in (-0.58, 0.56):
        pen.ellipse(x, 0.4, wheels, wheels, tyre)
        pen.ellipse(x, 0.4, wheels * 0.5, wheels * 0.5, (190, 190, 196))


OBJECTS: dict[str, Callable[[Pen, np.random.Generator], None]] = {
    "face": draw_face,
    "body": draw_body,
    "place": draw_place,
    "word": draw_word,
    "food": draw_food,
    "animal": draw_animal,
    "tool": draw_tool,
    "vehicle": draw_vehicle,
}
CATEGORIES: tuple[str, ...] = tuple(OBJECTS)
