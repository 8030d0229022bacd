"""Names beside points, each where it covers nothing; left out where there is no such place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.path import Path
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Affine2D

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch
    from matplotlib.transforms import Bbox
    from numpy.typing import NDArray

Offset = tuple[float, float]

FROM_NAMES = 1.0  # points of room between names
APART = 8.0  # points between two points that both have a name; nearer ones would be mistaken
FROM_LINES = 3.0  # and to lines and the middle of marks: half a mark


def place(
    axes: Axes,
    names: Iterable[tuple[str, tuple[float, float]]],
    offsets: Sequence[Offset],
    *,
    colour: str,
) -> None:
    """Write each name at the first offset from its point, in points, that is free.

    The first names get the first choice. Free of what `axes` has by now, names included; so draw
    all else before, and settle the layout with `Figure.draw_without_rendering`.
    """
    named: list[NDArray[np.float64]] = []
    for text, point in names:
        here = axes.transData.transform(point) * 72 / axes.figure.dpi
        if any(np.hypot(*(here - other)) < APART for other in named):
            continue
        for x, y in offsets:
            label = axes.annotate(
                text,
                point,
                xytext=(x, y),
                textcoords="offset points",
                ha="left" if x >= 0 else "right",
                va="center",
                fontsize=9,
                color=colour,
                fontweight="bold",
            )
            if _is_free(label, axes):
                named.append(here)
                break
            label.remove()


def outline(text: Text) -> Path:
    """Return where a text that was drawn lies on paper, an annotation's arrow apart.

    A slanted one is the slanted box, not the upright one around it; it has to be anchored.
    """
    angle = text.get_rotation()
    if text.get_rotation_mode() != "anchor":
        return _rectangle(Text.get_window_extent(text))
    text.set_rotation(0)
    box = Text.get_window_extent(text)
    text.set_rotation(angle)
    x, y = text.get_transform().transform(text.get_position())
    return _rectangle(box).transformed(Affine2D().rotate_deg_around(x, y, angle))


def touches(line: Line2D, box: Bbox) -> bool:
    """Say whether a line, or one of its marks, comes into a box on paper."""
    path = _path(line)
    corners = np.asarray(path.vertices)
    inside = (corners >= box.min) & (corners <= box.max)
    if inside.all(axis=1).any():
        return True
    drawn = line.get_linestyle() != "None" and len(corners) > 1
    return drawn and bool(path.intersects_bbox(box, filled=False))


def _is_free(label: Annotation, axes: Axes) -> bool:
    box = label.get_window_extent()
    point = axes.figure.dpi / 72
    near, around = box.padded(FROM_NAMES * point), box.padded(FROM_LINES * point)
    frame = axes.get_window_extent()
    arrows = [each.arrow_patch for each in axes.texts if isinstance(each, Annotation)]
    return (
        not any(_path(each).intersects_bbox(around, filled=False) for each in arrows if each)
        and not any(outline(each).intersects_bbox(near) for each in axes.texts if each is not label)
        and not any(touches(line, around) for line in axes.lines)
        and bool(np.all(frame.min <= box.min) and np.all(box.max <= frame.max))
    )


def _path(drawn: Line2D | Patch) -> Path:
    return drawn.get_transform().transform_path(drawn.get_path())


def _rectangle(box: Bbox) -> Path:
    return Path([box.p0, (box.x1, box.y0), box.p1, (box.x0, box.y1), box.p0], closed=True)
