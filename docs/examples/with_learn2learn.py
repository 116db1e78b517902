"""learn2learn's MAML on metafilm's episodes: python with_learn2learn.py --iterations 1000

Its second-order meta-gradient goes through all weights of a small network; the episodes are generated
characters, 5-way, 5 shots. It ends with the accuracy on classes it never saw, and its interval.
learn2learn 0.2.0 installs on Python 3.11 as tests/requirements-learn2learn.txt says.
"""

import argparse
import warnings

import torch
from torch import nn
from torch.nn import functional as F

import episodes
from metafilm.evaluation import interval

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # gym, which learn2learn imports, says that it is no longer looked after
    import learn2learn as l2l

WAYS, SHOTS = 5, 5


def tasks(split: str, seed: int, count: int):
    """A learn2learn taskset: task i is episode i of the sampler, each time."""
    pool = episodes.load("strokes", split)
    sampler = episodes.EpisodeSampler(pool, ways=WAYS, shots=SHOTS, queries=SHOTS, seed=seed)
    return episodes.to_taskset(sampler, num_tasks=count)


def network() -> nn.Module:
    """Images [n, 1, 28, 28] -> logits [n, 5]."""

    def block(channels: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(channels, 32, 3, stride=2, padding=1), nn.GroupNorm(8, 32), nn.ReLU())

    return nn.Sequential(block(1), block(32), block(32), nn.Flatten(), nn.Linear(32 * 16, WAYS))


def query_loss(maml: l2l.algorithms.MAML, task, steps: int = 1) -> tuple[torch.Tensor, float]:
    """Adapt a clone to half of each class's images; its loss and accuracy in percent on the others."""
    images, labels = task  # class by class, each class's support first
    support = torch.arange(len(labels)) % (2 * SHOTS) < SHOTS
    clone = maml.clone()
    for _ in range(steps):
        clone.adapt(F.cross_entropy(clone(images[support]), labels[support]))
    logits = clone(images[~support])
    right = (logits.argmax(-1) == labels[~support]).float().mean()
    return F.cross_entropy(logits, labels[~support]), 100 * float(right)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--test-tasks", type=int, default=200)
    options = parser.parse_args()
    torch.manual_seed(0)
    maml = l2l.algorithms.MAML(network(), lr=0.3)
    optimiser = torch.optim.Adam(maml.parameters(), 2e-3)
    training = tasks("train", seed=0, count=4 * options.iterations)
    for iteration in range(options.iterations):
        optimiser.zero_grad()
        found = [query_loss(maml, training[4 * iteration + i]) for i in range(4)]
        torch.stack([loss for loss, _ in found]).mean().backward()
        optimiser.step()
        if iteration % 50 == 0:
            print(f"iteration {iteration}: {sum(right for _, right in found) / 4:.1f} %")
    test = tasks("test", seed=1, count=options.test_tasks)
    scores = [query_loss(maml, test[i])[1] for i in range(options.test_tasks)]
    print(f"new classes: {sum(scores) / len(scores):.1f} ± {interval(scores):.1f} %")


if __name__ == "__main__":
    main()
