"""Text that a model, a file or another machine made is data: never terminal control, never markup.

Two layers. :func:`safe_text` stands at the boundary: it makes every control character visible, so
that nothing is lost and nothing acts. :class:`ControlFilter` is the last line of defence inside
Textual: whatever reaches the screen, it deletes what a terminal would obey.
"""

from __future__ import annotations

import re

from rich.segment import Segment
from textual.color import Color
from textual.content import Content
from textual.filter import LineFilter

# Everything that steers a terminal or hides from a reader. U+200D (the joiner of emoji) and the
# variation selectors are ordinary parts of text and stay.
_UNSAFE = (
    "\x00-\x1f\x7f-\x9f"  # C0, DEL, C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidi marks, embeddings, overrides, isolates
    "\u00ad\u034f\u180e\u200b\u200c\u2060-\u2065\u206a-\u206f\ufeff"  # zero width, invisible operators
    "\u2028\u2029"  # line and paragraph separators
    "\ufff9-\ufffb"  # interlinear annotation
    "\U000e0000-\U000e007f"  # tags
    "\ud800-\udfff"  # lone surrogates: no encoder takes them
)
_unsafe = re.compile(f"[{_UNSAFE}]")
_REPLACEMENT = "\ufffd"
_TAB = "    "


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code == 0x09:
        return _TAB
    if code < 0x20:
        return chr(0x2400 + code)  # the pictures of the C0 controls
    if code == 0x7F:
        return "\u2421"
    return _REPLACEMENT


def safe_text(text: str, *, newlines: bool = False) -> str:
    """``text`` with every control made visible: ESC becomes U+241B, others U+FFFD, a tab four spaces.

    With ``newlines`` a line feed stays (and CR LF becomes one); otherwise it is shown as U+240A.
    """
    if newlines:
        return "\n".join(safe_text(line) for line in text.replace("\r\n", "\n").split("\n"))
    return _unsafe.sub(_visible, text)


def plain(text: str) -> Content:
    """``text`` as Textual content: safe, on one line, and no markup whatever it holds."""
    return Content(safe_text(text))


class ControlFilter(LineFilter):
    """Deletes from every painted line what a terminal could take for a command."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if not any(_unsafe.search(segment.text) for segment in segments):
            return segments
        return [Segment(_unsafe.sub("", text), style, control) for text, style, control in segments]
