"""An adapted task: predictions, the plain network, files of a few kilobytes."""

import copy
import json
import threading

import pytest
import safetensors.torch
import torch
from torch import nn

from metafilm import CheckpointError, MetaFiLM, MetafilmError, Task, film, norms
from metafilm.film import FiLM
from metafilm.storage import tensorfile
from metafilm.storage.calibration import Calibration, Level

HEADS = ("prototype", "cosine", "ridge", "logistic", "linear", "descriptors", "reconstruction")


@pytest.fixture
def learner(make_learner):
    return make_learner(dtype=torch.float32, inner={"steps": 2})


def adapted(learner, episode):
    return learner.adapt(episode.support_images[0], episode.support_labels[0])


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("norm", ["running", "support", "group"])
def test_it_predicts_what_the_learner_does(make_learner, make_episode, norm, head) -> None:
    learner = make_learner(
        dtype=torch.float32,
        backbone={"norm": norm},
        head={"name": head},
        inner={"steps": 1, "view_augment": "none"},
    )
    episode = make_episode(tasks=1, queries=3)
    task = adapted(learner, episode)
    expected = learner.eval()(episode)
    for name, value in expected.films[-1].items():
        torch.testing.assert_close(task.film[name], value[0], rtol=1e-4, atol=1e-5)
    found = task.predict_proba(episode.query_images[0])
    torch.testing.assert_close(found, expected.predictions[-1][0].softmax(-1).detach(), rtol=1e-4, atol=1e-4)
    assert task.predict(episode.query_images[0]) == expected.predictions[-1][0].argmax(-1).tolist()


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("norm", norms.MODES)
def test_the_plain_network_gives_the_same(make_learner, make_episode, norm, head) -> None:
    learner = make_learner(
        dtype=torch.float32, backbone={"norm": norm}, head={"name": head}, inner={"steps": 1}
    )
    episode = make_episode(tasks=1)
    task = adapted(learner, episode)
    module = task.to_module()
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert not any(isinstance(part, FiLM | norms.Norm) for part in module.modules())
    images = episode.query_images[0]
    with torch.no_grad():
        torch.testing.assert_close(
            module(images).softmax(-1), task.predict_proba(images), rtol=1e-5, atol=1e-5
        )
        if norm != "transductive":
            # unfolded: the FiLMed backbone and the head's own arithmetic
            both = torch.cat((episode.support_images[0], images))
            deviations = {name: value[None] for name, value in task.film.items()}
            features = learner.eval().features(learner.prepare(both[None]), deviations, 1, support=6)
            expected = learner.head.predict(task.state, features[:, 6:])[0].softmax(-1)
            torch.testing.assert_close(module(images).softmax(-1), expected, rtol=1e-4, atol=1e-5)


