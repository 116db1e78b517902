"""The exceptions metafilm raises for what a caller can put right.

Every message states the value found, what was expected and what to do about it.
"""


class MetafilmError(ValueError):
    """Base of every error metafilm raises on purpose; the command line prints it without a traceback."""


class ConfigError(MetafilmError):
    """A configuration with unknown keys, wrong types or impossible values.

    `problems` lists all of them, one line each, every line naming its dotted flag.
    """

    def __init__(self, problems: list[str], source: str = "configuration"):
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {problem}" for problem in problems)]))


class RunError(MetafilmError):
    """A run directory that is in use, damaged, or belongs to a different configuration."""


class CheckpointError(MetafilmError):
    """A weights or checkpoint file that is missing, damaged, or does not fit the network."""


class NotFinite(MetafilmError):
    """Weights or predictions with NaN or infinite values, which no score can be made of."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
