"""A local page on which a person draws, uploads or photographs a few examples and then asks."""

from metafilm.app.desk import Desk
from metafilm.app.limits import Refused
from metafilm.app.server import Server

__all__ = ["Desk", "Refused", "Server"]
