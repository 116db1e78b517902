"""The form that tyro fills in says what the settings say, and checks nothing itself."""

from dataclasses import asdict, fields, replace

import pytest

from metafilm.cli.options.form import filled_in, form, form_of
from metafilm.config import Config, config_names, load_config
from metafilm.errors import ConfigError


@pytest.mark.parametrize("name", config_names())
def test_a_form_gives_the_same_settings_back(name):
    config = load_config(name)
    assert filled_in(form(config)) == config
    assert asdict(form(config)) == asdict(config)


def test_a_form_has_every_field_and_its_default():
    assert form_of(Config)() == form(Config())
    assert [part.name for part in fields(form_of(Config))] == [part.name for part in fields(Config)]


def test_mistakes_wait_until_the_form_is_handed_in():
    config = form(Config())
    wrong = replace(config, seed=-1, outer=replace(config.outer, warmup=-1, clip_norm=float("inf")))
    with pytest.raises(ConfigError) as caught:
        filled_in(wrong, outer={"task_chunk": 0})
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "--seed",
        "--outer.task-chunk",
        "--outer.warmup",
        "--outer.clip-norm",
    ]
    assert str(caught.value).startswith("command line: 4 problems")