def test_a_transductive_learner_s_task_normalises_by_the_support(make_learner, make_episode) -> None:
    """So without inner steps it is the task of the same weights in support mode."""
    learners = [
        make_learner(dtype=torch.float32, backbone={"norm": norm}) for norm in ("transductive", "support")
    ]
    learners[1].load_state_dict(learners[0].state_dict())
    episode = make_episode(tasks=1)
    found, expected = (
        adapted(learner, episode).predict_proba(episode.query_images[0]) for learner in learners
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_resnet12_folds_too(make_learner, make_episode) -> None:
    learner = make_learner(dtype=torch.float32, backbone={"name": "resnet12", "width": 2}, inner={"steps": 1})
    episode = make_episode(tasks=1)
    task = adapted(learner, episode)
    expected = learner.eval()(episode).predictions[-1][0].softmax(-1)
    torch.testing.assert_close(
        task.to_module()(episode.query_images[0]).softmax(-1), expected.detach(), rtol=1e-3, atol=1e-5
    )


@pytest.mark.parametrize("norm", ["running", "support"])
def test_round_trip(make_learner, make_episode, tmp_path, norm) -> None:
    learner = make_learner(dtype=torch.float32, backbone={"norm": norm}, inner={"steps": 2})
    episode = make_episode(tasks=1)
    task = learner.adapt(episode.support_images[0], ["b", "b", "a", "a", "c", "c"])
    file = tmp_path / "task.safetensors"
    task.save(file)
    assert file.stat().st_size < 8_000
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    again = Task.load(file, learner)
    assert again.classes == task.classes == ["a", "b", "c"]
    assert again.film.keys() == task.film.keys()
    images = episode.query_images[0]
    assert torch.equal(again.predict_proba(images), task.predict_proba(images))
    assert again.predict(images) == task.predict(images)


def test_the_shipped_size_is_a_few_kilobytes(make_learner, make_episode, tmp_path) -> None:
    """Conv-4 with 64 maps, 5-way: 512 deviations and five prototypes."""
    learner = make_learner(fresh=True, dtype=torch.float32, backbone={"width": 64})
    episode = make_episode(tasks=1, ways=5)
    adapted(learner, episode).save(tmp_path / "task.safetensors")
    assert (tmp_path / "task.safetensors").stat().st_size < 6_000


def test_unbalanced_support(learner, make_episode) -> None:
    """Three images of one class, one of another; the state has one prototype a class."""
    episode = make_episode(tasks=1)
    images = episode.support_images[0][[0, 1, 1, 2, 4]]
    task = learner.adapt(images, ["x", "x", "x", "y", "z"])
    found = task.predict_proba(episode.query_images[0])
    assert found.shape == (6, 3)
    torch.testing.assert_close(found.sum(-1), torch.ones(6))
    # the order in which the support came does not matter
    mixed = learner.adapt(images[[4, 0, 3, 1, 2]], ["z", "x", "y", "x", "x"], steps=0)
    torch.testing.assert_close(
        mixed.predict_proba(episode.query_images[0]),
        learner.adapt(images, ["x", "x", "x", "y", "z"], steps=0).predict_proba(episode.query_images[0]),
    )


def test_labels_of_any_kind(learner, make_episode) -> None:
    episode = make_episode(tasks=1)
    images, queries = episode.support_images[0], episode.query_images[0]
    numbers = learner.adapt(images, torch.tensor([7, 7, 3, 3, 5, 5]))
    assert numbers.classes == [3, 5, 7]
    names = learner.adapt(images, ["7", "7", "3", "3", "5", "5"])
    assert [int(name) for name in names.predict(queries)] == numbers.predict(queries)
    odd = learner.adapt(images, [(1,), (1,), "a", "a", None, None])
    assert odd.classes == [(1,), "a", None] and set(odd.predict(queries)) <= set(odd.classes)


def test_bytes_and_batches(learner, make_episode) -> None:
    episode = make_episode(tasks=1)
    stored = (episode.support_images[0] * 255).to(torch.uint8)
    task = learner.adapt(stored, [0, 0, 1, 1, 2, 2])
    same = learner.adapt(stored.float() / 255, [0, 0, 1, 1, 2, 2])
    assert all(torch.equal(value, same.film[name]) for name, value in task.film.items())
    images = episode.query_images[0]
    torch.testing.assert_close(task.logits(images, batch_size=2), task.logits(images), rtol=1e-4, atol=1e-4)


def test_adapting_leaves_the_learner_as_it_was(learner, make_episode) -> None:
    for training in (True, False):
        learner.train(training)
        adapted(learner, make_episode(tasks=1))
        assert learner.training == learner.backbone.training == training
        assert all(value.grad is None for value in learner.parameters())


def test_without_encoder_and_steps_the_deviations_are_zero(make_learner, make_episode) -> None:
    learner = make_learner(dtype=torch.float32, encoder={"enabled": False})
    task = adapted(learner, make_episode(tasks=1))
    assert len(task.film) == 8 and not any(value.any() for value in task.film.values())
    assert repr(task) == "Task(3 classes, 32 deviations at 4 sites)"


def test_errors_in_the_support(learner, make_episode) -> None:
    images = make_episode(tasks=1).support_images[0]
    with pytest.raises(MetafilmError, match="5 labels for 6 support images"):
        learner.adapt(images, [0] * 5)
    with pytest.raises(MetafilmError, match="0 labels for 0 support images"):
        learner.adapt(images[:0], [])
    with pytest.raises(MetafilmError, match="all support images have the label 'cat'"):
        learner.adapt(images, ["cat"] * 6)
    with pytest.raises(MetafilmError, match=r"shape \(6, 3, 16, 16\), this learner expects \(n, 1, 16, 16\)"):
        learner.adapt(images.expand(6, 3, 16, 16), [0, 0, 1, 1, 2, 2])
    with pytest.raises(MetafilmError, match=r"images are torch\.int64; give float in"):
        learner.adapt((images * 255).long(), [0, 0, 1, 1, 2, 2])
    task = learner.adapt(images, [0, 0, 1, 1, 2, 2])
    with pytest.raises(MetafilmError, match=r"images have shape \(1, 16, 16\)"):
        task.predict(images[0])


def test_errors_in_files(learner, make_learner, make_episode, tmp_path) -> None:
    episode = make_episode(tasks=1)
    file = tmp_path / "task.safetensors"
    adapted(learner, episode).save(file)
    others = {
        r"blocks\.0\.norm\.film\.delta_beta is \(4,\), expected \(5,\)": {"backbone": {"width": 5}},
        "its head is PrototypeHead, expected RidgeHead": {"head": {"name": "ridge"}},
        "its head is PrototypeHead, expected CosineHead": {"head": {"name": "cosine"}},
        "no statistics of its own, and this learner's norm mode is support": {
            "backbone": {"norm": "support"}
        },
    }
    for message, sections in others.items():
        with pytest.raises(CheckpointError, match=f"made with another learner: .*{message}"):
            Task.load(file, make_learner(**sections))
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(file.read_bytes()[:300])
    for missing in (damaged, tmp_path / "nowhere"):
        with pytest.raises(CheckpointError, match=r"is damaged or no safetensors file|no such file"):
            Task.load(missing, learner)
    safetensors.torch.save_file({"x": torch.zeros(1)}, damaged, {"format": "something"})
    with pytest.raises(CheckpointError, match="is not a saved task: format 'something'"):
        Task.load(damaged, learner)
    for labels in ([(1,), (1,), 2, 2, 3, 3], [object()] * 3 + [nn.ReLU()] * 3):
        with pytest.raises(MetafilmError, match="can't be written as JSON; use strings or numbers"):
            learner.adapt(episode.support_images[0], labels).save(tmp_path / "labels.safetensors")
    assert (
        json.dumps([path.name for path in sorted(tmp_path.iterdir())])
        == '["damaged.safetensors", "task.safetensors"]'
    )


def test_a_task_belongs_to_the_weights_it_was_adapted_with(learner, make_episode, tmp_path) -> None:
    """Same shapes, other weights: an error that names both."""
    file = tmp_path / "task.safetensors"
    task = adapted(learner, make_episode(tasks=1))
    task.save(file)
    mine = learner.fingerprint()
    assert Task.load(file, learner).fingerprint == task.fingerprint == mine
    other = copy.deepcopy(learner)
    assert other.fingerprint() == mine == copy.deepcopy(learner).double().fingerprint()
    with torch.no_grad():
        other.backbone.blocks[0].conv.weight[0, 0, 0, 0] += 1e-3
    with pytest.raises(CheckpointError, match=f"weights {mine}, this learner's are {other.fingerprint()}"):
        Task.load(file, other)
    for value in film.parameters(other.backbone).values():
        torch.nn.init.ones_(value)
    assert other.fingerprint() != mine


def test_a_file_from_before_fingerprints_loads_with_a_warning(learner, make_episode, tmp_path) -> None:
    file = tmp_path / "task.safetensors"
    adapted(learner, make_episode(tasks=1)).save(file)
    tensors, metadata = tensorfile.read(file)
    del metadata["fingerprint"]
    tensorfile.write(file, tensors, metadata)
    with pytest.warns(UserWarning, match="can't be checked"):
        Task.load(file, learner)


def test_a_task_file_knows_its_learner(make_episode, tmp_path) -> None:
    learner = MetaFiLM.from_pretrained("omniglot-conv4")
    episode = make_episode(tasks=1, shape=(1, 28, 28))
    task = adapted(learner, episode)
    task.save(tmp_path / "task.safetensors")
    again = Task.load(tmp_path / "task.safetensors")
    assert again.learner is not learner and again.learner.source == "omniglot-conv4"
    images = episode.query_images[0]
    torch.testing.assert_close(again.predict_proba(images), task.predict_proba(images))
    learner.source = None
    task.save(tmp_path / "nameless.safetensors")
    with pytest.raises(CheckpointError, match="does not say which learner"):
        Task.load(tmp_path / "nameless.safetensors")


def tampered_head(tensors, metadata):
    tensors["head/prototypes"] = tensors["head/prototypes"][:, :, :1]  # would be broadcast


def tampered_ways(tensors, metadata):
    tensors["head/prototypes"] = tensors["head/prototypes"][:, :2]


def tampered_film(tensors, metadata):
    tensors["film/blocks.0.norm.film.delta_beta"] = torch.zeros(1)


def tampered_extra(tensors, metadata):
    tensors["head/extra"] = torch.zeros(1)


def tampered_value(tensors, metadata):
    tensors["head/prototypes"][0, 0, 0] = float("nan")


def tampered_labels(tensors, metadata):
    metadata["classes"] = "[0, 0, 1]"


def tampered_json(tensors, metadata):
    metadata["classes"] = "[0, "


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (tampered_head, r"head/prototypes is \(1, 3, 1\), expected \(1, 3, 4\)"),
        (tampered_ways, r"head/prototypes is \(1, 2, 4\), expected \(1, 3, 4\)"),
        (tampered_film, r"delta_beta is \(1,\), expected \(4,\)"),
        (tampered_extra, "head/extra is .*, expected none"),
        (tampered_value, "head/prototypes holds NaN"),
        (tampered_labels, r"labels are \[0, 0, 1\], expected a list of distinct"),
        (tampered_json, "its labels: "),
    ],
)
def test_tampered_files_are_refused(learner, make_episode, tmp_path, tamper, message) -> None:
    file = tmp_path / "task.safetensors"
    adapted(learner, make_episode(tasks=1)).save(file)
    tensors, metadata = tensorfile.read(file)
    tamper(tensors, metadata)
    tensorfile.write(file, tensors, metadata)
    with pytest.raises(CheckpointError, match=message):
        Task.load(file, learner)


