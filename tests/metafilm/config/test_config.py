"""Configurations are strict, report everything at once, and say the same in YAML and in flags."""

from dataclasses import fields, is_dataclass, replace

import pytest
import yaml

from metafilm.cli.commands import parse
from metafilm.config.config import Config, config_names, load_config, resume_differences
from metafilm.config.strict import leaves
from metafilm.errors import ConfigError, MetafilmError


def problems_of(settings: object) -> str:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(settings)
    assert str(caught.value).splitlines()[1:] == [f"  {problem}" for problem in caught.value.problems]
    return str(caught.value)


def written(tmp_path, text: str):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    return path


def test_defaults_are_valid_and_survive_yaml():
    config = Config()
    assert Config.from_dict(config.to_dict()) == config
    assert Config.from_dict(yaml.safe_load(config.to_yaml())) == config
    assert Config.from_dict({}) == config and Config.from_dict(None) == config


def test_every_value_survives_yaml(tmp_path):
    config = Config.from_dict(
        {
            "name": "mixture",
            "data": {"name": ["omniglot", "miniimagenet"], "image_size": 32},
            "episodes": {"ways": [5, 10], "shots": [1, 5]},
            "film": {"sites": ["block1", "block2"]},
            "outer": {"learning_rate": 3, "encoder_learning_rate": 1e-4},
        }
    )
    assert config.episodes.ways == (5, 10) and config.data.name == ("omniglot", "miniimagenet")
    assert type(config.outer.learning_rate) is float
    assert Config.from_yaml(written(tmp_path, config.to_yaml())) == config


def test_all_problems_at_once(tmp_path):
    path = written(
        tmp_path,
        """
        outer: {iteratons: 5, meta_batch: 0, warmup: 1.5, average: 1.0}
        epsodes: {}
        episodes: {ways: [9, 3], shots: true}
        tracking: {wandb: sometimes}
        seed: -1
        """,
    )
    with pytest.raises(ConfigError) as caught:
        Config.from_yaml(path)
    text = str(caught.value)
    assert len(caught.value.problems) == 9
    assert text.startswith(f"{path}: 9 problems")
    for line in (
        "--outer.iteratons is unknown; did you mean --outer.iterations?",
        "--outer.meta_batch must be at least 1, is 0",
        "--outer.warmup must be a whole number, is 1.5",
        "--outer.average must be at least 0 and below 1, is 1.0",
        "--epsodes is unknown; did you mean --episodes?",
        "--episodes.ways must be a range from low to high, is 9 3",
        "--episodes.shots must be a whole number or a list of 2 values, each a whole number, is True",
        "--tracking.wandb must be one of disabled, offline, online, is 'sometimes'",
        "--seed must be at least 0, is -1",
    ):
        assert line in text
    assert isinstance(caught.value, MetafilmError)


@pytest.mark.parametrize(
    ("section", "name", "value", "expected"),
    [
        ("outer", "learning_rate", 0, "must be above 0"),
        ("outer", "learning_rate", float("nan"), "must be a finite number"),
        ("outer", "learning_rate", "0.1", "must be a finite number, is '0.1'"),
        ("outer", "task_chunk", 9, "must not exceed --outer.meta_batch (4), is 9"),
        ("outer", "final_learning_rate", 2, "must be between 0 and 1, is 2.0"),
        ("episodes", "ways", 1, "must be at least 2, is 1"),
        ("episodes", "ways", [5], "must be a whole number or a list of 2 values"),
        ("episodes", "augment", "crop-flop", "did you mean crop-flip?"),
        ("episodes", "style", "cubism", "is unknown: no style is called 'cubism': choose one of"),
        ("inner", "view_augment", "tilt", "there are none, shift"),
        ("inner", "start", 1.5, "must be between 0 and 1"),
        ("inner", "evaluation_steps", -1, "must be at least 0, is -1"),
        ("data", "name", "omniglt", "did you mean omniglot?"),
        ("data", "name", ["omniglot", "sinusoids"], "can't mix images and functions"),
        ("data", "image_size", 2, "must be at least 16, is 2"),
        ("film", "sites", [], "is an empty list"),
        ("head", "name", "svm", "must be one of prototype"),
        ("evaluation", "episodes", 1, "must be at least 2, is 1"),
        ("backbone", "hidden", [], "must be one or more sizes"),
    ],
)
def test_impossible_values_name_their_flag(section, name, value, expected):
    text = problems_of({section: {name: value}})
    assert f"--{section}.{name} " in text and expected in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"film": {"sites": "none"}}, "--film.sites none leaves the task encoder nothing"),
        (
            {"film": {"sites": "none"}, "encoder": {"enabled": False}, "inner": {"steps": 1}},
            "--film.sites none leaves the inner loop nothing",
        ),
        ({"head": {"name": "regression"}}, "--head.name regression does not fit --data.name omniglot"),
        ({"data": {"name": "sinusoids"}}, "--head.name prototype does not fit --data.name sinusoids"),
        (
            {"head": {"name": "linear"}, "episodes": {"ways": [2, 5]}},
            "--episodes.ways must be one number for the linear head",
        ),
    ],
)
def test_settings_that_contradict_each_other(settings, expected):
    assert expected in problems_of(settings)


