"""Splits of generated scenes: which numbers are whose."""

from collections.abc import Mapping

from episodes.errors import EpisodesError


def require(scenes: int, first: int) -> None:
    """Raises EpisodesError for less than one scene or a negative first one."""
    if scenes < 1 or first < 0:
        raise EpisodesError(f"{scenes} scenes from number {first}: ask for at least one, from 0 on")


def part(
    name: str, scenes: int | None, starts: Mapping[str, int], usual: Mapping[str, int]
) -> tuple[int, int]:
    """How many scenes of a split are asked for, and the first one's number.

    Args:
        scenes: as many as this; None: as `usual` has it.
        starts: split -> its first scene; all but the last split end where the next begins.

    Raises EpisodesError for another name, and more scenes than a split has.
    """
    if name not in starts:
        raise EpisodesError(f"no split {name!r}; there are {', '.join(starts)}")
    later = [start for start in starts.values() if start > starts[name]]
    if later and scenes is not None and scenes > (most := min(later) - starts[name]):
        raise EpisodesError(f"{scenes} scenes of {name}, which has {most}; ask for fewer")
    return usual[name] if scenes is None else scenes, starts[name]
