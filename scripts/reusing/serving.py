"""The drawing page's server, for as long as somebody looks at it; for tests and measurements."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from metafilm import MetaFiLM
from metafilm.app import Desk, Server


@contextmanager
def running(learner: MetaFiLM, name: str = "test", host: str = "127.0.0.1") -> Iterator[Server]:
    """A server in a thread of its own, until the end of the context."""
    with Server(Desk(learner, name), host, 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
