"""Many tasks through one network: every row is what its own task alone would have given."""

import copy

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import episodes
from metafilm import CheckpointError, InnerLoop, MetaFiLM, MetafilmError, Task, TaskBank, film, norms
from metafilm.backbones import MLP, Conv4
from metafilm.engine.native import functions as native
from metafilm.heads import PrototypeHead, RegressionHead
from metafilm.norms import Norm
from metafilm.storage import tensorfile

HEADS = ("prototype", "cosine", "ridge", "logistic", "linear")
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5}


def tasks_of(learner, make_episode, ways=(3, 3, 3), move=0.3):
    """Tasks that differ in everything a task keeps, with string labels."""
    tasks = []
    for seed, number in enumerate(ways):
        episode = make_episode(tasks=1, ways=number, seed=seed)
        images = episode.support_images[0].to(learner.mean.dtype)
        task = learner.adapt(images, [f"{seed}-{label}" for label in episode.support_labels[0].tolist()])
        generator = torch.Generator().manual_seed(seed)
        for value in task.film.values():
            # negative gains too: there max-pooling and the affine don't commute
            value += move * torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value)
        tasks.append(task)
    return tasks


def assert_served_as_alone(bank, tasks, ids, images, tolerance):
    """Shuffled rows, several of each task, against each task's own plain network."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(9))
    owner = [int(i) % len(tasks) for i in order]
    images = images[order]
    found = bank.logits(images, [ids[t] for t in owner])
    labels = bank.predict(images, torch.tensor([ids[t] for t in owner]))
    for row, t in enumerate(owner):
        expected = tasks[t].logits(images[row : row + 1])[0]
        ways = len(expected)
        # prototype distances leave out a term that all classes share, in both
        scale = float(expected.abs().max().clamp(min=1))
        assert (found[row, :ways] - expected).abs().max() <= tolerance * scale
        assert (found[row, ways:] == -torch.inf).all()
        if tasks[t].classes:
            assert labels[row] == tasks[t].predict(images[row : row + 1])[0]
    return found, owner


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("norm", norms.MODES)
@pytest.mark.parametrize("head", HEADS)
def test_mixed_batches_equal_each_task_alone(make_learner, make_episode, norm, head, dtype) -> None:
    learner = make_learner(
        dtype=dtype,
        backbone={"norm": norm},
        head={"name": head},
        inner={"steps": 1, "view_augment": "none"},
    )
    # far-off deviations make a network of group norms magnify float32's rounding, alone as in a batch
    tasks = tasks_of(learner, make_episode, move=0.3 if dtype == torch.float64 else 0.1)
    bank = TaskBank(learner, batch_size=5)
    ids = bank.extend(tasks)
    images = torch.rand(13, 1, 16, 16, dtype=dtype, generator=torch.Generator().manual_seed(0))
    # groups of one channel on 2x2 maps: four numbers, which may be nearly equal
    loose = 30 if norm == "group" and dtype == torch.float32 else 1
    found, owner = assert_served_as_alone(bank, tasks, ids, images, loose * TOLERANCE[dtype])
    # the tasks do differ: another task's answer is far from a row's own
    wrong = bank.logits(images, [ids[(t + 1) % 3] for t in owner])
    assert (wrong - found).abs().max() > 1e-2


@pytest.mark.parametrize("head", ["prototype", "cosine", "ridge"])
def test_tasks_of_different_ways(make_learner, make_episode, head) -> None:
    learner = make_learner(head={"name": head})
    tasks = tasks_of(learner, make_episode, ways=(2, 5, 3, 5))
    bank = TaskBank(learner, batch_size=4)
    ids = bank.extend(tasks)
    images = torch.rand(12, 1, 16, 16, dtype=torch.float64)
    assert_served_as_alone(bank, tasks, ids, images, 1e-12)
    assert bank.logits(images[:2], [ids[0], ids[2]]).shape == (2, 3), "the widest of those asked for"


def test_resnet12(make_learner, make_episode) -> None:
    learner = make_learner(backbone={"name": "resnet12", "width": 2, "norm": "support"})
    tasks = tasks_of(learner, make_episode, move=0.1)
    bank = TaskBank(learner)
    assert_served_as_alone(bank, tasks, bank.extend(tasks), torch.rand(7, 1, 16, 16).double(), 1e-11)


def test_regression_of_vectors() -> None:
    torch.manual_seed(0)
    backbone = film.insert(MLP(1, (8, 7)))
    learner = MetaFiLM(
        backbone,
        RegressionHead(7),
        inner=InnerLoop(film.sites(backbone), 0.1),
        image_shape=(1,),
        steps=2,
    ).double()
    tasks = [learner.adapt(torch.rand(6, 1).double(), torch.rand(6, 1)) for _ in range(4)]
    bank = TaskBank(learner, batch_size=3)
    ids = bank.extend(tasks)
    x = torch.rand(10, 1, dtype=torch.float64)
    assert_served_as_alone(bank, tasks, ids, x, 1e-12)
    assert bank.predict(x, [ids[2]] * 10).shape == (10, 1)
    torch.testing.assert_close(bank.predict(x, [ids[2]] * 10), tasks[2].predict(x))


def test_a_torchvision_network(make_episode) -> None:
    torch.manual_seed(0)
    backbone = film.insert(torchvision.models.resnet18())
    backbone.fc = nn.Identity()
    backbone.out_features = 512
    learner = MetaFiLM(backbone, PrototypeHead(0.1), image_shape=(3, 32, 32)).double().eval()
    tasks = []
    for seed in range(3):
        episode = make_episode(tasks=1, seed=seed, shape=(3, 32, 32))
        tasks.append(learner.adapt(episode.support_images[0].double(), episode.support_labels[0]))
        for value in tasks[-1].film.values():
            value += 0.1 * torch.randn_like(value)
    bank = TaskBank(learner, batch_size=4)
    assert_served_as_alone(bank, tasks, bank.extend(tasks), torch.rand(7, 3, 32, 32).double(), 1e-11)


def test_bfloat16_is_near(make_learner, make_episode) -> None:
    learner = make_learner(dtype=torch.float32)
    tasks = tasks_of(learner, make_episode, move=0.05)
    images = torch.rand(9, 1, 16, 16)
    banks = [TaskBank(learner, precision=precision) for precision in ("float32", "bfloat16")]
    exact, near = (bank.logits(images, [bank.extend(tasks)[i % 3] for i in range(9)]) for bank in banks)
    assert near.dtype == torch.float32
    assert 0 < (near - exact).abs().max() < 0.05 * exact.abs().max()
    assert learner.backbone.blocks[0].conv.weight.dtype == torch.float32, "the learner is left as it was"


def test_maps_are_channels_last_from_the_first_on(make_learner, make_episode, monkeypatch) -> None:
    """One-channel images pass for either layout; pooling in the other is many times slower."""
    monkeypatch.setattr(native, "library", lambda: None)  # our own kernel would leave the first maps out
    learner = make_learner(dtype=torch.float32)
    bank = TaskBank(learner)
    ids = bank.extend(tasks_of(learner, make_episode))
    seen = []
    for module in bank._network.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda module, x, y: seen.append(y))
    bank.logits(torch.rand(3, 1, 16, 16), ids)
    assert len(seen) == 4
    assert all(y.is_contiguous(memory_format=torch.channels_last) for y in seen)


def test_bytes_and_any_number_of_rows(make_learner, make_episode) -> None:
    learner = make_learner(dtype=torch.float32)
    tasks = tasks_of(learner, make_episode)
    bank = TaskBank(learner)
    ids = bank.extend(tasks)
    stored = (torch.rand(4, 1, 16, 16) * 255).to(torch.uint8)
    asked = [ids[0]] * 3 + [ids[1]]
    assert torch.equal(bank.logits(stored, asked), bank.logits(stored.float() / 255, asked))
    assert bank.logits(stored[:0], []).shape == (0, 0)
    assert bank.predict(stored[:0], []) == []
    assert not bank.logits(stored, asked).requires_grad


def test_a_task_comes_back_as_it_was(make_learner, make_episode) -> None:
    learner = make_learner(backbone={"norm": "support"})
    task = tasks_of(learner, make_episode, ways=(3,))[0]
    bank = TaskBank(learner)
    again = bank.task(bank.add(task))
    assert isinstance(again, Task) and again.classes == task.classes
    for found, expected in (
        (again.film, task.film),
        (again.state, task.state),
        (again.statistics, task.statistics),
    ):
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert again.shots == task.shots == [2, 2, 2] and again.report is None
    next(iter(again.film.values())).zero_()
    assert torch.equal(next(iter(bank.task(bank.ids[0]).film.values())), next(iter(task.film.values())))


def test_add_remove_and_reuse_of_the_room(make_learner, make_episode) -> None:
    learner = make_learner(backbone={"norm": "support"})
    tasks = tasks_of(learner, make_episode, ways=(3, 2, 3, 3, 2, 3))
    images = torch.rand(12, 1, 16, 16, dtype=torch.float64)
    bank = TaskBank(learner)
    ids = bank.extend(tasks[:4])
    assert len(bank) == 4 and bank.ids == ids and ids[0] in bank
    size = bank.nbytes
    bank.remove(ids[0])
    bank.remove(ids[1])
    assert len(bank) == 2 and ids[0] not in bank
    with pytest.raises(MetafilmError, match=rf"no task with the id {ids[0]} among the 2 held"):
        bank.logits(images[:1], [ids[0]])
    new = bank.extend(tasks[4:])
    assert not set(new) & set(ids), "an old id never comes to mean a new task"
    assert bank.nbytes == size, "the room of removed tasks is used again"
    held = [tasks[2], tasks[3], tasks[4], tasks[5]]
    assert bank.ids == [ids[2], ids[3], *new]
    assert_served_as_alone(bank, held, bank.ids, images, 1e-12)


@pytest.mark.parametrize("norm", ["running", "transductive"])
def test_round_trip(make_learner, make_episode, tmp_path, norm) -> None:
    learner = make_learner(backbone={"norm": norm})
    tasks = tasks_of(learner, make_episode, ways=(3, 2, 3, 5))
    bank = TaskBank(learner)
    bank.extend(tasks)
    bank.remove(1)
    file = tmp_path / "bank.safetensors"
    bank.save(file)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    again = TaskBank.load(file, learner)
    assert again.ids == bank.ids == [0, 2, 3]
    images, asked = torch.rand(7, 1, 16, 16).double(), [3, 0, 2, 2, 0, 3, 3]
    assert torch.equal(again.logits(images, asked), bank.logits(images, asked))
    assert again.predict(images, asked) == bank.predict(images, asked)
    assert again.add(tasks[1]) == bank.add(tasks[1]) == 4
    assert_served_as_alone(again, [tasks[0], tasks[2], tasks[3], tasks[1]], again.ids, images, 1e-12)
    first = file.read_bytes()
    TaskBank.load(file, learner).save(file)
    assert file.read_bytes() == first, "equal banks make equal files"


def test_shots_and_the_gates_report_are_kept(tmp_path) -> None:
    """Without the shots a task has neither its temperature nor a threshold for unknown pictures."""
    learner = MetaFiLM.from_pretrained("omniglot-conv4")
    pool = episodes.load("strokes", "val")
    images = pool.images.view(-1, int(pool.counts[0]), 1, 28, 28)[:3, :6]
    support, queries = images[:, :4].flatten(0, 1), images[:, 4:].flatten(0, 1)
    task = learner.adapt(support, ["a", "b", "c"] * 4, steps=1, gate=True)
    task.report.to_dict()
    bank = TaskBank(learner)
    bank.add(task)
    bank.save(tmp_path / "bank")
    for held in (bank, TaskBank.load(tmp_path / "bank", learner)):
        again = held.task(0)
        assert again.shots == task.shots == [4, 4, 4]
        assert again.report == task.report is not None
        assert torch.equal(again.known(queries, 0.05), task.known(queries, 0.05))
        assert torch.equal(again.predict_proba(queries), task.predict_proba(queries))
    # files of older versions say neither
    tensors, metadata = tensorfile.read(tmp_path / "bank")
    for name in ("shots", "gates"):
        for odd in ("[]", "[3]", "{}", "[[1, 2]]", "[[0, 1, 2]]"):
            if (name, odd) != ("gates", "[[1, 2]]"):
                tensorfile.write(tmp_path / "odd", tensors, {**metadata, name: odd})
                with pytest.raises(CheckpointError, match="damaged"):
                    TaskBank.load(tmp_path / "odd", learner)
        del metadata[name]
    tensorfile.write(tmp_path / "older", tensors, metadata)
    older = TaskBank.load(tmp_path / "older", learner).task(0)
    assert older.shots is None and older.report is None


def test_an_empty_bank_round_trips(make_learner, make_episode, tmp_path) -> None:
    learner = make_learner()
    TaskBank(learner).save(tmp_path / "bank.safetensors")
    bank = TaskBank.load(tmp_path / "bank.safetensors", learner)
    task = tasks_of(learner, make_episode, ways=(3,))[0]
    assert len(bank) == 0 and bank.add(task) == 0
    assert_served_as_alone(bank, [task], [0], torch.rand(2, 1, 16, 16).double(), 1e-12)


def test_ten_thousand_tasks(make_learner, make_episode) -> None:
    learner = make_learner(dtype=torch.float32)
    base = tasks_of(learner, make_episode, ways=(3,))[0]
    bank = TaskBank(learner)
    shift = next(name for name in base.film if "blocks.3" in name and name.endswith("beta"))
    for number in range(10_000):
        deviations = base.film | {shift: base.film[shift] + number / 10_000}
        bank.add(Task(learner, deviations, base.state, {}, base.classes))
    assert len(bank) == 10_000
    kept = sum(value.nbytes for values in (base.film, base.state) for value in values.values())
    assert kept <= bank.nbytes / 10_000 <= 1.25 * kept
    asked = [9_999, 0, 5_000, 77]
    images = torch.rand(4, 1, 16, 16)
    found = bank.logits(images, asked)
    for row, identity in enumerate(asked):
        expected = bank.task(identity).logits(images[row : row + 1])[0]
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-5)


def test_a_task_takes_a_hundredth_of_a_network(make_learner, make_episode) -> None:
    """Conv-4 with 64 maps, 5-way, with the room that growth leaves."""
    learner = make_learner(fresh=True, dtype=torch.float32, backbone={"width": 64})
    task = tasks_of(learner, make_episode, ways=(5,))[0]
    bank = TaskBank(learner)
    bank.extend([task] * 100)
    plain = film.fold(learner.backbone)
    network = sum(parameter.nbytes for parameter in plain.parameters())
    assert bank.nbytes / len(bank) <= network / 100


def test_errors(make_learner, make_episode) -> None:
    learner, other = make_learner(), make_learner()
    tasks = tasks_of(learner, make_episode, ways=(3, 3))
    bank = TaskBank(learner)
    ids = bank.extend(tasks)
    images = torch.rand(2, 1, 16, 16).double()
    with pytest.raises(MetafilmError, match="made with another learner than this bank's"):
        bank.extend([tasks[0], tasks_of(other, make_episode, ways=(3,))[0]])
    assert len(bank) == 2, "all or none"
    with pytest.raises(MetafilmError, match="no task with the id 7 among the 2 held"):
        bank.predict(images, [ids[0], 7])
    for call in (bank.remove, bank.task):
        with pytest.raises(MetafilmError, match="no task with the id -1"):
            call(-1)
    with pytest.raises(MetafilmError, match=r"no task with the id \(\[\],\)"):
        bank.predict(images, [ids[0], ([],)])  # type: ignore[list-item]
    with pytest.raises(MetafilmError, match="no task with the id 9"):
        bank.predict(images, np.array([ids[0], 9]))  # type: ignore[arg-type]
    with pytest.raises(MetafilmError, match="no task with the id 'a'"):
        bank.logits(images, ["a", ids[0]])
    with pytest.raises(MetafilmError, match="3 ids for 2 images; give the id of each image's task"):
        bank.logits(images, [ids[0]] * 3)
    with pytest.raises(MetafilmError, match=r"images have shape \(2, 1, 8, 8\).*expects \(n, 1, 16, 16\)"):
        bank.logits(images[:, :, :8, :8], ids)
    with pytest.raises(MetafilmError, match="unknown precision 'half'; expected one of float32, bfloat16"):
        TaskBank(learner, precision="half")
    with pytest.raises(MetafilmError, match="batch_size 0 must be at least 1"):
        TaskBank(learner, batch_size=0)
    with torch.no_grad():
        learner.backbone.blocks[0].conv.weight.mul_(2)
    with pytest.raises(MetafilmError, match="weights have changed since this bank was made"):
        bank.add(tasks[0])


def test_files_that_do_not_fit(make_learner, make_episode, tmp_path) -> None:
    learner = make_learner()
    tasks = tasks_of(learner, make_episode, ways=(3, 2))
    file = tmp_path / "bank.safetensors"
    bank = TaskBank(learner)
    bank.extend(tasks)
    bank.save(file)
    with pytest.raises(
        CheckpointError, match=r"made with another learner: film/.* is \(2, 4\), expected \(2, 6"
    ):
        TaskBank.load(file, make_learner(backbone={"width": 6}))
    with pytest.raises(CheckpointError, match=r"norm/blocks.* is missing, expected \(2, 2, 4\)"):
        TaskBank.load(file, make_learner(backbone={"norm": "support"}))
    with pytest.raises(CheckpointError, match="its head is PrototypeHead, expected CosineHead"):
        TaskBank.load(file, make_learner(head={"name": "cosine"}))
    with pytest.raises(CheckpointError, match="no such file"):
        TaskBank.load(tmp_path / "none", learner)
    tasks[0].save(tmp_path / "task")
    with pytest.raises(CheckpointError, match="not a saved task bank: format 'metafilm-task'"):
        TaskBank.load(tmp_path / "task", learner)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(CheckpointError, match="damaged"):
        TaskBank.load(file, learner)
    odd = learner.adapt(torch.rand(2, 1, 16, 16).double(), [(1,), (2,)])
    bank.add(odd)
    with pytest.raises(MetafilmError, match="labels can't be written as JSON"):
        bank.save(file)


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry, self.norm, self.exit = nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.exit(torch.tanh(self.norm(self.entry(x))))


ROWS = torch.tensor([2, 0, 0, 3, 2, 2, 1])
NETWORKS = {
    "maps": (lambda: Conv4((3, 16, 16), 4), (7, 3, 16, 16)),
    "maps-group": (lambda: Conv4((3, 16, 16), 4, "group"), (7, 3, 16, 16)),
    "vectors": (lambda: MLP(5, (8, 7)), (7, 5)),
    "sequences": (Sequence, (7, 5, 6)),
    "hooks": (lambda: torchvision.models.resnet18(num_classes=3), (7, 3, 32, 32)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_film_call_with_a_row_index(name, disturb, random_film) -> None:
    make, shape = NETWORKS[name]
    torch.manual_seed(0)
    net = make()
    disturb(net, by=0.05)
    net = film.insert(net).double().eval()
    x, deviations = torch.randn(shape, dtype=torch.float64), random_film(net, tasks=4)
    with torch.no_grad():
        found = film.call(net, deviations, x, ROWS)
        for row, task in enumerate(ROWS):
            alone = film.call(net, {k: v[task] for k, v in deviations.items()}, x[row : row + 1])
            torch.testing.assert_close(found[row : row + 1], alone, rtol=1e-11, atol=1e-11)
        # one row alone, and rows in blocks, are special cases
        torch.testing.assert_close(film.call(net, deviations, x[:1], ROWS[:1]), found[:1])
        blocks = film.call(net, deviations, x[:4], torch.arange(4))
        torch.testing.assert_close(blocks, film.call(net, deviations, x[:4]))


def test_gradients_reach_the_deviations_of_each_row_s_task(random_film) -> None:
    net = film.insert(MLP(5, (8, 7))).double()
    deviations = {k: v.double().requires_grad_() for k, v in random_film(net, tasks=4).items()}
    film.call(net, deviations, torch.randn(3, 5).double(), torch.tensor([3, 1, 3])).sum().backward()
    for value in deviations.values():
        assert [bool(row.any()) for row in value.grad] == [False, True, False, True]


@pytest.mark.parametrize("mode", ["running", "support", "transductive"])
@pytest.mark.parametrize("training", [True, False])
def test_norms_use_the_statistics_they_are_given(mode, training, random_film) -> None:
    net = film.insert(nn.Sequential(Norm(4, mode))).double().train(training)
    x = torch.randn(7, 4, 3, 3, dtype=torch.float64)
    statistics = torch.rand(4, 2, 4, dtype=torch.float64) + 0.5
    deviations = random_film(net, tasks=4)
    gain, shift = 1 + deviations["0.film.delta_gamma"], deviations["0.film.delta_beta"]
    mean, var = statistics.unbind(1)
    each = (mean[ROWS], (var[ROWS] + 1e-5).sqrt(), gain[ROWS], shift[ROWS])
    m, s, g, b = (value[:, :, None, None] for value in each)
    found = film.call(net, deviations, x, ROWS, {"0": statistics})
    torch.testing.assert_close(found, (x - m) / s * g + b)
    # without an index: blocks, or the same statistics for all
    found = film.call(net, deviations, x[:4], None, {"0": statistics})
    torch.testing.assert_close(found, film.call(net, deviations, x[:4], torch.arange(4), {"0": statistics}))
    found = film.call(net, {}, x, None, {"0": statistics[1]})
    torch.testing.assert_close(found, (x - mean[1].view(4, 1, 1)) / (var[1].view(4, 1, 1) + 1e-5).sqrt())


def test_errors_of_the_row_index(random_film) -> None:
    net = film.insert(nn.Sequential(Norm(4, "support"))).eval()
    x, deviations = torch.rand(3, 4, 2, 2), random_film(net, tasks=2)
    statistics = {"0": torch.ones(2, 2, 4)}
    for rows in (torch.tensor([0, 1]), torch.tensor([[0], [1], [1]]), torch.tensor([0.0, 1.0, 1.0])):
        with pytest.raises(
            MetafilmError, match=r"rows have shape .*, expected \(3,\) torch.int64; give every"
        ):
            film.call(net, deviations, x, rows, statistics)
    for rows, named in (([0, 2, 1], "0 to 2"), ([0, -1, 1], "-1 to 1")):
        with pytest.raises(MetafilmError, match=rf"rows name tasks {named}, but .* has shape \(2, 4\)"):
            film.call(net, deviations, x, torch.tensor(rows), statistics)
    with pytest.raises(MetafilmError, match=r"has shape \(4,\), expected \(tasks, C\)"):
        film.call(net, random_film(net), x, torch.tensor([0, 0, 0]), statistics)
    with pytest.raises(MetafilmError, match=r"statistics of 'nowhere', .*its norms: 0"):
        film.call(net, deviations, x, torch.tensor([0, 1, 1]), {"nowhere": torch.ones(2, 2, 4)})
    with pytest.raises(MetafilmError, match=r"or give film\.call the tasks' statistics"):
        film.call(net, deviations, x, torch.tensor([0, 1, 1]))


def test_a_bank_belongs_to_the_weights_of_its_tasks(make_learner, make_episode, tmp_path) -> None:
    learner = make_learner()
    bank = TaskBank(learner)
    bank.extend(tasks_of(learner, make_episode, ways=(3, 2)))
    bank.save(tmp_path / "bank.safetensors")
    other = copy.deepcopy(learner)
    with torch.no_grad():
        other.backbone.blocks[0].conv.weight[0, 0, 0, 0] += 1e-3
    names = f"the weights {learner.fingerprint()}, this learner's are {other.fingerprint()}"
    with pytest.raises(CheckpointError, match=names):
        TaskBank.load(tmp_path / "bank.safetensors", other)


TAMPERED = {
    "head/3/prototypes": (lambda t: t[:, :, :1], r"head/3/prototypes is \(1, 3, 1\), expected \(1, 3, 4\)"),
    "ids": (lambda t: t.double(), "ids are torch.float64"),
    "ways": (lambda t: t + 1, "is damaged"),
    "film/blocks.0.norm.film.delta_beta": (lambda t: t / 0, "holds NaN or infinite values"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_tampered_banks_are_refused(make_learner, make_episode, tmp_path, name) -> None:
    learner = make_learner()
    bank = TaskBank(learner)
    bank.extend(tasks_of(learner, make_episode, ways=(3, 2)))
    file = tmp_path / "bank.safetensors"
    bank.save(file)
    tensors, metadata = tensorfile.read(file)
    change, message = TAMPERED[name]
    tensors[name] = change(tensors[name])
    tensorfile.write(file, tensors, metadata)
    with pytest.raises(CheckpointError, match=message):
        TaskBank.load(file, learner)
    tensors, metadata = tensorfile.read(file)
    metadata["classes"] = metadata["classes"].replace("[", "[3, ", 2)
    with pytest.raises(CheckpointError, match=r"is damaged|labels"):
        tensorfile.write(file, tensors, metadata)
        TaskBank.load(file, learner)
