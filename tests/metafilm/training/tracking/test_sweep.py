"""Under an agent of a sweep a run has the sweep's settings, and a folder of its own."""

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from metafilm.config.config import Config
from metafilm.errors import ConfigError, MetafilmError
from metafilm.training.tracking import under_sweep

OFFLINE = replace(Config(), tracking=replace(Config().tracking, wandb="offline"))


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """What wandb's agent does before it starts a run: a file of parameters, and three variables."""

    def start(**parameters) -> Path:
        file = tmp_path / "config-abc123.yaml"
        file.write_text(
            yaml.safe_dump({"wandb_version": 1} | {k: {"value": v} for k, v in parameters.items()})
        )
        monkeypatch.setenv("WANDB_SWEEP_ID", "sweep7")
        monkeypatch.setenv("WANDB_RUN_ID", "abc123")
        monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(file))
        return file

    return start


def test_without_an_agent_nothing_changes(monkeypatch, tmp_path) -> None:
    for name in ("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert under_sweep(OFFLINE, None) == (OFFLINE, None)
    monkeypatch.setenv("WANDB_RUN_ID", "abc")  # somebody resumes a run: no sweep
    assert under_sweep(Config(), tmp_path) == (Config(), tmp_path)


def test_dotted_hyphened_and_nested_names_are_settings(agent) -> None:
    agent(
        **{
            "outer.learning_rate": 0.02,
            "inner.step-size": 0.3,
            "head": {"name": "cosine"},
            "episodes": {"ways": [3, 5]},
            "seed": 4,
        }
    )
    config, folder = under_sweep(OFFLINE, None)
    assert (config.outer.learning_rate, config.inner.step_size, config.seed) == (0.02, 0.3, 4)
    assert config.head.name == "cosine" and config.episodes.ways == (3, 5)
    assert config.episodes.shots == OFFLINE.episodes.shots  # beside what the sweep says of the section
    assert folder == Path("runs/run-abc123") and config.tracking.wandb == "offline"


def test_the_agent_gets_its_metrics_and_a_named_folder_stays(agent, tmp_path) -> None:
    agent(seed=1)
    config, folder = under_sweep(Config(), tmp_path / "mine")
    assert config.tracking.wandb == "online" and folder == tmp_path / "mine"


def test_wrong_parameters_are_all_named(agent) -> None:
    agent(**{"outer.learning_rat": 0.1, "outer.meta_batch": 0, "seed.x": 1, "lr": 3})
    with pytest.raises(ConfigError) as caught:
        under_sweep(OFFLINE, None)
    text = str(caught.value)
    assert text.startswith("sweep sweep7: 4 problems")
    for part in (
        "--outer.learning-rat is unknown",
        "--outer.meta-batch must be",
        "--seed",
        "--lr is unknown",
    ):
        assert part in text


@pytest.mark.parametrize("content", ["[1, 2]", "seed: 3", "seed: {val: 3}", "a: [", None])
def test_a_file_that_is_none_is_named(agent, content) -> None:
    file = agent()
    file.unlink() if content is None else file.write_text(content)
    with pytest.raises(MetafilmError, match=r"config-abc123\.yaml, named by WANDB_SWEEP_PARAM_PATH"):
        under_sweep(OFFLINE, None)
