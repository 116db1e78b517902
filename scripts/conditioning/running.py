"""What the scripts of this folder share: settings with arms, and a training that resumes exactly."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
import yaml
from torch import Tensor, nn

from episodes.progress import Progress
from metafilm.config.yamlfile import StrictLoader, read_yaml
from metafilm.engine.memory import keep_freed_memory
from metafilm.errors import ConfigError, RunError
from metafilm.storage import checkpoint
from metafilm.storage.atomic import atomic_write
from metafilm.training.interrupt import interruptible
from metafilm.training.optimiser import MovingAverage, schedule, set_rate
from metafilm.training.optimiser import load as load_optimiser
from scripts import device
from scripts.conditioning.recorded import Batched, Recorded
from scripts.records import commit, hardware

SAVE_SECONDS = 60.0


@dataclass(frozen=True)
class Plan:
    """How long and how fast a training goes; a system's settings are these and its own."""

    seed: int = 0
    iterations: int = 10_000
    """Steps."""
    learning_rate: float = 1e-3
    """Its peak, after `warmup` steps; then it falls by a cosine to the fraction `final_learning_rate`."""
    warmup: int = 500
    final_learning_rate: float = 0.01
    decay: float = 1e-5
    """L2 weight decay of the network's matrices."""
    condition_decay: float = 1e-5
    """The same of the condition network's."""
    clip: float = 0.0
    """The gradient's greatest norm; 0: any."""
    average: float = 0.0
    """Decay of the moving average of the weights that is scored; 0: the weights are."""


S = TypeVar("S", bound=Plan)


def settings_of(path: Path, usual: S, arm: str, changes: Sequence[str] = ()) -> S:
    """A system's settings: the usual ones, those of its file over them, those of the arm, and changes.

    Args:
        path: YAML with settings by name, and `arms`: their settings by the arm's name.
        usual: what stands where nobody says otherwise.
        changes: `name=value` each.

    Raises:
        ConfigError: an unknown arm or setting, or a value of another type.
    """
    found = read_yaml(path)
    if not isinstance(found, dict) or not isinstance(found.get("arms"), dict):
        raise ConfigError(["has no mapping `arms`"], str(path))
    shared, arms = {k: v for k, v in found.items() if k != "arms"}, found["arms"]
    if arm not in arms:
        raise ConfigError([f"has no arm {arm!r}; its arms: {', '.join(arms)}"], str(path))
    given: dict[str, Any] = {}
    for change in changes:
        name, equals, value = change.partition("=")
        if not equals:
            raise ConfigError([f"{change!r} is no change of a setting; say name=value"], "--set")
        given[name] = yaml.load(value, Loader=StrictLoader)
    for source, part in ((str(path), {**shared, **(arms[arm] or {})}), ("--set", given)):
        usual = replace(usual, **{k: _checked(usual, k, v, source) for k, v in part.items()})
    return usual


def _checked(usual: Any, name: str, value: Any, source: str) -> Any:
    known = [field.name for field in fields(usual)]
    if name not in known:
        raise ConfigError([f"unknown setting {name!r}; there are {', '.join(known)}"], source)
    was = getattr(usual, name)
    if isinstance(was, float) and type(value) in (int, float, str):
        try:
            value = float(value)  # YAML reads 1e-3 as a word
        except ValueError:
            value = None
    if isinstance(was, tuple) and isinstance(value, list):
        value = tuple(value)
    if type(value) is not type(was):
        raise ConfigError([f"{name} is {value!r}, expected a {type(was).__name__} like {was!r}"], source)
    if type(was) in (int, float):  # no size is below one, and no other number below zero
        least = 1 if type(was) is int and was > 0 and name != "warmup" else min(was, 0)
        if not value >= least:
            raise ConfigError([f"{name} is {value!r}, expected at least {least}"], source)
    return value


def optimiser_of(model: nn.Module, plan: Plan) -> torch.optim.Adam:
    """Adam with L2 weight decay, as FiLM's authors have it; the condition network is a group of its own, and
    vectors (biases, norms, post-multipliers) don't decay."""
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        decay = plan.condition_decay if ".condition." in f".{name}" else plan.decay
        groups.setdefault(decay if parameter.dim() > 1 else 0.0, []).append(parameter)
    listed = [
        {"params": of_group, "lr": plan.learning_rate, "peak": plan.learning_rate, "weight_decay": decay}
        for decay, of_group in groups.items()
    ]
    return torch.optim.Adam(listed, fused=device.of(model).type == "cuda" or None)


