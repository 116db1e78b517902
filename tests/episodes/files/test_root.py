"""Where data sets lie."""

import pytest

from episodes.datasets.folder import read_class_folders
from episodes.errors import EpisodesError
from episodes.files.root import data_root, expanded


def test_home_is_put_in_its_place_where_there_is_one(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert expanded("~/pictures") == data_root("~/pictures") == tmp_path / "pictures"
    # a shell leaves the name of nobody as it is, and a folder may have it
    assert str(expanded("~nobody-of-this-name/x")) == "~nobody-of-this-name/x"
    with pytest.raises(EpisodesError, match="no folder ~nobody-of-this-name: give one that holds"):
        read_class_folders("~nobody-of-this-name")
