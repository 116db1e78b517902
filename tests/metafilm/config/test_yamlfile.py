"""YAML is read within limits: one clear error, quickly, whatever the file holds."""

import time

import pytest

from metafilm.config import Config
from metafilm.config.yamlfile import MAX_BYTES, read_yaml
from metafilm.errors import ConfigError


def written(tmp_path, text: str | bytes):
    path = tmp_path / "settings.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_numbers_as_people_write_them(tmp_path):
    config = Config.from_yaml(written(tmp_path, "outer: {learning_rate: 1e-3, weight_decay: 5E-4}"))
    assert (config.outer.learning_rate, config.outer.weight_decay) == (1e-3, 5e-4)


def test_dates_are_words(tmp_path):
    assert read_yaml(written(tmp_path, "name: 2024-01-31\nother: 2024-13-45")) == {
        "name": "2024-01-31",
        "other": "2024-13-45",
    }


def test_a_few_references_are_taken(tmp_path):
    text = "episodes: {ways: &range [2, 5], shots: *range}"
    assert Config.from_yaml(written(tmp_path, text)).episodes.shots == (2, 5)


def bomb(levels: int) -> str:
    """Each level holds the one below nine times."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"seed: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("seed: 1\nseed: 2", "'seed' is set twice (line 2, column 1)"),
        ("outer: {meta_batch: 1, meta_batch: 2}", "'meta_batch' is set twice"),
        ("seed: [1", "is not valid YAML"),
        ('name: "\\U00110000"', "is not valid YAML"),
        ("seed: 1\n---\nseed: 2", "is not valid YAML"),
        ("seed: !!python/object/apply:os.getcwd []", "is not valid YAML"),
        ("? [1, 2]\n: 3", "a key must be a word"),
        ("seed: !!int abc", "tag 'tag:yaml.org,2002:int' is not taken; write the plain value (line 1"),
        ("seed: !!timestamp 2024-13-45", "write the plain value"),
        ("seed: !!set {a, b}", "write the plain value"),
        ("seed: ! 3", "write the plain value"),
        ("seed: 2024-13-45", "--seed must be a whole number, is '2024-13-45'"),
        ("seed: 0b_", "0b_ is no number"),
        ("seed: " + "9" * 6000, "a number of 6,000 digits (line 1, column 7)"),
        ("seed: 0x" + "9" * 6000, "a number of 6,002 digits"),
        ("outer: {clip_norm: " + "9" * 6000 + ".5}", "a number of 6,002 digits"),
        ("outer: {clip_norm: .inf}", "--outer.clip-norm must be a finite number, is inf"),
        ("outer: {clip_norm: 1e999}", "--outer.clip-norm must be a finite number, is inf"),
        ("seed: " + "[" * 30_000, "more than 16 levels of nesting"),
        ("seed: " + "[" * 30_000 + "]" * 30_000, "more than 16 levels of nesting"),
        ("seed: " + "{a: " * 15_000, "more than 16 levels of nesting"),
        ("- " * 30_000, "more than 16 levels of nesting"),
        ("? " * 30_000, "more than 16 levels of nesting"),
        (bomb(6), "more than 10 references"),
        (bomb(9), "more than 10 references"),
        ("seed: &a [*a]", "is not valid YAML"),
        ("\n".join(f"k{n}: {n}" for n in range(5000)), "more than 4,096 entries"),
        ("name: " + "x" * MAX_BYTES, "is larger than 64 KiB"),
        (b"name: \xff\xfe", "can't be read"),
        (b"name: a\x00b", "is not valid YAML"),
    ],
    ids=lambda value: str(value[:30]),
)
def test_refused_in_one_short_message_and_soon(tmp_path, text, expected):
    path = written(tmp_path, text)
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="1 problem") as caught:
        Config.from_yaml(path)
    assert time.perf_counter() - started < 3
    assert expected in str(caught.value) and len(str(caught.value)) < 1000


def test_many_unknown_keys_are_told_soon(tmp_path):
    path = written(tmp_path, "\n".join(f"outer_meta_batch{n}: 1" for n in range(2000)))
    started = time.perf_counter()
    with pytest.raises(ConfigError, match="2000 problems"):
        Config.from_yaml(path)
    assert time.perf_counter() - started < 5
