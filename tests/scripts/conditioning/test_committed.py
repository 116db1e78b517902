"""The committed records of the systems: whole, and their commands still say what their settings are."""

import json
import re
import shlex
from pathlib import Path

import pytest

from scripts.conditioning.commands import systems

ROOT = Path(__file__).resolve().parents[3]
KEYS = set(
    "system arm setting metric value ci95 ci95_over seeds parameters training_seconds hardware commit "
    "command config protocol tested_on".split()
)
RECORDS = [(system, one) for system in systems().values() for one in json.loads(system.out.read_text())]


@pytest.mark.parametrize(
    ("system", "one"),
    RECORDS,
    ids=[f"{s.name}-{o['arm']}-{o['metric']}-{i}" for i, (s, o) in enumerate(RECORDS)],
)
def test_a_record_is_whole_and_can_be_made_again(system, one):
    assert set(one) >= KEYS and one["system"] == system.name and one["ci95"] >= 0
    assert (ROOT / one["config"]) == system.config and one["tested_on"] == system.tested_on
    assert all(re.fullmatch("[0-9a-f]{40}", commit) for commit in one["commit"].split("; "))
    command = one["command"]
    if command == f"python {system.script} write":  # made of other records
        return
    seeds = one["seeds"]
    if len(seeds) > 1:
        before = f"for seed in {' '.join(map(str, seeds))}; do "
        assert command.startswith(before) and command.endswith("; done")
        command = command.removeprefix(before).removesuffix("; done")
    for seed in seeds:
        python, script, *words = shlex.split(command.replace("$seed", str(seed)))
        assert (python, script) == ("python", system.script)
        options = system.parsed(None, words)
        assert (options.do, options.arm, options.seed) == ("train", one["arm"], seed)
        found = vars(system.settings(options.arm, [f"seed={options.seed}", *options.set]))
        assert json.loads(json.dumps(found)) == {**one["setting"], "seed": seed}
