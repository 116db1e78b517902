"""Which networks of timm and torchvision take FiLM layers and give them back: results/architectures.json.

    python scripts/architectures.py list                      # those that are tried
    python scripts/architectures.py try                       # those of which there is no record yet
    python scripts/architectures.py try --name timm:resnet18  # one of them, again
    python scripts/architectures.py page                      # docs/architectures.md, from the records

Random weights, moved off their first values so that no layer is idle; small images. Each network is checked
for what `metafilm.film` promises: the identity before adaptation, tasks that don't see each other, folding,
removal, its state dict both ways, and `torch.export` of the folded network. Records are written as they are
made: a run that is stopped goes on where it was.
"""

import argparse
import copy
import json
import math
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder: `scripts.records` from wherever it is started

from episodes.progress import Progress  # noqa: E402
from metafilm import film  # noqa: E402
from metafilm.errors import first_line  # noqa: E402
from metafilm.storage.atomic import atomic_write, finite  # noqa: E402
from scripts.records import commit, hardware  # noqa: E402

OUT = ROOT / "results" / "architectures.json"
PAGE = ROOT / "docs" / "architectures.md"
TASKS, IMAGES, CLASSES = 2, 2, 3  # tasks at once, images of each, outputs
TOLERANCE = 1e-4  # of the largest output, in float32
CHECKS = ("identity", "tasks", "rows", "fold", "remove", "state_dict", "export")

KINDS = {
    "convolutional": "resnet10t seresnet18 skresnet18 resnest14d res2net50_14w_8s regnetx_002 regnety_002 "
    "mobilenetv2_050 mobilenetv3_small_050 mobilenetv4_conv_small_035 mnasnet_small lcnet_050 tinynet_e "
    "ghostnet_050 ghostnetv3_050 densenet121 dla46x_c ese_vovnet19b_slim_dw cspresnet50 hrnet_w18_small "
    "selecsls42b repvgg_a0 mobileone_s0 repghostnet_050 fastvit_t8 hgnetv2_b0 xception41 inception_v4 dpn48b "
    "convnext_atto convnextv2_atto convnext_atto_rms inception_next_atto starnet_s050 mambaout_femto "
    "rdnet_tiny shvit_s1 repvit_m0_9 convmixer_768_32",
    "norm-free": "vgg11 nf_resnet26 nf_regnet_b0 nfnet_l0 eca_nfnet_l0 resnetv2_50d_frn",
    "norm-and-activation": "tf_efficientnet_lite0 efficientnet_b0 tf_efficientnetv2_b0 resnetv2_18d "
    "resnetv2_50x1_bit resnetv2_50d_evos efficientnet_b0_gn efficientnet_b0_g16_evos "
    "mobilenetv4_hybrid_medium mobilenetv5_base",
    "vision transformer": "vit_tiny_patch16_224 deit_tiny_distilled_patch16_224 vit_tiny_patch16_dinov3_qkvb "
    "vit_relpos_small_patch16_224 vit_tiny_r_s16_p8_224 eva02_tiny_patch14_224 cait_xxs24_224 "
    "xcit_nano_12_p16_224 convit_tiny crossvit_tiny_240 pit_xs_224 tnt_s_legacy_patch16_224 volo_d1_224 "
    "hiera_tiny_224 mvitv2_tiny swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_ns_224 "
    "davit_tiny nest_tiny gcvit_xxtiny focalnet_tiny_srf twins_pcpvt_small twins_svt_small pvt_v2_b0 "
    "visformer_tiny",
    "convolution and attention": "levit_128s levit_conv_128s mobilevit_xxs mobilevitv2_050 edgenext_xx_small "
    "efficientformer_l1 efficientformerv2_s0 efficientvit_b0 efficientvit_m0 tiny_vit_5m_224 swiftformer_xs "
    "maxvit_pico_rw_256 coatnet_pico_rw_224 coat_lite_tiny vitamin_small_224 nextvit_small botnet26t_256 "
    "lambda_resnet26t poolformer_s12 poolformerv2_s12",
    "MLP mixer": "mixer_s32_224 resmlp_12_224 gmlp_ti16_224 gmixer_12_224 sequencer2d_s",
}
TORCHVISION = {
    "convolutional": "convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3 "
    "mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnext50_32x4d "
    "wide_resnet50_2 shufflenet_v2_x0_5 vgg11_bn",
    "norm-free": "alexnet squeezenet1_1 vgg11",
    "vision transformer": "vit_b_32 swin_t swin_v2_t",
    "convolution and attention": "maxvit_t",
}
SIDE = 64  # of the square images, in pixels, but for these
SIDES = {"crossvit_tiny_240": 240, "efficientformer_l1": 224, "inception_v4": 96, "inception_v3": 96}
TOLD: dict[str, dict[str, Any]] = {  # what some networks of torchvision have to be told of small images
    "vit_b_32": {"image_size": 64},
    "googlenet": {"init_weights": False, "aux_logits": False},
    "inception_v3": {"init_weights": False, "aux_logits": False},
}
SMALL_MAXVIT: dict[str, Any] = {  # maxvit_t itself takes 224 x 224 alone
    "input_size": (64, 64),
    "stem_channels": 32,
    "partition_size": 2,
    "block_channels": [32, 64, 128, 256],
    "block_layers": [1, 1, 2, 1],
    "head_dim": 32,
    "stochastic_depth_prob": 0.0,
}


