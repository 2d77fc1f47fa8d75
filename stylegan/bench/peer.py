"""A second process that renders when told to: with Linux's own allocator, as users of other tools get it, or alone,
to see how much memory a picture takes. It speaks JSON, one line a question."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START = "from stylegan.device import tune_allocator; tune_allocator(); from stylegan.bench.peer import serve; serve()"


class Peer:
    """The other end of `serve`: each `render` is one picture there, `memory` what it took at most, in MiB."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process
        self.pid, self.memory = process.pid, 0.0

    def render(self) -> None:
        """Have one picture made, and wait for it."""
        self.memory = self.ask("render")

    def ask(self, question: Any) -> Any:
        """One line there, one line back."""
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError("The process that measures beside this one has ended.")
        return json.loads(answer)


@contextmanager
def peer(config: str, way: str, *, tuned: bool) -> Iterator[Peer]:
    """A process for the network of a config's JSON: `way` is `textbook` or `plain`; `tuned` for our allocator."""
    environment = os.environ | {"STYLEGAN_KEEP_MALLOC": "0" if tuned else "1"}
    if not tuned:
        environment.pop("THP_MEM_ALLOC_ENABLE", None)
    root = Path(__file__).resolve().parents[2]
    process = subprocess.Popen([sys.executable, "-c", START], cwd=root, env=environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    try:
        found = Peer(process)
        found.ask([config, way])
        yield found
    finally:
        process.stdin.close()
        process.wait()


def serve() -> None:
    """Answer questions on stdin until it ends."""
    from stylegan.bench.network import Walk, random_network
    from stylegan.bench.textbook import Textbook
    from stylegan.engines.plain import PlainEngine
    from stylegan.networks.config import GeneratorConfig

    before = _held_mib()
    config, way = json.loads(sys.stdin.readline())
    generator, ws = random_network(GeneratorConfig.from_json(config))
    if way == "textbook":
        textbook = Textbook(generator)
        run = lambda: textbook(ws)  # noqa: E731
    else:
        run = Walk(PlainEngine(generator.synthesis), generator, ws).run
    print(json.dumps("ready"), flush=True)
    for _ in sys.stdin:
        run()
        print(json.dumps(_peak_mib() - before), flush=True)


def _peak_mib() -> float:
    """The most memory that this process ever held, in MiB; 0 where there is no telling."""
    try:
        import resource
    except ImportError:
        return 0.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _held_mib() -> float:
    """The memory that this process holds now, in MiB; 0 where there is no telling."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError, IndexError):
        return 0.0
