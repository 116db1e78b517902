"""Configurations are strict, report everything at once, and say the same in YAML and in flags."""

import copy
import pickle
from dataclasses import FrozenInstanceError, is_dataclass, replace

import pytest
import yaml

from episodes.transforms import augment, styles
from metafilm import backbones, heads, norms
from metafilm.backbones.mlp import ACTIVATIONS
from metafilm.cli.commands import parse
from metafilm.conditioning import DECODERS, ENCODERS, POOLINGS
from metafilm.config import Config, config_names, load_config, resume_differences
from metafilm.config.settings import Outer, Rates
from metafilm.config.strict import leaves
from metafilm.errors import ConfigError, MetafilmError
from metafilm.storage.run import RunDirectory


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


@pytest.mark.parametrize("word", ["3e-4", "1e3", "-1E5", "2.e1", "1_000", "0x10", "1:30", "yes", "null", "~"])
def test_words_that_look_like_something_else_survive_yaml(tmp_path, word):
    taken = set()
    for name, _, _ in leaves(Config()):
        section, _, setting = name.rpartition(".")
        for value in (word, [word, word]):
            try:
                config = Config.from_dict({section: {setting: value}} if section else {setting: value})
            except ConfigError:
                continue
            assert Config.from_yaml(written(tmp_path, config.to_yaml())) == config
            taken.add(name)
    words = {"name", "data.scheme", "data.train_split", "data.validation_split", "tracking.project"}
    assert words | {"film.sites", "episodes.criteria"} <= taken


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
        "--outer.meta-batch must be at least 1, is 0",
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
        ("outer", "task_chunk", 9, "must not exceed --outer.meta-batch (4), is 9"),
        ("outer", "final_learning_rate", 2, "must be between 0 and 1, is 2.0"),
        ("episodes", "ways", 1, "must be at least 2, is 1"),
        ("episodes", "ways", [5], "must be a whole number or a list of 2 values"),
        ("episodes", "augment", "crop-flop", "did you mean crop-flip?"),
        ("episodes", "style", "cubism", "cubism is unknown; there are none, known-filters, "),
        ("inner", "view_augment", "tilt", "there are none, shift"),
        ("inner", "start", 1.5, "must be between 0 and 1"),
        ("inner", "evaluation_steps", -1, "must be at least 0, is -1"),
        ("data", "name", "omniglt", "did you mean omniglot?"),
        ("data", "name", ["omniglot", "sinusoids"], "can't mix images and functions"),
        ("data", "weights", [1, 0], "must be above 0, is 1.0 0.0"),
        ("data", "weights", 2, "must be a list, each a finite number or empty"),
        ("episodes", "style", ["none", "cubism"], "cubism is unknown"),
        ("data", "image_size", 2, "must be at least 16, is 2"),
        ("film", "sites", [], "is an empty list"),
        ("film", "sites", "lst", "must be all, none, last, last N (such as last 8) or a list of names"),
        ("film", "sites", "last 0", "or a list of names, is 'last 0'"),
        ("film", "sites", 8, "is 8"),
        ("head", "name", "svm", "svm is unknown; there are prototype, cosine, linear"),
        ("evaluation", "episodes", 1, "must be at least 2, is 1"),
        ("backbone", "hidden", [], "must be one or more sizes"),
    ],
)
def test_impossible_values_name_their_flag(section, name, value, expected):
    text = problems_of({section: {name: value}})
    assert f"--{section}.{name.replace('_', '-')} " in text and expected in text


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"film": {"sites": "none"}}, "--film.sites none leaves the task encoder nothing"),
        (
            {"film": {"sites": "none"}, "encoder": {"enabled": False}, "inner": {"steps": 1}},
            "--film.sites none leaves the inner loop nothing",
        ),
        ({"encoder": {"spread": True, "kind": "constant"}}, "--encoder.spread needs a task encoder"),
        ({"encoder": {"spread": True, "enabled": False}}, "--encoder.spread needs a task encoder"),
        (
            {"encoder": {"spread": True}, "data": {"name": "sinusoids"}, "head": {"name": "regression"}},
            "--encoder.spread must be false for functions",
        ),
        ({"data": {"weights": [1, 2]}}, "--data.weights needs a value for each of 1 data sets, has 2"),
        (
            {"data": {"name": ["omniglot", "strokes"]}, "episodes": {"style": ["none"] * 3}},
            "--episodes.style needs a value for each of 2 data sets, has 3",
        ),
        ({"episodes": {"within_group": []}}, "--episodes.within-group needs a value for each of 1 data sets"),
        ({"episodes": {"augment": ["shift", "none"]}}, "--episodes.augment needs a value for each"),
        ({"outer": {"domain": 0.1}}, "--outer.domain needs several data sets in --data.name"),
        (
            {"outer": {"domain": 0.1, "compile": True}, "data": {"name": ["omniglot", "strokes"]}},
            "--outer.compile does not know --outer.domain",
        ),
        (
            {"outer": {"domain": 0.1}, "encoder": {"kind": "constant"}},
            "--outer.domain needs a task encoder that reads the support",
        ),
        ({"outer": {"film_noise": 0.1, "compile": True}}, "--outer.compile does not know --outer.film-noise"),
        (
            {"outer": {"film_noise": 0.1}, "film": {"sites": "none"}, "encoder": {"enabled": False}},
            "--film.sites none leaves no place for noise",
        ),
        ({"outer": {"one_domain": True}}, "--outer.one-domain needs several data sets in --data.name"),
        (
            {"outer": {"compile": True}, "inner": {"steps": 1, "batch": 2}},
            "--outer.compile traces steps on the whole support alone; leave --inner.batch empty",
        ),
        ({"head": {"name": "regression"}}, "--head.name regression does not fit --data.name omniglot"),
        (
            {
                "data": {"name": "sinusoids"},
                "head": {"name": "regression"},
                "outer": {"label_smoothing": 0.1},
            },
            "--outer.label-smoothing must be 0 for functions",
        ),
        ({"head": {"blend": "prototype"}}, "--head.blend is prototype already"),
        (
            {"head": {"name": "cosine", "blend": "linear"}},
            "--head.blend is for heads fitted to the support, which linear is not",
        ),
        (
            {"head": {"blend": "descriptors"}, "backbone": {"pooling": "mean"}},
            "--head.blend descriptors compares the cells of maps; add --backbone.pooling flatten",
        ),
        (
            {"head": {"blend": "ridge"}, "outer": {"compile": True}},
            "--outer.compile can't trace two heads",
        ),
        ({"data": {"name": "sinusoids"}}, "--head.name prototype does not fit --data.name sinusoids"),
        (
            {"head": {"name": "linear"}, "episodes": {"ways": [2, 5]}},
            "--episodes.ways must be one number for the linear head",
        ),
        (
            {"head": {"name": "linear"}, "episodes": {"ways": 5}, "evaluation": {"ways": 3}},
            "--evaluation.ways must be --episodes.ways (5) or empty for the linear head, whose outputs are",
        ),
        (
            {"outer": {"freeze": ["head", "backbone", "encoder"]}},
            "--outer.freeze must leave the outer loop a part to learn, is head backbone encoder",
        ),
        (
            {
                "outer": {"freeze": ["backbone", "head"]},
                "encoder": {"enabled": False},
                "inner": {"steps": 1, "start": 0.5},
            },
            "--inner.start must be 0 where nothing but the inner loop learns (--outer.freeze), is 0.5",
        ),
        (
            {"outer": {"freeze": ["backbone", "encoder", "head", "inner"]}, "inner": {"steps": 1}},
            "--outer.freeze must leave the outer loop a part to learn",
        ),
    ],
)
def test_settings_that_contradict_each_other(settings, expected):
    assert expected in problems_of(settings)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("episodes.shots", [3, 9], "must be one number for functions"),
        ("episodes.augment", "affine", "must be none for functions, which have no images"),
        ("episodes.rotation", "per-class", "must be none for functions"),
        ("episodes.within_group", True, "must be False for functions"),
        ("episodes.warp", True, "must be False for functions"),
        ("data.rotated_classes", True, "must be False for functions"),
        ("data.image_size", 28, "must be empty for functions"),
        ("data.scheme", "lake", "must be empty for functions"),
    ],
)
def test_functions_are_not_begun_with_settings_of_images(name, value, expected):
    section, setting = name.split(".")
    usual = {"data": {"name": "sinusoids"}, "head": {"name": "regression"}, "episodes": {}}
    usual["backbone"] = {"name": "mlp"}
    Config.from_dict(usual).require_beginnable()
    usual[section][setting] = value
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(usual).require_beginnable()
    (problem,) = caught.value.problems
    assert problem.startswith(f"--{name.replace('_', '-')} {expected}")


