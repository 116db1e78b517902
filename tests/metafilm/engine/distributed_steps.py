"""Three outer steps in float64, by one process or by as many as torchrun starts; not a test itself.

python distributed_steps.py FILE
"""

import sys

import torch

from episodes import ClassPool, Episode
from metafilm.config.config import Config
from metafilm.config.sources import Source
from metafilm.engine import distributed
from metafilm.evaluation import evaluate
from metafilm.learner.build import build_learner
from metafilm.training.outer_loop import OuterLoop

TASKS = 5  # an odd number: the processes' parts differ


class Generated:
    """Random images, a pure function of the episode number."""

    def batch(self, numbers: list[int]) -> Episode:
        tasks = []
        for number in numbers:
            generator = torch.Generator().manual_seed(number)
            images = torch.rand(1, 3 * 4, 1, 16, 16, generator=generator, dtype=torch.float64)
            labels = torch.arange(3).unsqueeze(0)
            tasks.append(
                Episode(
                    images[:, :6],
                    labels.repeat_interleave(2, 1),
                    images[:, 6:],
                    labels.repeat_interleave(2, 1),
                    ways=3,
                    index=torch.tensor([number]),
                    class_ids=labels,
                )
            )
        return Episode.cat(tasks)

    def prefetch(self, batches, max_tasks=None, depth=2):
        for numbers in batches:
            yield [self.batch([number]) for number in numbers]


def plain_images() -> ClassPool:
    """Three classes of four images."""
    images = torch.randint(
        256, (12, 1, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    return ClassPool.from_arrays(images.numpy(), torch.arange(3).repeat(4).numpy(), ["a", "b", "c"])


def main(file: str) -> None:
    config = Config.from_dict(
        {
            "data": {"image_size": 16},
            "episodes": {"ways": 3, "shots": 2, "queries": 2},
            "backbone": {"width": 4},
            "encoder": {"width": 6},
            "inner": {"steps": 2},
            "outer": {
                "iterations": 9,
                "meta_batch": TASKS,
                "auxiliary": 0.5,
                "average": 0.9,
                "warmup": 1,
                "plain": 6,
            },
        }
    )
    group = distributed.start()
    learner = build_learner(config, image_shape=(1, 16, 16), train_classes=3).double()
    learner = learner.to(memory_format=torch.channels_last)  # as a training has it
    with torch.no_grad():
        # at 0 the decoder's first gradients are rounding alone, which Adam would blow up to full steps
        learner.encoder.multiplier.fill_(0.3)
    loop = OuterLoop(learner, config, Source(None, (plain_images(),)), group)  # type: ignore[arg-type]
    loop.plain.classifier.double()
    reports = [loop.step([Generated().batch(loop.indices(i))]) for i in range(3)]
    found = evaluate(learner, Generated(), 7, group=group)  # type: ignore[arg-type]
    if group.leads:
        state = (
            dict(learner.state_dict())
            | loop.plain.classifier.state_dict()
            | {f"average/{k}": v for k, v in loop.average.state().items()}
        )
        names = ("loss", "penalty", "auxiliary", "accuracy", "gradient_norm", "plain_loss")
        state["reports"] = torch.tensor([[report[name] for name in names] for report in reports])
        state["evaluation"] = torch.tensor([*found["accuracy_by_step"], *found["ci95_by_step"]])
        torch.save(state, file)
    if group.size > 1:
        group.wait()
        distributed.leave(0)


if __name__ == "__main__":
    main(sys.argv[1])