def train(
    model: nn.Module,
    loss: Callable[[int], Tensor],
    plan: Plan,
    folder: Path,
    description: str = "training",
    save_seconds: float = SAVE_SECONDS,
) -> float:
    """Train from the start, or from where the folder's checkpoint stands, to the end; the seconds it took.

    What it gives is the same to the last bit however often it was stopped. It stops at Ctrl-C when the step
    under way is done, and loses a minute at most when it is killed. At the end the model holds the average of
    its weights, where the plan asks for one.

    Args:
        loss: a step's number, from 0 -> its loss. All it draws comes from that number or PyTorch's generator.
            A ``Batched`` one is recorded on a GPU.

    Raises:
        RunError: the folder holds the training of other settings, or a damaged checkpoint.
        SystemExit: stopped by Ctrl-C or SIGTERM.
    """
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    file, described = folder / "checkpoint.pt", json.dumps(asdict(plan), sort_keys=True)
    optimiser = optimiser_of(model, plan)
    average = MovingAverage(model, plan.average) if plan.average else None
    on_gpu = device.of(model).type == "cuda"
    done, before = 0, 0.0
    if file.is_file():
        state = checkpoint.load(file)
        if state.get("settings") != described:
            raise RunError(f"{folder} holds a training with other settings; choose another, or remove it")
        model.load_state_dict(state["learner"])
        load_optimiser(optimiser, state["optimiser"])
        if average is not None:
            average.load(state["average"])
        torch.set_rng_state(state["random"])
        if on_gpu and "gpu_random" in state:
            torch.cuda.set_rng_state(state["gpu_random"])
        done, before = state["iteration"], state["seconds"]
    start = saved = time.monotonic()

    def save(iteration: int) -> None:
        state = {
            "settings": described,
            "learner": model.state_dict(),
            "optimiser": optimiser.state_dict(),
            "average": average and average.saved(),
            "iteration": iteration,
            "best": None,
            "best_iteration": 0,
            "seconds": before + time.monotonic() - start,
            "chunks": [1, 1],
            "random": torch.get_rng_state(),
            **({"gpu_random": torch.cuda.get_rng_state()} if on_gpu else {}),
        }
        checkpoint.save(file, state)

    model.train()
    recorded = Recorded(model, loss, done) if on_gpu and isinstance(loss, Batched) else None
    with interruptible() as stop, Progress(description, plan.iterations) as progress:
        progress.advance(done)
        for iteration in range(done, plan.iterations):
            set_rate(optimiser, schedule(iteration, plan))  # type: ignore[arg-type]
            if recorded is not None:
                value = recorded(iteration)
            else:
                value = loss(iteration)
                optimiser.zero_grad()
                value.backward()
            if plan.clip:
                nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
            optimiser.step()
            if average is not None:
                average.update(model)
            if iteration % 50 == 0:
                if not math.isfinite(value.item()):
                    raise RunError(f"the loss of step {iteration} is {value.item()}; lower learning_rate")
                progress.advance(description=f"{description}, loss {value.item():.3f}", count=0)
            progress.advance()
            if stop.is_set() or time.monotonic() - saved > save_seconds or iteration + 1 == plan.iterations:
                save(iteration + 1)
                saved = time.monotonic()
            if stop.is_set() and iteration + 1 < plan.iterations:
                raise SystemExit(f"stopped after step {iteration + 1}; the same command goes on from there")
    if average is not None:
        model.load_state_dict(average.state())
    model.eval()
    return before + time.monotonic() - start


def restore(model: nn.Module, folder: Path) -> None:
    """Give a model what the training kept in this folder has come to, as :func:`train` leaves it at its end.

    Raises:
        RunError: there is no training, or its checkpoint is damaged or of another network.
    """
    file = folder / "checkpoint.pt"
    if not file.is_file():
        raise RunError(f"{folder} holds no training; train it first, or name the folder of runs by --runs")
    state = checkpoint.load(file)
    try:
        model.load_state_dict(state["average"]["values"] if state["average"] else state["learner"])
    except RuntimeError as error:
        raise RunError(f"{folder} holds the training of another network: {error}") from None
    model.eval()


def count(model: nn.Module, part: str = "") -> int:
    """Trained numbers, of all the model or of the parts whose names begin so; a network's own deviations,
    which a condition replaces, are none."""
    own = (p for n, p in model.named_parameters() if n.startswith(part) and ".film.delta_" not in n)
    return sum(p.numel() for p in own)


def keep(path: Path, found: Mapping[str, Any]) -> None:
    """Write what is known of a run."""
    atomic_write(path, (json.dumps(found, indent=2) + "\n").encode())


def made_with() -> dict[str, str]:
    """Hardware and commit of what is made now."""
    said = f"{hardware(device.chosen().type)}, {torch.get_num_threads()} threads"
    return {"hardware": said, "commit": commit()}
