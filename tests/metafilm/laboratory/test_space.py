"""What is searched, as the user writes it: ranges and lists of settings that may be searched."""

from dataclasses import replace

import pytest

from metafilm.config import Config
from metafilm.config.strict import leaves
from metafilm.errors import ConfigError
from metafilm.laboratory.space import (
    Choice,
    Range,
    default_space,
    parse_space,
    values_of,
    with_values,
    written_space,
)


def test_ranges_and_lists(tiny) -> None:
    found = parse_space(
        [
            "outer.penalty=1e-4..1:log",
            "--outer.weight-decay=0..1",
            "inner.steps=0..5",
            "encoder.decoder=linear, gru",
            "encoder.detach=true,false",
            "outer.auxiliary=0,1,0.5",
            "outer.clip_norm=1..8:log",
        ],
        tiny,
    )
    assert found == {
        "outer.penalty": Range(1e-4, 1.0, log=True),
        "outer.weight_decay": Range(0.0, 1.0),
        "inner.steps": Range(0, 5),
        "encoder.decoder": Choice(("linear", "gru")),
        "encoder.detach": Choice((True, False)),
        "outer.auxiliary": Choice((0.0, 1.0, 0.5)),
        "outer.clip_norm": Range(1.0, 8.0, log=True),
    }
    assert type(found["outer.weight_decay"].low) is float and type(found["inner.steps"].high) is int
    assert parse_space([f"{name}={wanted}" for name, wanted in found.items()], tiny) == found


def test_what_is_written_of_a_space_is_read_back_as_it_was(tiny) -> None:
    texts = ["inner.batch=null,2", "outer.iterations=1000..1234567", "outer.average=0..0.9999999"]
    texts += ["outer.penalty=0.1..0.30000000000000004", "outer.warmup=0..1000000"]
    found = parse_space(texts, tiny)
    assert found["inner.batch"] == Choice((None, 2)) and found["outer.average"].high == 0.9999999
    again = written_space({name: str(wanted) for name, wanted in found.items()})
    assert again == found and all(type(again["outer.warmup"].high) is int for _ in again)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("outer.penality=0..1", "--outer.penality is no setting; did you mean outer.penalty?"),
        ("outer.penalty=1..0", "is no search; write NAME=LOW..HIGH"),
        ("outer.penalty=0..1:log", "is no search"),
        ("outer.penalty", "is no search"),
        ("outer.penalty=a..b", "is no search"),
        ("encoder.decoder=linear,transformer", "--encoder.decoder transformer is unknown"),
        ("outer.penalty=-1..1", "--outer.penalty must be at least 0, is -1.0"),
        ("inner.steps=0..2.5", "--inner.steps must be a whole number, is 2.5"),
        ("evaluation.episodes=10,20", "--evaluation.episodes can't be searched: it decides what is scored"),
        ("data.scheme=lake,vinyals", "--data.scheme can't be searched"),
        ("seed=0,1", "--seed can't be searched"),
        ("episodes.style=none,strokes", "--episodes.style can't be searched"),
        ("episodes.ways=3,5", "--episodes.ways shapes validation too; set --evaluation.ways first"),
        ("backbone.norm=running,transductive", "--backbone.norm transductive reads the queries"),
        ("film.sites=none,all", "--film.sites none leaves the task encoder nothing"),
    ],
)
def test_what_is_no_search_is_said(tiny, text, said) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space([text], tiny)
    assert said in str(caught.value) and len(caught.value.problems) == 1


def test_all_problems_at_once_and_no_setting_twice(tiny) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_space(["outer.penalty=0..1", "outer.penalty=0..2", "seed=1,2", "wings=1"], tiny)
    assert len(caught.value.problems) == 3


def test_the_usual_search_is_of_what_a_configuration_has() -> None:
    def searched(**sections) -> set[str]:
        config = Config.from_dict(sections)
        found = default_space(config)
        known = {name for name, *_ in leaves(config)}
        assert set(found) <= known
        assert parse_space([], config) == found  # every end of it is possible
        return set(found)

    whole = searched()
    assert whole == {
        "outer.penalty",
        "outer.encoder_weight_decay",
        "outer.weight_decay",
        "encoder.decoder",
        "inner.steps",
        "inner.step_size",
    }
    of_encoder = {"outer.encoder_weight_decay", "encoder.decoder"}
    assert searched(encoder={"enabled": False}) == whole - of_encoder
    assert searched(encoder={"kind": "constant"}) == whole - {"encoder.decoder"}
    assert searched(outer={"freeze": ["backbone"]}) == whole - {"outer.weight_decay"}
    assert searched(film={"modulation": "gated"}) == whole - {"inner.steps", "inner.step_size"}
    assert searched(inner={"evaluation_steps": 3}) == whole - {"inner.steps"}
    plain = {"film": {"sites": "none"}, "encoder": {"enabled": False}}
    assert searched(**plain) == {"outer.weight_decay"}
    with pytest.raises(ConfigError, match="nothing to search"):
        parse_space([], Config.from_dict(plain | {"outer": {"freeze": ["backbone"]}}))
    gated = Config.from_dict({"encoder": {"enabled": False}, "inner": {"steps": 2, "gate": True}})
    assert parse_space([], gated)["inner.steps"] == Range(1, 5)
    adam = Config.from_dict({"inner": {"optimiser": "adam"}})
    assert parse_space([], adam)["inner.step_size"].high == 0.1


def test_searched_decays_reach_those_that_shrink_a_weight() -> None:
    """AdamW's by some 99 % in 10,000 steps of 0.001 on a cosine; SGD's would leave none."""
    usual = default_space(Config())
    assert usual["outer.weight_decay"] == usual["outer.encoder_weight_decay"] == Range(1e-4, 1.0, log=True)
    momentum = default_space(Config.from_dict({"outer": {"optimiser": "sgd"}}))
    assert momentum["outer.weight_decay"] == Range(1e-6, 1e-2, log=True)


def test_values_and_back(tiny) -> None:
    values = {"outer.penalty": 0.3, "encoder.decoder": "gru", "inner.steps": 2}
    changed = with_values(tiny, values, name="other")
    assert changed.name == "other" and values_of(changed, values) == values
    assert replace(tiny, name="other") == with_values(changed, values_of(tiny, values))
    with pytest.raises(ConfigError, match=r"outer\.penalty"):
        with_values(tiny, {"outer.penalty": -1.0})
