"""How far adaptation is worth going, and learners that go no further."""

import pytest
import torch

from metafilm import Gate, MetaFiLM, MetafilmError
from metafilm.evaluation import evaluate, far_enough, interval
from metafilm.learner import overridden

STAGES = ["identity", "encoder", "step 1"]


@pytest.mark.parametrize("measure", ["accuracy", "mse"])
def test_the_first_stage_than_which_the_last_is_not_clearly_better(measure) -> None:
    sign = -1.0 if measure == "mse" else 1.0
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(40, 3, generator=generator)
    noise -= noise.mean(0)

    def rows(*gains: float) -> list[list[float]]:
        return (sign * (torch.tensor(gains) + 0.1 * noise)).tolist()

    assert far_enough(STAGES, rows(0.0, 1.0, 2.0), measure) is None
    assert far_enough(STAGES, rows(0.0, 2.0, 2.0), measure) == "encoder"
    assert far_enough(STAGES, rows(2.0, 1.0, 2.0), measure) == "identity"
    assert far_enough(STAGES, rows(0.0, 2.0, -1.0), measure) == "encoder"  # steps that spoil it
    assert far_enough(STAGES, rows(0.0, -1.0, -2.0), measure) == "identity"
    assert far_enough(STAGES, rows(0.0, -1.0, 1.0), measure) is None
    assert far_enough(["identity", "step 1"], [row[1:] for row in rows(0.0, 0.0, 1.0)], measure) is None
    assert far_enough(["identity"], [[row[0]] for row in rows(0.0, 0.0, 0.0)], measure) is None
    # by the interval of the paired differences
    for shift in (0.9, 1.1):
        two = rows(0.0, 0.0, 0.0)
        gains = [sign * (row[2] - row[0]) for row in two]
        for row in two:
            row[2] += sign * (shift * interval(gains) - sum(gains) / len(gains))
        assert (far_enough(["identity", "step 1"], [row[::2] for row in two], measure) is None) == (shift > 1)


@pytest.mark.parametrize("stage", ["identity", "encoder"])
def test_a_learner_goes_as_far_as_it_is_said_to(make_learner, make_episode, sampler, stage) -> None:
    adapt = {"identity": "never", "encoder": "encoder"}[stage]
    learner = make_learner(inner={"steps": 1, "step_size": 0.5}, evaluation={"adapt": adapt})
    whole = make_learner(inner={"steps": 1, "step_size": 0.5})
    for one in (learner, whole):
        for value in one.encoder.state_dict().values():  # an encoder that does something
            value.copy_(torch.rand_like(value) / 4)
    whole.load_state_dict(learner.state_dict())
    episode = make_episode(1)
    images, labels = episode.support_images[0], episode.support_labels[0].tolist()
    wanted = whole.eval().adaptation(episode)
    with torch.no_grad():
        found, all_there = (learner.eval().adaptation(episode, all_stages=every) for every in (False, True))
    assert found.stages == STAGES[: STAGES.index(stage) + 1]
    assert (
        all_there.stages == [*STAGES, "chosen"]
        and all_there.films[-1] is all_there.films[STAGES.index(stage)]
    )
    film = learner.adapt(images, labels).film
    for name, value in film.items():
        expected = wanted.films[STAGES.index(stage)].get(name, torch.zeros_like(value)[None])[0]
        torch.testing.assert_close(value, expected)
    # whoever asks for steps sees them
    for name, value in learner.adapt(images, labels, steps=1).film.items():
        torch.testing.assert_close(value, wanted.films[-1][name][0])
    scored, known = (evaluate(one, sampler, 4, progress=False) for one in (learner, whole))
    at = STAGES.index(stage)
    assert scored["stages"] == [*STAGES, "chosen"] and scored["steps"] == 0
    assert (
        scored["accuracy"] == scored["accuracy_by_step"][at] == pytest.approx(known["accuracy_by_step"][at])
    )
    short = evaluate(learner, sampler, 4, by_stage=False, progress=False)
    assert short["stages"] == [stage] and short["accuracy"] == pytest.approx(scored["accuracy"])
    asked = evaluate(learner, sampler, 4, steps=1, progress=False)
    assert asked["accuracy_by_step"] == pytest.approx(known["accuracy_by_step"]) and asked["steps"] == 1
    other = evaluate(learner, sampler, 4, encoder_support="shuffled", progress=False)
    assert other["accuracy_own_support"] == pytest.approx(known["accuracy"])
    mean = evaluate(learner, sampler, 4, encoder_support="mean", progress=False)
    assert mean["accuracy_own_support"] == pytest.approx(known["accuracy"]) and mean["steps"] == 1
    gated = evaluate(learner, sampler, 4, gate=True, progress=False)
    assert gated["stages"] == [*STAGES, "gate"] and gated["steps"] == 1
    learner.train()
    assert learner.adaptation(episode).stages == STAGES


def test_it_is_kept_in_files(make_learner, tmp_path) -> None:
    learner = make_learner(evaluation={"adapt": "encoder"})
    learner.save(tmp_path / "one.safetensors")
    learner.stage = None  # taken back by hand
    learner.save(tmp_path / "two.safetensors")
    learner.stage = "identity"
    learner.save(tmp_path / "three.safetensors")
    learner.config = None
    learner.save(tmp_path / "four.safetensors")
    names = ("one", "two", "three", "four")
    found = [MetaFiLM.from_pretrained(tmp_path / f"{name}.safetensors") for name in names]
    assert [one.stage for one in found] == ["encoder", None, "identity", "identity"]
    assert found[1].config.evaluation.adapt == "always"
    assert overridden(found[0], head="cosine").stage == "encoder"


def test_a_stage_that_is_not_there(make_learner) -> None:
    learner = make_learner(encoder={"enabled": False})
    with pytest.raises(MetafilmError, match="stage 'encoder' is none this learner has"):
        MetaFiLM(learner.backbone, learner.head, image_shape=learner.image_shape, stage="encoder")
    with pytest.raises(MetafilmError, match="stage 'identity' beside a gate"):
        MetaFiLM(
            learner.backbone, learner.head, image_shape=learner.image_shape, stage="identity", gate=Gate()
        )
    with pytest.raises(MetafilmError, match="must be auto or always with a gate"):
        make_learner(inner={"gate": True}, evaluation={"adapt": "never"})
    with pytest.raises(MetafilmError, match="must not be encoder without a task encoder"):
        make_learner(encoder={"enabled": False}, evaluation={"adapt": "encoder"})
