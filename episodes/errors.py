"""The one exception this package raises on purpose."""


class EpisodesError(ValueError):
    """Something about the data or the request is wrong; the message says what was found, what was expected,
    what to do."""
