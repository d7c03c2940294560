"""A real server in a process of its own, and a client of few lines."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from hymunet import HyMUNet, Predictor
from hymunet.data.phantoms import draw_lesion
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.network.model_file import save_model

SOURCE = Path(__file__).resolve().parents[3] / "src"
TOY = {"dims": (4, 8, 8, 16), "depths": (1, 1, 1, 1), "d_state": 2}
_START = "import sys; from hymunet.cli import main; sys.exit(main(sys.argv[1:]))"

needs_serve = pytest.mark.skipif(
    not all(map(find_spec, ("fastapi", "uvicorn", "python_multipart", "prometheus_client"))),
    reason='THE SERVER IS NOT TESTED: pip install "hymunet[serve]"',
)


def save_toy(path: Path, spatial_dims: int = 2, num_classes: int = 1, **info) -> Path:
    """A seeded network that takes about half of a drawn lesion's picture for a lesion."""
    torch.manual_seed(3)
    softmax = num_classes > 1
    network = HyMUNet(
        3 if spatial_dims == 2 else 1,
        num_classes,
        spatial_dims=spatial_dims,
        activation="softmax" if softmax else "sigmoid",
        **TOY,
    ).eval()
    channels = network.config.in_channels
    shared = {"normalisation": "image", "mean": (0.5,) * channels, "std": (0.25,) * channels}
    config = (
        PreprocessConfig(image_size=(64, 64), resize="squeeze", multiple=16, **shared)
        if spatial_dims == 2
        else PreprocessConfig(resize="window", patch_size=(16, 16, 16), multiple=16, **shared)
    )
    told = {"preprocess": Preprocess(config).to_dict(), "licence": "CC0-1.0", **info}
    if spatial_dims == 2 and not softmax:
        told["classes"] = ["lesion"]
        picture = draw_lesion(0, (37, 53)).image
        median = float(np.median(Predictor(network, info=told)(picture).probability))
        with torch.no_grad():
            network.head.logits.bias -= np.log(median / (1 - median))
    return save_model(path, network, told)


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    content: bytes

    def json(self):
        return json.loads(self.content)


@dataclass
class Client:
    """Whoever asks a server on this machine."""

    port: int

    def ask(self, method, path, body=None, headers=None, timeout=30) -> Answer:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, named, answer.read())
        finally:
            connection.close()

    def segment(self, content, content_type="image/png", query="", **more) -> Answer:
        """An image to /v1/segment."""
        headers = {"Content-Type": content_type, **more}
        return self.ask("POST", f"/v1/segment{query}", content, headers)


@dataclass
class Running(Client):
    """A server in a process of its own, and what it says."""

    process: subprocess.Popen
    lines: list[str] = field(default_factory=list)

    def memory(self) -> int:
        """Resident bytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", text)[1]) * 1024

    def stop(self, signal_number=signal.SIGTERM) -> int:
        """The exit code."""
        self.process.send_signal(signal_number)
        return self.process.wait(60)


def start(*arguments: str) -> Running:
    """`hymunet serve ARGUMENTS --port 0`, once it listens."""
    environment = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _START, "serve", *map(str, arguments), "--port", "0"]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    running = Running(0, process)
    listening = threading.Event()

    def listen():
        for line in process.stderr:
            running.lines.append(line.rstrip())
            if found := re.search(r"serving at http://127\.0\.0\.1:(\d+)", line):
                running.port = int(found[1])
                listening.set()
        listening.set()

    threading.Thread(target=listen, daemon=True).start()
    listening.wait(120)
    assert running.port, running.lines
    return running


@contextmanager
def started_here(model_file, limits=None, token=None, hosts=None):
    """A server on a thread of this process; told to stop, it finishes what it has accepted."""
    from hymunet.deploy.app import make_app
    from hymunet.deploy.limits import Limits
    from hymunet.deploy.listener import make_server
    from hymunet.deploy.serve import identity_of, listen

    limits = limits or Limits()
    identity = identity_of(model_file)
    gate, engine = make_app(Predictor(model_file), identity, limits, token, hosts)
    with listen("127.0.0.1", 0) as listener:
        listener.listen(128)
        engine.start()
        server = make_server(gate, limits.timeout_s)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield Client(listener.getsockname()[1])
        finally:
            gate.draining = True
            thread.join(60)
            engine.stop()
            assert not thread.is_alive()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory):
    return save_toy(tmp_path_factory.mktemp("served") / "toy.safetensors")


@pytest.fixture(scope="session")
def server(model_file):
    """A server that the tests share; small limits, so that they are quickly reached."""
    running = start(
        model_file, "--max-megabytes", "12", "--max-megapixels", "4", "--timeout", "20",
        "--queue", "64",
    )  # fmt: skip
    yield running
    assert running.stop() == 0, running.lines[-20:]


@pytest.fixture
def scratch_server():
    """A function that starts a server of the test's own, ended with the test."""
    begun = []

    def make(*arguments):
        begun.append(start(*arguments))
        return begun[-1]

    yield make
    for running in begun:
        if running.process.poll() is None:
            running.process.kill()
            running.process.wait()


def wait_until(true, seconds=30.0):
    """Until it is so."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
