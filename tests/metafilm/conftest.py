"""Small learners and generated episodes: nothing here reads a file."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from episodes import ClassPool, Episode, EpisodeSampler
from metafilm import MetaFiLM, film, norms
from metafilm.config.config import Config
from metafilm.learner.build import build_learner


def tiny_config(**sections: dict[str, Any]) -> Config:
    """A configuration of a network small enough for a test; each section given is laid over it."""
    settings: dict[str, dict[str, Any]] = {
        "data": {"image_size": 16},
        "episodes": {"ways": 3, "shots": 2, "queries": 2},
        "backbone": {"width": 4},
        "encoder": {"width": 6},
        "outer": {"iterations": 4, "meta_batch": 2, "task_chunk": 1, "learning_rate": 0.01, "warmup": 2},
        "evaluation": {"every": 2, "episodes": 4},
    }
    for name, section in sections.items():
        settings.setdefault(name, {}).update(section)
    return Config.from_dict(settings)


@pytest.fixture(name="tiny_config")
def tiny_config_fixture() -> Callable[..., Config]:
    return tiny_config


def disturb(module: nn.Module, seed: int = 0, by: float = 0.2) -> None:
    """Move everything but deviations off its first value, so that no test passes for want of a signal."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in module.state_dict().items():
            if name.endswith(("delta_gamma", "delta_beta", "mean", "std")) and "running" not in name:
                continue
            if name.endswith("running_var"):
                value.mul_(0.5 + torch.rand(value.shape, generator=generator).to(value))
            elif "step_sizes" in name:
                value.add_(0.05 * torch.rand(value.shape, generator=generator).to(value))
            elif value.is_floating_point():
                value.add_(by * torch.randn(value.shape, generator=generator).to(value))


@pytest.fixture(name="disturb")
def disturb_fixture() -> Callable[..., None]:
    return disturb


