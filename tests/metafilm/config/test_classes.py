"""Classes that training knew are found by name, turned or not, and never validate it unasked."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from episodes import ClassPool
from metafilm.config.classes import Classes, classes_again, classes_of, require_disjoint
from metafilm.config.config import Config
from metafilm.config.sources import load_pools
from metafilm.errors import MetafilmError


def pool(*names: str) -> ClassPool:
    images = np.zeros((len(names), 1, 4, 4), np.uint8)
    return ClassPool.from_arrays(images, list(range(len(names))), list(names))


@pytest.fixture
def config() -> Config:
    config = Config()
    return replace(config, data=replace(config.data, name="omniglot", scheme="vinyals"))


def test_turned_classes_count_as_one(config):
    turned = pool("Greek/character01", "Greek/character02").rotated_classes()
    (found,) = classes_of(config, "test", [turned])
    assert found == Classes("omniglot", "vinyals", "test", ("Greek/character01", "Greek/character02"))


def test_classes_are_known_to_training_on_the_same_data_alone():
    tested = Classes("omniglot", "lake", "test", ("a", "b", "c"))
    training = [
        Classes("omniglot", "vinyals", "train", ("b", "c", "d")),
        Classes("strokes", None, "train", ("a",)),
    ]
    assert tested.known_to(training) == ("b", "c")
    here, there = (
        Classes("folder:here", None, "train", ("cat",)),
        Classes("folder:there", None, "test", ("cat",)),
    )
    assert there.known_to([here]) == ("cat",) and there.known_to(training) == ()


def test_overlap_is_refused_and_says_what_to_do(config):
    with pytest.raises(MetafilmError) as caught:
        require_disjoint(config, [pool("a", "b").rotated_classes()], [pool("b", "c", "d")])
    message = str(caught.value)
    assert "1 of the 3 classes" in message and "'b' for one" in message and "allow" in message
    require_disjoint(config, [pool("a", "b")], [pool("c", "d")])
    allowed = replace(config, data=replace(config.data, allow_overlap=True))
    require_disjoint(allowed, [pool("a", "b")], [pool("b", "c")])


def test_each_data_set_of_a_mixture_is_compared_with_itself(config):
    mixed = replace(config, data=replace(config.data, name=("strokes", "omniglot"), scheme=None))
    require_disjoint(mixed, [pool("a"), pool("b")], [pool("b"), pool("a")])
    with pytest.raises(MetafilmError, match="omniglot: 1 of the 1"):
        require_disjoint(mixed, [pool("a"), pool("b")], [pool("c"), pool("b")])


def test_a_class_of_one_folder_may_not_validate_another_that_has_it(config):
    folders = replace(config, data=replace(config.data, name=("folder:here", "folder:there"), scheme=None))
    require_disjoint(folders, [pool("cat"), pool("dog")], [pool("cow"), pool("hen")])
    with pytest.raises(MetafilmError, match=r"folder:there: 1 of the 2 .* train of folder:here too, 'cat'"):
        require_disjoint(folders, [pool("cat"), pool("dog")], [pool("cow"), pool("cat", "hen")])


def test_functions_have_no_classes():
    config = Config.from_dict({"data": {"name": "sinusoids"}, "head": {"name": "regression"}})
    assert classes_of(config, "train", load_pools(config, "train")) == ()
    require_disjoint(config, (), ())


def test_classes_again_reads_the_data_or_gives_none(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "pictures" / "train" / name).mkdir(parents=True)
        Image.new("RGB", (16, 16)).save(tmp_path / "pictures" / "train" / name / "0.png")
    config = Config.from_dict(
        {"data": {"name": f"folder:{tmp_path / 'pictures'}", "image_size": 16, "rotated_classes": True}}
    )
    (found,) = classes_again(config, tmp_path)  # type: ignore[misc]
    assert found.names == ("cat", "dog")
    gone = replace(config, data=replace(config.data, name=f"folder:{tmp_path / 'nowhere'}"))
    assert classes_again(gone, tmp_path) is None
