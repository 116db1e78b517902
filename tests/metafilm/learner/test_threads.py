"""What a learner says of itself while another thread has a pass under way."""

import threading

import pytest
import torch

from metafilm import MetaFiLM, film, norms


@pytest.fixture
def meanwhile(random_film):
    """`meanwhile(learner, ask, weights)`: what a thread gets that asks in the middle of a pass under the
    deviations, statistics and, where given, weights of others."""

    def during(learner, ask, weights=None):
        answers, threads = [], []

        def hook(*_) -> None:
            if threads:  # the other thread's own pass
                return
            threads.append(threading.Thread(target=lambda: answers.append(ask())))
            threads[0].start()
            threads[0].join(0.5)  # one that waits for the pass to end is not done by then

        layers = {name: m for name, m in learner.backbone.named_modules() if isinstance(m, norms.Norm)}
        statistics = {name: torch.full((2, m.num_features), 7.0) for name, m in layers.items()}
        handle = learner.backbone.features.register_forward_hook(hook)
        with torch.no_grad():
            images = torch.rand(6, *learner.image_shape)
            others = random_film(learner.backbone, 3)
            film.call(learner.backbone, others, images, statistics=statistics, weights=weights)
        handle.remove()
        threads[0].join()
        (answer,) = answers
        return answer

    return during


@pytest.fixture
def learner(make_learner):
    return make_learner(dtype=torch.float32, backbone={"norm": "support"}).eval()


def test_its_own_state(learner, meanwhile) -> None:
    expected = learner.state_dict()
    found = meanwhile(learner, learner.state_dict)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in found.items())


def test_its_own_fingerprint(learner, meanwhile) -> None:
    expected = learner.fingerprint()
    assert meanwhile(learner, learner.fingerprint) == expected == learner.fingerprint()


def test_its_own_file(learner, meanwhile, tmp_path) -> None:
    meanwhile(learner, lambda: learner.save(tmp_path / "mine.safetensors"))
    again = MetaFiLM.from_pretrained(str(tmp_path / "mine.safetensors"))
    assert all((value == 0).all() for value in film.parameters(again.backbone).values())
    assert again.fingerprint() == learner.fingerprint()


def test_its_own_weights_where_tasks_have_weights(make_learner, meanwhile) -> None:
    settings = {"encoder": {"enabled": False}, "inner": {"steps": 1, "adapts": "all"}}
    learner = make_learner(dtype=torch.float32, **settings).eval()
    deviations = film.parameters(learner.backbone)
    own = {name: value for name, value in learner.backbone.named_parameters() if name not in deviations}
    films = film.zeros(learner.backbone, 2) | {
        name: 0.1 * value.expand(2, *value.shape) for name, value in own.items()
    }
    images = learner.prepare(torch.rand(2, 1, *learner.image_shape))

    def ask():
        with torch.no_grad():
            return learner.features(images, films, 2)

    expected = ask()
    assert torch.equal(meanwhile(learner, ask, {name: 2 * value for name, value in own.items()}), expected)


def test_a_task_s_file_is_read(learner, meanwhile, make_episode, tmp_path) -> None:
    episode = make_episode(tasks=1)
    task = learner.adapt(episode.support_images[0], episode.support_labels[0])
    task.save(tmp_path / "task")
    again = meanwhile(learner, lambda: type(task).load(tmp_path / "task", learner))
    assert again is not None and all(
        torch.equal(again.film[name], value) for name, value in task.film.items()
    )