@dataclass(frozen=True)
class Architecture:
    """A network that is tried: ``timm`` or ``torchvision``, its name there, and what kind it is."""

    library: str
    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.library}:{self.name}"

    @property
    def side(self) -> int:
        """Of the square images, in pixels."""
        return SIDES.get(self.name, SIDE)

    def make(self) -> nn.Module:
        """The plain network in evaluation mode: random weights, the same each time."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of arguments that are going out of use, their libraries' own
            torch.manual_seed(0)
            network = self._timm() if self.library == "timm" else self._torchvision()
            return lively(network).eval()

    def _timm(self) -> nn.Module:
        import timm

        try:  # networks with positions are told the size; the others refuse to be
            return timm.create_model(self.name, num_classes=CLASSES, img_size=self.side)
        except TypeError:
            return timm.create_model(self.name, num_classes=CLASSES)

    def _torchvision(self) -> nn.Module:
        from torchvision import models

        if self.name == "maxvit_t":
            return models.MaxVit(num_classes=CLASSES, **SMALL_MAXVIT)
        told = TOLD.get(self.name, {})
        return models.get_model(self.name, weights=None, num_classes=CLASSES, **told)


ARCHITECTURES = [
    Architecture(library, name, kind)
    for library, kinds in (("timm", KINDS), ("torchvision", TORCHVISION))
    for kind, names in kinds.items()
    for name in names.split()
]


def lively(network: nn.Module) -> nn.Module:
    """Weights and statistics off their first values, in place: no norm, last layer or layer scale that starts
    at 0, 1 or next to nothing hides what stands before it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if not value.is_floating_point():
                continue
            noise = torch.randn(value.shape, generator=generator)
            if name.endswith("running_var"):
                value.mul_(1 + 0.2 * noise.abs())
            elif name.endswith(("running_mean", "bias", "beta")) or value.dim() == 1:
                value.add_(0.1 * noise)
                if value.abs().mean() < 0.05:
                    value.add_(0.3)
            elif value.abs().max() < 1e-3:
                value.copy_(0.05 * noise)
    return network


class Failed(Exception):
    """A check that did not come out."""


def tried(architecture: Architecture) -> dict[str, Any]:
    """A record: what was found of each check, up to the first that failed and why."""
    found: dict[str, Any] = {
        "library": architecture.library,
        "name": architecture.name,
        "kind": architecture.kind,
        "image_size": architecture.side,
        "passed": [],
        "reason": None,
    }
    start = time.perf_counter()
    try:
        with torch.no_grad():
            _try(architecture, found)
    except Exception as error:  # other people's networks raise what they like; it is what the record is for
        found["reason"] = f"{type(error).__name__}: {first_line(error)}"
    return {**found, "seconds": round(time.perf_counter() - start, 1)}