def settle(learner: MetaFiLM) -> None:
    """Running averages that fit the weights, as training leaves them: else deep networks overflow."""
    if len(learner.image_shape) == 3:
        layers = [module for module in learner.backbone.modules() if isinstance(module, norms.Norm)]
        for layer in layers:
            layer.momentum = 0.8
        images = torch.rand(1, 8, *learner.image_shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            learner.train().features(learner.prepare(images), {}, 1, record=True)
        norms.commit(learner.backbone)
        for layer in layers:
            layer.momentum = 0.1


@pytest.fixture
def make_learner() -> Callable[..., MetaFiLM]:
    """`make_learner(fresh=False, dtype=float64, train_classes=0, shape=(1, 16, 16), **sections)`."""

    def make(
        *,
        fresh: bool = False,
        dtype: torch.dtype = torch.float64,
        train_classes: int = 0,
        shape: tuple[int, ...] = (1, 16, 16),
        **sections: dict[str, Any],
    ) -> MetaFiLM:
        channels = shape[0]
        learner = build_learner(
            tiny_config(**sections), shape, train_classes, [0.4] * channels, [0.5] * channels
        )
        if not fresh:
            disturb(learner)
            settle(learner)
        return learner.to(dtype)

    return make


@pytest.fixture
def of_functions(make_learner) -> MetaFiLM:
    """A learner of functions of one number, with one inner step."""
    return make_learner(
        shape=(1,),
        data={"name": "sinusoids", "image_size": None},
        backbone={"name": "mlp", "hidden": [6, 6]},
        head={"name": "regression"},
        inner={"steps": 1},
    )


@pytest.fixture
def make_episode() -> Callable[..., Episode]:
    """`make_episode(tasks, ways, shots, queries, seed, shape)`: noisy copies of one random image a class."""

    def make(
        tasks: int = 3,
        ways: int = 3,
        shots: int = 2,
        queries: int = 2,
        seed: int = 0,
        shape: tuple[int, int, int] = (1, 16, 16),
    ) -> Episode:
        generator = torch.Generator().manual_seed(seed)
        classes = torch.rand(tasks, ways, 1, *shape, generator=generator)

        def images(count: int) -> Tensor:
            noise = torch.rand(tasks, ways, count, *shape, generator=generator)
            return (0.6 * classes + 0.4 * noise).flatten(1, 2)

        labels = torch.arange(ways).expand(tasks, ways)
        return Episode(
            support_images=images(shots),
            support_labels=labels.repeat_interleave(shots, 1),
            query_images=images(queries),
            query_labels=labels.repeat_interleave(queries, 1),
            ways=ways,
            index=torch.arange(tasks) + 10 * seed,
            class_ids=torch.stack([torch.randperm(7, generator=generator)[:ways] for _ in range(tasks)]),
        )

    return make


@pytest.fixture(scope="session")
def pool() -> ClassPool:
    """Seven easy classes of eight 16x16 images."""
    generator = torch.Generator().manual_seed(5)
    classes = torch.rand(7, 1, 1, 16, 16, generator=generator)
    noise = torch.rand(7, 8, 1, 16, 16, generator=generator)
    images = ((0.7 * classes + 0.3 * noise) * 255).to(torch.uint8).flatten(0, 1)
    labels = torch.arange(7).repeat_interleave(8)
    return ClassPool.from_arrays(images.numpy(), labels.numpy(), [f"class{i}" for i in range(7)])


@pytest.fixture
def sampler(pool: ClassPool) -> EpisodeSampler:
    return EpisodeSampler(pool, ways=3, shots=2, queries=2, seed=1)


@pytest.fixture
def random_film() -> Callable[..., dict[str, Tensor]]:
    """`random_film(network, tasks=None, seed=0)`: deviations [C], or [T, C]."""

    def make(network: nn.Module, tasks: int | None = None, seed: int = 0) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        shapes = film.parameters(network)
        return {
            name: 0.3
            * torch.randn(*(() if tasks is None else (tasks,)), *value.shape, generator=generator).to(value)
            for name, value in shapes.items()
        }

    return make


def even(logits: Tensor) -> Tensor:
    """The cross entropy with a target that is the same for all classes, as the formula says it."""
    log_probabilities = logits - logits.exp().sum(-1, keepdim=True).log()
    return -log_probabilities.mean()


@pytest.fixture
def outer_loss():
    """The outer loss of T tasks in one graph, as the formulas say it: what the engine is compared with."""

    def loss(learner, episode, steps=None):
        config = learner.config.outer
        found = learner.adaptation(episode, steps=steps)
        films = found.films[-1]
        prediction, features = next(learner.predictions(episode, [films]))
        value = learner.head.loss(prediction, episode.query_labels).mean()
        share = config.label_smoothing
        value = (1 - share) * value + (share * even(prediction) if share else 0.0)
        if films:
            value = value + config.penalty * torch.cat(list(films.values()), 1).square().mean()
        if learner.auxiliary is not None:
            labels = torch.cat((episode.support_labels, episode.query_labels), 1)
            if found.features is not None:
                features, labels = found.features, episode.support_labels
            classes = episode.class_ids.gather(1, labels[:, -features.shape[1] :])
            logits = learner.auxiliary(features).flatten(0, 1)
            auxiliary = torch.nn.functional.cross_entropy(logits, classes.flatten())
            auxiliary = (1 - share) * auxiliary + (share * even(logits) if share else 0.0)
            value = value + config.auxiliary * auxiliary
        return value

    return loss


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium, driven by selenium; tests are skipped where one of them is not there."""
    pytest.importorskip("selenium.webdriver", reason="selenium is not installed (the extra `test`)")
    from scripts.reusing.page import opened

    browser = opened()
    if browser is None:
        pytest.skip("no chromium and chromedriver here (on Debian: apt install chromium chromium-driver)")
    try:
        yield browser
    finally:
        browser.quit()


@pytest.fixture
def wear(chromium) -> Callable[[int, str], None]:
    """`wear(width, scheme)`: make the window so wide, and ask for ``light`` or ``dark``."""

    def change(width: int, scheme: str) -> None:
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        preference = {"name": "prefers-color-scheme", "value": scheme}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [preference]})

    return change


@pytest.fixture
def reached_by_keyboard(chromium) -> Callable[[], list[str]]:
    """`reached_by_keyboard()`: what of the page's controls, links and scrolled parts Tab does not come to."""

    def missed() -> list[str]:
        wanted = """return [...document.querySelectorAll(
            'button, a[href], input:not([type=file]), canvas[tabindex], summary, [tabindex="0"]')]
            .filter((one) => one.checkVisibility() && !one.disabled)"""
        elements = chromium.execute_script(wanted)
        chromium.execute_script("document.activeElement.blur(); window.came = new Set();")
        chromium.execute_script("addEventListener('focusin', (event) => window.came.add(event.target))")
        webdriver = pytest.importorskip("selenium.webdriver")
        keys = webdriver.ActionChains(chromium, duration=0)
        for _ in range(len(elements) + 2):
            keys.send_keys("\ue004")  # Tab
        keys.perform()
        left = "return arguments[0].filter((one) => !window.came.has(one)).map((one) => one.outerHTML)"
        return chromium.execute_script(left, elements)

    return missed
