"""Joint steps: images of all training classes beside the tasks of an outer step.

What CAN (Hou et al., NeurIPS 2019, arXiv:1910.07677) and RENet (Kang et al., ICCV 2021, arXiv:2108.09666)
train with: outer loss + ``outer.plain_weight`` × cross entropy of the plain images at δ = 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from episodes import Episode
from metafilm.config.config import Config
from metafilm.config.sources import Source, plain_source
from metafilm.learner.learner import MetaFiLM
from metafilm.training.outer_gradient import finite
from metafilm.training.plain.classifiers import classified, classifier


class PlainImages:
    """The plain images of each outer step, and the classifier that learns from them.

    Args:
        learner: whose backbone learns from them.
        config: all settings, of which ``outer.plain`` is not 0.
        source: of the training episodes; the images are of its pools.

    Attributes:
        classifier: features -> logits of all training classes; that of the pre-training, or a fresh one.
    """

    def __init__(self, learner: MetaFiLM, config: Config, source: Source) -> None:
        self.learner, self.config = learner, config
        self.source = plain_source(config, source.pools, config.outer.plain)
        self.classifier = classifier(learner, config, self.source.classes)
        self._ahead: Iterator[list[Episode]] | None = None
        self._next = 0

    def gradient(self, iteration: int) -> dict[str, float]:
        """Add ``outer.plain_weight`` × the gradient of the images of an iteration to the parameters'; returns
        their ``plain_loss`` and ``plain_accuracy`` (percent).

        Raises:
            Diverged: the loss is not finite.
        """
        settings = self.config.outer
        self.learner.train()
        with self.learner.in_precision(settings.precision):
            loss, accuracy = classified(
                self.learner,
                self.classifier,
                self.source,
                self.batch(iteration),
                smoothing=self.config.pretrain.label_smoothing,
            )
        (settings.plain_weight * finite(loss)).backward()
        return {"plain_loss": float(loss.detach()), "plain_accuracy": accuracy}

    def batch(self, iteration: int) -> Episode:
        """The images of an iteration, whatever was asked for before: other ones than the pre-training's."""
        if self._ahead is None or iteration != self._next:
            self.close()
            first = self.config.pretrain.iterations
            last = max(self.config.outer.iterations, iteration + 1)
            numbers = ([first + i] for i in range(iteration, last))
            self._ahead = self.source.sampler.prefetch(numbers)
        self._next = iteration + 1
        return next(self._ahead)[0]

    def close(self) -> None:
        """End the thread that makes batches ahead."""
        if self._ahead is not None:
            with closing(self._ahead):  # type: ignore[type-var]
                self._ahead = None