def _try(architecture: Architecture, found: dict[str, Any]) -> None:
    plain = architecture.make()
    side = architecture.side
    images = torch.rand(TASKS * IMAGES, 3, side, side, generator=torch.Generator().manual_seed(1))
    expected = plain(images)
    network = film.insert(copy.deepcopy(plain))
    sites = film.sites(network)
    found["family"] = type(plain).__name__
    found["parameters"] = sum(value.numel() for value in plain.parameters())
    found["sites"], found["deviations"] = len(sites), 2 * sum(sites.values())

    def check(name: str, error: float | bool) -> None:
        if not isinstance(error, bool):
            found[f"{name}_error"] = error
        if not (error if isinstance(error, bool) else error <= TOLERANCE):
            raise Failed(f"{name}: " + ("not equal" if error is False else f"{error:.1e} of the output"))
        found["passed"].append(name)

    check("identity", torch.equal(network(images), expected))
    generator = torch.Generator().manual_seed(2)
    deviations = {
        name: 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in film.zeros(network, TASKS).items()
    }
    tasks = [{name: value[i] for name, value in deviations.items()} for i in range(TASKS)]
    alone = [film.call(network, task, part) for task, part in zip(tasks, images.split(IMAGES), strict=True)]
    one_by_one = torch.cat(alone)
    # deviations that no output depends on would pass every other check
    found["moved"] = relative(expected, one_by_one)
    if found["moved"] < 10 * TOLERANCE:
        raise Failed(f"deviations moved the output by {found['moved']:.1e} alone")
    check("tasks", relative(film.call(network, deviations, images), one_by_one))
    mixed = torch.tensor([1, 0, 1, 0])
    order = torch.tensor([2, 0, 3, 1])  # the rows of `images` in an order in which their tasks are `mixed`
    by_index = film.call(network, deviations, images[order], rows=mixed)
    check("rows", relative(by_index, one_by_one[order]))
    folded = film.fold(network, tasks[0])
    check(
        "fold",
        max(relative(folded(images[:IMAGES]), alone[0]), relative(film.fold(network)(images), expected)),
    )
    adapted = film.insert(copy.deepcopy(plain))
    state = adapted.state_dict()  # not a new dict: some networks read its metadata
    state.update(tasks[0])
    adapted.load_state_dict(state)
    same_task = torch.equal(adapted(images[:IMAGES]), alone[0])
    film.remove(adapted)
    kept, own = adapted.state_dict(), plain.state_dict()
    same_state = list(kept) == list(own) and all(torch.equal(kept[name], own[name]) for name in own)
    hooks = any(module._forward_hooks or module._forward_pre_hooks for module in adapted.modules())
    check("remove", same_state and not hooks and torch.equal(adapted(images), expected))
    fresh = film.insert(architecture.make())
    fresh.load_state_dict(own)  # a checkpoint of the plain network
    check("state_dict", same_task and torch.equal(fresh(images), expected))
    check("export", exported(folded, images, found))


def exported(network: nn.Module, images: Tensor, found: dict[str, Any]) -> float:
    """How far the exported program is from the network, at most, at the batch it was exported with and, where
    the network leaves it open, another."""
    batch = ({0: torch.export.Dim.AUTO},)  # open, unless the network's own code says otherwise
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own, about itself
        program = torch.export.export(network, (images,), dynamic_shapes=batch)
        run: Callable[[Tensor], Tensor] = program.module()
    error = relative(run(images), network(images))
    try:
        error = max(error, relative(run(images[:3]), network(images[:3])))
        found["batch"] = "any"
    except (RuntimeError, AssertionError):
        found["batch"] = str(len(images))
    return error


def relative(value: Tensor, expected: Tensor) -> float:
    """The largest difference, in units of the largest output."""
    return float((value - expected).abs().max() / expected.abs().max())


def read() -> dict[str, dict[str, Any]]:
    """The records there are, by ``library:name``."""
    rows = json.loads(OUT.read_text()) if OUT.is_file() else []
    return {f"{row['library']}:{row['name']}": row for row in rows}


def write(rows: dict[str, dict[str, Any]]) -> None:
    kept = [rows[str(one)] for one in ARCHITECTURES if str(one) in rows]
    lines = ",\n".join("  " + json.dumps(finite(row)) for row in kept)
    atomic_write(OUT, f"[\n{lines}\n]\n".encode())


