"""Episode: sizes, moving, selecting, joining."""

import pytest
import torch

from episodes import Episode, EpisodesError


def make(tasks=2, ways=3, shots=2, queries=4, start=0, **more):
    labels = torch.arange(ways).expand(tasks, ways)
    return Episode(
        torch.rand(tasks, ways * shots, 1, 5, 5),
        labels.repeat_interleave(shots, 1),
        torch.rand(tasks, ways * queries, 1, 5, 5),
        labels.repeat_interleave(queries, 1),
        ways,
        torch.arange(start, start + tasks),
        **more,
    )


def test_sizes():
    episode = make()
    assert (episode.tasks, episode.ways, episode.shots, episode.queries) == (2, 3, 2, 4)
    assert episode.device == torch.device("cpu")


def test_sizes_of_regression_count_points():
    points = torch.rand(4, 10, 1)
    episode = Episode(points, points, points[:, :7], points[:, :7], 0, torch.arange(4))
    assert (episode.tasks, episode.shots, episode.queries) == (4, 10, 7)


def test_select_then_cat_is_the_whole():
    episode = make(tasks=3, class_ids=torch.arange(9).view(3, 3), support_views=torch.rand(3, 2, 6, 1, 5, 5))
    again = Episode.cat([episode.select(0), episode.select(1), episode.select(-1)])
    for name in ("support_images", "query_labels", "index", "class_ids", "support_views"):
        assert torch.equal(getattr(again, name), getattr(episode, name)), name
    assert again.support_ids is None and again.ways == 3


def test_to_moves_every_tensor():
    moved = make(class_ids=torch.zeros(2, 3, dtype=torch.int64)).to("meta")
    assert {moved.support_images.device.type, moved.index.device.type, moved.class_ids.device.type} == {
        "meta"
    }


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([], "at least one"),
        ([make(ways=3), make(ways=2)], r"equal ways, got \[2, 3\]"),
        ([make(), make(queries=1)], "query_images has shapes"),
        ([make(), make(class_ids=torch.zeros(2, 3))], "class_ids has shapes"),
    ],
)
def test_cat_refuses_what_does_not_fit(parts, says):
    with pytest.raises(EpisodesError, match=says):
        Episode.cat(parts)


@pytest.mark.parametrize("task", [2, -3])
def test_select_outside(task):
    with pytest.raises(EpisodesError, match="choose 0 to 1"):
        make().select(task)