@pytest.mark.parametrize(("data", "head"), [("sinusoids", "regression"), ("strokes", "cosine")])
def test_a_network_of_the_other_kind_is_not_begun_with(data, head):
    name = "conv4" if data == "sinusoids" else "mlp"
    config = Config.from_dict({"data": {"name": data}, "head": {"name": head}, "backbone": {"name": name}})
    with pytest.raises(ConfigError, match=r"--backbone\.name"):
        config.require_beginnable()


def test_what_older_runs_have_can_be_read_but_not_begun_with(tmp_path):
    """Weights say their settings, and a run that is under way goes on."""
    config = Config.from_dict({"data": {"rotated_classes": True}, "episodes": {"rotation": "per-class"}})
    for begin in (RunDirectory.open, lambda path, settings: RunDirectory(path).require_usable(settings)):
        with pytest.raises(ConfigError, match=r"--data\.rotated-classes must be False with"):
            begin(tmp_path / "new", config)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.yaml").write_text(config.to_yaml())
    with RunDirectory.open(tmp_path / "old", config) as run:
        assert run.resumed


def test_a_fixed_head_may_name_its_own_ways_for_evaluation():
    for ways in (None, 4):
        Config.from_dict({"head": {"name": "linear"}, "episodes": {"ways": 4}, "evaluation": {"ways": ways}})