def try_all(names: list[str] | None) -> int:
    """Try the named ones, else those without a record; one after the other, in this process."""
    rows = read()
    chosen = [one for one in ARCHITECTURES if (str(one) in names if names else str(one) not in rows)]
    if names and (unknown := set(names) - {str(one) for one in ARCHITECTURES}):
        print(
            f"no such architecture: {min(unknown)}; see: python scripts/architectures.py list",
            file=sys.stderr,
        )
        return 2
    said = {"hardware": hardware(), "commit": commit()}
    with Progress("trying", total=len(chosen)) as progress:
        for one in chosen:
            progress.advance(0, f"trying {one}")
            command = f"python scripts/architectures.py try --name {one}"
            rows[str(one)] = {**tried(one), "command": command, "versions": versions(one.library), **said}
            write(rows)
            progress.advance()
    print(summary(list(rows.values())))
    return 0


def versions(library: str) -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in dict.fromkeys(("torch", library))}


def whole(row: dict[str, Any]) -> bool:
    return row["passed"] == list(CHECKS)


def summary(rows: list[dict[str, Any]]) -> str:
    """How many of each library passed all checks."""
    passed = Counter(row["library"] for row in rows if whole(row))
    there = Counter(row["library"] for row in rows)
    return ", ".join(f"{passed[name]} of {count} {name} networks passed" for name, count in there.items())


def upwards(number: float) -> str:
    """To two digits, and none too few: 1.31e-06 is 1.4e-06."""
    digit = 10.0 ** (math.floor(math.log10(number)) - 1) if number else 1.0
    return f"{math.ceil(number / digit) * digit:.1e}"


def page() -> str:
    """docs/architectures.md."""
    rows = list(read().values())
    worst = {name: max(row.get(f"{name}_error", 0.0) for row in rows) for name in ("tasks", "fold", "export")}
    lines = [
        "# Networks that take FiLM layers",
        "",
        "`python scripts/architectures.py try` puts FiLM layers into one small network of each family, with",
        "random weights, and checks: the same outputs before adaptation, bit for bit; two tasks at once, one",
        "after the other and row by row, against one by one; folding; removal; its state dict both ways;",
        "`torch.export` of the folded network at any batch size. Errors are parts of the largest output, in",
        f"float32; at most {upwards(worst['tasks'])} between tasks at once and one by one, "
        f"{upwards(worst['fold'])} by folding,",
        f"{upwards(worst['export'])} by exporting. {summary(rows)};",
        "[results/architectures.json](../results/architectures.json) has every number. maxvit_t stands for",
        "a smaller MaxVit of torchvision's: the named one takes 224 x 224 pixels alone.",
    ]
    for library in dict.fromkeys(row["library"] for row in rows):
        lines += ["", f"## {library}", ""]
        lines += [
            "| network | kind | pixels | sites | deviations | folded | checks |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in rows:
            if row["library"] == library:
                fold = f"{row['fold_error']:.0e}" if "fold_error" in row else "–"
                said = "all" if whole(row) else f"{len(row['passed'])} of {len(CHECKS)}: {row['reason']}"
                if whole(row) and row["batch"] != "any":
                    said = f"all; exported for batches of {row['batch']} alone"
                lines.append(
                    f"| {row['name']} | {row['kind']} | {row['image_size']} | {row.get('sites', '–')} | "
                    f"{row.get('deviations', '–')} | {fold} | {said} |"
                )
    return "\n".join([*lines, ""])


def parsed(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(dest="do", required=True)
    commands.add_parser("list", help="the architectures that are tried")
    trying = commands.add_parser("try", help="try those of which there is no record yet")
    trying.add_argument("--name", nargs="+", help="these instead, LIBRARY:NAME, even if there is a record")
    commands.add_parser("page", help="draw docs/architectures.md from the records")
    return parser.parse_args(words)


def main() -> int:
    arguments = parsed()
    if arguments.do == "try":
        return try_all(arguments.name)
    if arguments.do == "page":
        atomic_write(PAGE, page().encode())
        return 0
    for one in ARCHITECTURES:
        print(f"{one!s:50} {one.kind}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