def test_weights_that_are_not_finite_give_no_task(learner, make_episode) -> None:
    with torch.no_grad():
        learner.backbone.blocks[2].conv.weight[0] = float("nan")
    with pytest.raises(MetafilmError, match="weights are not finite"):
        adapted(learner, make_episode(tasks=1))


def test_threads_that_adapt_and_predict_do_not_disturb_each_other(learner, make_episode) -> None:
    """In training mode too: one thread's way back to it must not meet another in the middle of a pass."""
    learner.train()
    episodes = [make_episode(tasks=1, seed=seed) for seed in range(4)]
    expected = [adapted(learner, e).predict_proba(e.query_images[0]) for e in episodes]
    wrong: list[int] = []

    def ask(i: int) -> None:
        for _ in range(10):
            task = adapted(learner, episodes[i])
            embedded = learner.embed(episodes[i].query_images[0])
            found = task.predict_proba(episodes[i].query_images[0])
            if not torch.equal(found, expected[i]) or not embedded.isfinite().all():
                wrong.append(i)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert learner.training and learner.backbone.training


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("norm", ["running", "support"])
def test_a_task_goes_with_its_learner_to_another_precision(make_learner, make_episode, head, norm) -> None:
    """Another device is the same to it."""
    learner = make_learner(dtype=torch.float32, backbone={"norm": norm}, head={"name": head}).eval()
    episode = make_episode(tasks=1)
    task, images = adapted(learner, episode), episode.query_images[0]
    expected = task.logits(images), task.familiarity(images), task.embed(images)
    learner.double()
    found = task.logits(images), task.familiarity(images), task.embed(images)
    for now, before in zip(found, expected, strict=True):
        assert now.dtype == torch.float64
        torch.testing.assert_close(now.float(), before, rtol=1e-4, atol=1e-5)
    learner.to(torch.bfloat16)
    assert task.logits(images).dtype == torch.bfloat16