@pytest.mark.parametrize(
    ("section", "name", "registry"),
    [
        ("backbone", "name", backbones.BACKBONES),
        ("backbone", "norm", norms.MODES),
        ("backbone", "pooling", backbones.POOLINGS),
        ("backbone", "activation", ACTIVATIONS),
        ("head", "name", heads.HEADS),
        ("encoder", "kind", ENCODERS),
        ("encoder", "decoder", DECODERS),
        ("encoder", "pooling", POOLINGS),
        ("episodes", "augment", augment.BY_NAME),
        ("episodes", "style", styles.BY_NAME),
        ("inner", "view_augment", augment.BY_NAME),
    ],
)
def test_names_are_those_of_the_registry(section, name, registry, capsys):
    kind = type(getattr(Config(), section))
    for word in registry:
        assert getattr(kind(**{name: word}), name) == word
    last = list(registry)[-1]
    assert f"{last}x is unknown; did you mean {last}?" in problems_of({section: {name: f"{last}x"}})
    with pytest.raises(SystemExit):
        parse(["train", "demo", "--help"])
    shown = "".join(capsys.readouterr().out.replace("│", "").split())
    beginnings = ",timm:...,torchvision:..." if (section, name) == ("backbone", "name") else ""
    assert f"--{section}.{name.replace('_', '-')}{{{','.join(registry)}{beginnings}}}" in shown


def test_a_new_name_in_a_registry_is_known_at_once(monkeypatch):
    assert "mine is unknown" in problems_of({"backbone": {"name": "mine"}})
    monkeypatch.setitem(backbones.BACKBONES, "mine", backbones.Conv4)
    assert Config.from_dict({"backbone": {"name": "mine"}}).backbone.name == "mine"