def test_sections_of_the_wrong_kind():
    assert "--outer must be a mapping of settings, is 3" in problems_of({"outer": 3})
    assert "the top level must be a mapping of settings" in problems_of([1, 2])


def test_yaml_reads_numbers_as_people_write_them(tmp_path):
    config = Config.from_yaml(written(tmp_path, "outer: {learning_rate: 1e-3, weight_decay: 5E-4}"))
    assert (config.outer.learning_rate, config.outer.weight_decay) == (1e-3, 5e-4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2", "'seed' is set twice"),
        ("outer: {meta_batch: 1, meta_batch: 2}", "'meta_batch' is set twice"),
        ("seed: [1", "is not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("? [1, 2]\n: 3", "a key must be a word"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, expected):
    with pytest.raises(ConfigError, match="1 problem") as caught:
        Config.from_yaml(written(tmp_path, text))
    assert expected in str(caught.value)


def test_missing_files_and_names(tmp_path):
    with pytest.raises(ConfigError, match="can't be read"):
        Config.from_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="did you mean demo"):
        load_config("dmo")


def test_shipped_configs_load_and_are_named_like_their_file():
    assert {"demo", "omniglot_5way_1shot", "miniimagenet_5way_5shot", "sinusoids"} <= set(config_names())
    for name in config_names():
        assert load_config(name).name == name


def test_resume_differences_leave_out_what_changes_no_weights():
    old = Config()
    free = replace(
        old,
        threads=3,
        tracking=replace(old.tracking, wandb="offline"),
        data=replace(old.data, in_memory=False),
    )
    assert resume_differences(old, free) == []
    bound = replace(old, seed=1, outer=replace(old.outer, iterations=7))
    assert resume_differences(old, bound) == ["--seed is 1, was 0", "--outer.iterations is 7, was 10000"]


def test_command_line_overrides_the_file():
    command = parse(
        "train demo --outer.iterations 7 --episodes.ways 3 5 --encoder.enabled false --film.sites last "
        "--data.image-size 20".split()
    )
    settings, file = command.settings, load_config("demo")
    assert (settings.outer.iterations, settings.episodes.ways) == (7, (3, 5))
    assert settings.encoder.enabled is False and settings.film.sites == "last"
    assert settings.data.image_size == 20
    assert settings.outer.meta_batch == file.outer.meta_batch and settings.data == replace(
        file.data, image_size=20
    )


def test_help_shows_every_setting_with_its_text(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["train", "demo", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name, _, _ in leaves(Config()):
        assert f"--{name} " in shown
    assert "What a killed run loses at most".lower() in " ".join(shown.lower().split()).replace("│ │ ", "")


def test_every_setting_is_documented():
    """An undocumented field would show as a bare flag: the text below it is what --help prints."""
    import ast
    import inspect

    from metafilm.config import config as top
    from metafilm.config import settings

    for module in (settings, top):
        for node in ast.parse(inspect.getsource(module)).body:
            if not isinstance(node, ast.ClassDef):
                continue
            section = getattr(module, node.name)
            assert is_dataclass(section) and node.body[0].value.value  # the section's own docstring
            kinds = {field.name: field for field in fields(section)}
            for statement, following in zip(node.body, node.body[1:], strict=False):
                if isinstance(statement, ast.AnnAssign) and not is_dataclass(
                    getattr(module, ast.unparse(statement.annotation), None)
                ):
                    assert statement.target.id in kinds
                    text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                    assert text, f"{node.name}.{statement.target.id} has no docstring"