@pytest.mark.parametrize("head", HEADS)
def test_weights_may_be_bfloat16(make_learner, make_episode, head) -> None:
    """In which no equation is solved."""
    options = {"backbone": {"norm": "support"}, "head": {"name": head}}
    options |= {"inner": {"steps": 1, "first_order": True, "view_augment": "shift"}}
    learner = make_learner(dtype=torch.float32, **options).eval()
    episode = make_episode(tasks=1)
    expected = learner(episode).predictions[-1].softmax(-1)
    found = learner.to(torch.bfloat16)(episode).predictions[-1]
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float().softmax(-1), expected, rtol=0, atol=0.15)


@pytest.mark.parametrize("blend", [None, "prototype"])
def test_familiarity_does_not_depend_on_the_learner_s_mode(make_learner, make_episode, blend) -> None:
    head = {"name": "cosine", "transform": ["power", "normalise"], "blend": blend}
    learner = make_learner(dtype=torch.float32, head=head).eval()
    episode = make_episode(tasks=1)
    task, images = adapted(learner, episode), episode.query_images[0]
    expected = task.familiarity(images)
    learner.train()
    assert torch.equal(task.familiarity(images), expected) and learner.training


def test_probabilities_are_at_the_calibrated_temperature(make_learner, make_episode, tmp_path):
    learner = make_learner(dtype=torch.float32)
    episode = make_episode(tasks=1)
    support, queries = episode.support_images[0], episode.query_images[0]
    labels = episode.support_labels[0]
    plain = learner.adapt(support, labels)
    assert torch.equal(plain.predict_proba(queries), plain.logits(queries).softmax(-1))
    with pytest.raises(MetafilmError, match="metafilm calibrate RUN"):
        plain.known(queries, 0.05)
    scores = plain.familiarity(queries)
    middle = float(scores.median())
    levels = Level(1, 9.0, (middle + 5, middle + 6)), Level(2, 2.5, (middle - 1, middle, middle + 1))
    learner.calibration = Calibration(levels, learner.fingerprint())
    task = learner.adapt(support, labels)  # of two shots
    torch.testing.assert_close(task.predict_proba(queries), (task.logits(queries) / 2.5).softmax(-1))
    assert torch.equal(task.known(queries, 0.5), scores >= middle) and task.known(queries, 0.5).sum() > 0
    task.save(tmp_path / "task")
    again = Task.load(tmp_path / "task", learner)
    assert again.shots == task.shots == [2, 2, 2]
    assert torch.equal(again.known(queries, 0.5), task.known(queries, 0.5))
    again.shots = None  # as of a file from before
    with pytest.raises(MetafilmError, match="adapt it again"):
        again.familiarity(queries)
    learner.calibration = Calibration((Level(1, 2.5, (0.0, 1.0)),), "of others")
    assert torch.equal(task.predict_proba(queries), plain.predict_proba(queries))


def test_familiarity_is_the_distance_to_the_nearest_prototype(make_learner, make_episode):
    """Over 1 + 1/n, so that a class of more shots is judged as strictly as one of fewer."""
    learner = make_learner(dtype=torch.float64)
    episode = make_episode(tasks=1, ways=2, shots=3)
    task = learner.adapt(episode.support_images[0, 1:].double(), episode.support_labels[0, 1:])
    assert task.shots == [2, 3]
    features = task.embed(episode.query_images[0].double())
    for query, found in zip(features, task.familiarity(episode.query_images[0].double()), strict=True):
        distances = [float((query - p).square().sum()) for p in task.state["prototypes"][0]]
        assert float(found) == pytest.approx(-min(distances[0] / (1 + 1 / 2), distances[1] / (1 + 1 / 3)))