def test_sections_check_themselves_and_stay_as_they_are():
    with pytest.raises(ConfigError) as caught:
        Outer(iterations=0, warmup=True, learning_rat=1)  # type: ignore[call-arg]
    assert set(caught.value.problems) == {
        "--outer.iterations must be at least 1, is 0",
        "--outer.warmup must be a whole number, is True",
        "--outer.learning-rat is unknown; did you mean --outer.learning-rate?",
    }
    with pytest.raises(ConfigError, match=r"--backbone.width must be at least 1, is 0"):
        replace(Config().backbone, width=0)
    with pytest.raises(ConfigError, match=r"--seed must be at least 0, is -1"):
        Config(seed=-1)
    with pytest.raises(FrozenInstanceError):
        Config().seed = 2  # type: ignore[misc]
    assert hash(Config()) == hash(Config()) and replace(Config(), seed=1) != Config()
    assert pickle.loads(pickle.dumps(Config(seed=3))) == copy.deepcopy(Config(seed=3)) == Config(seed=3)


def test_a_wrong_value_is_not_blamed_twice():
    """Its default would contradict the data set."""
    text = problems_of({"data": {"name": "sinusoids"}, "head": {"name": "svm"}})
    assert "1 problem" in text and "--head.name svm is unknown" in text


@pytest.mark.parametrize("value", [10**30, -(10**30), 10**5000], ids=["large", "small", "huge"])
def test_numbers_that_no_computer_word_holds(value):
    assert "--seed must be below 2^63" in problems_of({"seed": value})
    assert "--outer.clip-norm must be a finite number" in problems_of({"outer": {"clip_norm": 10**400}})


def test_long_values_are_cut_in_messages():
    settings = {"outer": {"warmup": "x" * 10**6, "y" * 10**6: 1}, "name": ["z"] * 10**5, "w" * 10**6: {}}
    assert len(problems_of(settings)) < 5000


def test_hyphens_and_underscores_are_the_same():
    assert Config.from_dict({"outer": {"meta-batch": 3}}).outer.meta_batch == 3
    assert "--outer.meta-batch is set twice" in problems_of({"outer": {"meta-batch": 3, "meta_batch": 3}})
    for words in ("--outer.meta-batch 3 --run-dir x", "--outer.meta_batch 3 --run_dir x"):
        command = parse(["train", "demo", *words.split()])
        assert command.settings.outer.meta_batch == 3 and str(command.run_dir) == "x"


def test_sections_of_the_wrong_kind():
    assert "--outer must be a mapping of settings, is 3" in problems_of({"outer": 3})
    assert "the top level must be a mapping of settings" in problems_of([1, 2])


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


def test_where_a_run_is_counts_its_stage():
    config = Config.from_dict({"pretrain": {"iterations": 40}, "outer": {"iterations": 9}})
    assert config.reached(-30) == "iteration 10 of 40 of the classification stage"
    assert config.reached(0) == "iteration 0 of 9" and config.reached(9) == "iteration 9 of 9"


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


def test_rates_by_part():
    settings = parse("train demo --outer.rates.backbone 0.1".split()).settings
    assert settings.outer.rates == Rates(backbone=0.1) and settings.outer.rates.head == 1.0
    assert Config.from_dict(settings.to_dict()) == settings
    text = problems_of({"outer": {"rates": {"bakbone": 0.1, "encoder": 0}}})
    assert "--outer.rates.bakbone is unknown; did you mean --outer.rates.backbone?" in text
    assert "--outer.rates.encoder must be above 0, is 0" in text
    assert "--outer.rates must be a mapping of settings, is 3" in problems_of({"outer": {"rates": 3}})
    with pytest.raises(ConfigError, match=r"--outer.rates.head must be above 0"):
        Rates(head=0)
    changed = replace(settings, outer=replace(settings.outer, rates=Rates()))
    assert resume_differences(settings, changed) == ["--outer.rates.backbone is 1.0, was 0.1"]


