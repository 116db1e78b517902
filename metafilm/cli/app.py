"""`metafilm app`: a local page to draw on."""

import sys
import webbrowser

import torch

from metafilm.app import Desk, Server
from metafilm.cli.adapt import learner_of
from metafilm.errors import MetafilmError


def app(run_or_name: str, host: str, port: int, image_size: int | None, show: bool) -> int:
    """Serve the page until Ctrl-C. Raises MetafilmError."""
    if not 0 <= port < 65536:
        raise MetafilmError(f"--port must be from 0 to 65535, is {port}")
    learner = learner_of(run_or_name, None, image_size, None, None)
    desk = Desk(learner, run_or_name)
    with Server(desk, host, port) as server:
        blank = torch.zeros(2, *learner.image_shape)
        steps = min(1, learner.evaluation_steps)
        learner.adapt(blank, [0, 1], steps=steps, gate=False, checked=True)  # builds the kernels
        if not server.loopback:
            print(
                f"warning: {host} can be reached from other machines, and the page asks nobody who they are; "
                "leave --host out to keep it to this one",
                file=sys.stderr,
            )
        print(f"draw on {server.url} (Ctrl-C ends it)", flush=True)
        if show:
            webbrowser.open(server.url)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("\nended")
    return 0
