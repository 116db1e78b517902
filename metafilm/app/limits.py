"""How much one page may ask for, and what it is told beyond that."""

from __future__ import annotations

from metafilm.errors import MetafilmError

MOST_BYTES = 12 << 20  # of one picture's file
MOST_PIXELS = 24_000_000  # of one picture, decoded
MOST_CLASSES = 20
MOST_EXAMPLES = 20  # of a class
MOST_SESSIONS = 16  # open pages; the one that was longest idle goes
MOST_POINTS = 20_000  # of one drawing
MOST_JSON = 1 << 20  # bytes of what is sent as text: a drawing of so many points
MOST_OPENED = 2  # pictures that are decoded at a time
MOST_CONNECTIONS = 128
NAME_LENGTH = 60


class Refused(MetafilmError):
    """A request that is not served, with the HTTP status and what to tell the person."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


def public() -> dict[str, int]:
    """The limits that the page should know, so that it can say so before anything is sent."""
    return {"bytes": MOST_BYTES, "classes": MOST_CLASSES, "examples": MOST_EXAMPLES, "name": NAME_LENGTH}
