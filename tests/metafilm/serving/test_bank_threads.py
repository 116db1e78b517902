"""One bank for several threads."""

import sys
import threading

import pytest
import torch

from metafilm import TaskBank, film


@pytest.fixture
def learner(make_learner):
    return make_learner(dtype=torch.float32).eval()


@pytest.fixture
def tasks(learner, make_episode):
    """Of three classes each, all different."""

    def adapted(seed: int):
        episode = make_episode(tasks=1, ways=3, seed=seed)
        task = learner.adapt(episode.support_images[0].float(), episode.support_labels[0].tolist())
        for value in task.film.values():
            value += 0.3 * torch.randn(value.shape, generator=torch.Generator().manual_seed(seed))
        return task

    return [adapted(seed) for seed in range(3)]


def during(module, ask):
    """Has a thread ask in the middle of the module's next pass; the thread, and what it has found."""
    found, threads = [], []

    def hook(*_) -> None:
        if not threads:
            threads.append(threading.Thread(target=lambda: found.append(ask())))
            threads[0].start()
            threads[0].join(0.5)

    handle = module.register_forward_hook(hook)

    def end():
        handle.remove()
        threads[0].join()
        return found[0]

    return end


def test_a_task_that_goes_while_it_is_asked_is_answered_by_itself(learner, tasks) -> None:
    """Its row is another task's only after the answer."""
    bank = TaskBank(learner, batch_size=2)
    first = bank.add(tasks[0])
    images = torch.rand(6, *learner.image_shape)
    expected = bank.logits(images, [first] * 6)

    def replaced() -> int:
        bank.remove(first)
        return bank.add(tasks[1])

    end = during(bank._network, replaced)
    labels = bank.predict(images, [first] * 6)
    second = end()
    assert labels == [tasks[0].classes[i] for i in expected.argmax(-1).tolist()]
    assert bank.ids == [second] and first not in bank
    alone = torch.cat([tasks[1].logits(image.unsqueeze(0)) for image in images])
    torch.testing.assert_close(bank.logits(images, [second] * 6), alone, rtol=1e-4, atol=1e-4)


def test_tasks_that_several_threads_add_are_all_kept(learner, tasks) -> None:
    bank, ids = TaskBank(learner), [[], [], []]

    def fill(number: int) -> None:
        for _ in range(30):
            ids[number].append(bank.add(tasks[number]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=fill, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(i for mine in ids for i in mine) == list(range(90))
    for mine, task in zip(ids, tasks, strict=True):
        for identity in mine:
            kept = bank.task(identity).film
            assert all(torch.equal(value, kept[name]) for name, value in task.film.items())


def test_a_bank_is_made_and_filled_beside_a_pass_of_the_learner(learner, tasks, random_film) -> None:
    """Neither takes the deviations of that pass for the learner's own."""
    bank = TaskBank(learner)
    images = torch.rand(6, *learner.image_shape)
    for ask in (lambda: TaskBank(learner), lambda: bank.add(tasks[0])):
        end = during(learner.backbone.features, ask)
        with torch.no_grad():
            film.call(learner.backbone, random_film(learner.backbone, 3), images)
        found = end()
        if isinstance(found, TaskBank):
            assert all((value == 0).all() for value in film.parameters(found._network).values())
            assert found.add(tasks[0]) == 0
    assert found == 0 and len(bank) == 1