def test_a_mixture_on_the_command_line():
    words = "--data.name strokes omniglot --data.weights 2 1 --episodes.style known-strokes none"
    more = "--episodes.within-group false true --episodes.augment none shift --outer.one-domain true"
    settings = parse(["train", "demo", *words.split(), *more.split()]).settings
    assert (settings.data.names, settings.data.weights) == (("strokes", "omniglot"), (2.0, 1.0))
    assert settings.episodes.style == ("known-strokes", "none") and settings.outer.one_domain
    assert settings.episodes.within_group == (False, True) and settings.episodes.augment == ("none", "shift")
    assert parse("train demo --episodes.within-group true".split()).settings.episodes.within_group is True


def test_a_list_of_one_data_set_is_that_data_set():
    assert Config.from_dict({"data": {"name": ["omniglot"]}}) == Config()
    assert Config().data.name == "omniglot"
    expected = "--head.name prototype does not fit --data.name sinusoids"
    assert expected in problems_of({"data": {"name": ["sinusoids"]}})


@pytest.mark.parametrize("words", [["last", "8"], ["last 8"]])
def test_the_last_so_many_sites(words):
    settings = parse(["train", "demo", "--film.sites", *words]).settings
    assert settings.film.sites == "last 8"
    assert Config.from_dict(settings.to_dict()) == settings
    assert Config.from_dict({"film": {"sites": "last 8"}}).film.sites == "last 8"
    names = parse(["train", "demo", "--film.sites", "last", "blocks.0.norm"]).settings.film.sites
    assert names == ("last", "blocks.0.norm")


@pytest.mark.parametrize("value", ["inf", "-inf", "nan"])
@pytest.mark.parametrize("name", ["outer.clip-norm", "evaluation.checkpoint_every_seconds", "head.scale"])
def test_the_command_line_refuses_what_a_file_may_not_hold(name, value):
    with pytest.raises(
        ConfigError, match=f"--{name.replace('_', '-')} must be a finite number.*, is {value}"
    ):
        parse(["train", "demo", f"--{name}", value])


def test_all_problems_of_the_command_line_at_once():
    words = "--seed -1 --outer.iterations 0 --head.name cosin --film.sites none --task-chunk 0"
    with pytest.raises(ConfigError) as caught:
        parse(["train", "demo", *words.split()])
    assert [problem.split(" ")[0] for problem in caught.value.problems] == [
        "--seed",
        "--head.name",
        "--outer.iterations",
        "--outer.task-chunk",
        "--film.sites",
        "--film.sites",
    ]
    assert "did you mean cosine?" in str(caught.value)


def test_short_options_stand_for_settings():
    short = parse("train demo --task-chunk 2 --precision bfloat16 --compile".split()).settings
    long = "--outer.task-chunk 2 --outer.precision bfloat16 --outer.compile True"
    assert short == parse(["train", "demo", *long.split()]).settings != load_config("demo")


def test_help_shows_every_setting_with_its_text(capsys):
    with pytest.raises(SystemExit) as caught:
        parse(["train", "demo", "--help"])
    assert caught.value.code == 0
    shown = capsys.readouterr().out
    for name, _, _ in leaves(Config()):
        assert f"--{name.replace('_', '-')} " in shown
    assert "What a killed run loses at most".lower() in " ".join(shown.lower().split()).replace("│ │ ", "")


def test_every_setting_is_documented():
    """An undocumented field would show as a bare flag: the text below it is what --help prints."""

    def undocumented(section: type, prefix: str = ""):
        assert section.__doc__
        for name, field in section.__pydantic_fields__.items():
            if is_dataclass(field.annotation):
                yield from undocumented(field.annotation, f"{prefix}{name}.")
            elif not field.description:
                yield prefix + name

    assert list(undocumented(Config)) == []
