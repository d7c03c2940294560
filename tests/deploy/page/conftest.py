"""What the tests of the page share: a model, its static page, a server, a browser."""

import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hymunet.data.phantoms import draw_lesion
from hymunet.errors import HyMUNetError
from tests.deploy.page.chromium import Browser, why_not

AXE = "4.14.1"
TOY = {"dims": (4, 8), "depths": (1, 1), "d_state": 2, "stages": "CM"}


def write_phantom(path: Path, seed: int = 1, size: tuple[int, int] = (96, 128), **options) -> Path:
    """A drawn lesion as a picture file."""
    Image.fromarray(draw_lesion(seed, size).image.transpose(1, 2, 0)).save(path, **options)
    return path


@pytest.fixture(scope="session")
def runtime() -> Path:
    """The folder that has onnxruntime-web, fetched once into the user's cache."""
    from hymunet.data.cache import default_cache_folder
    from hymunet.deploy.onnxruntime_web import VERSION, runtime_files

    try:
        runtime_files()
    except HyMUNetError as error:
        pytest.skip(f"NOT TESTED IN THE BROWSER'S OWN RUNTIME: {error}")
    return default_cache_folder() / f"onnxruntime-web-{VERSION}"


@pytest.fixture(scope="session")
def axe(tmp_path_factory) -> str:
    """axe-core's script (MPL-2.0), which looks for what shuts people out; for tests only."""
    folder = tmp_path_factory.mktemp("axe")
    npm = shutil.which("npm")
    said = "there is no npm"
    if npm:
        done = subprocess.run(
            [npm, "pack", f"axe-core@{AXE}", "--silent", "--ignore-scripts"],
            cwd=folder,
            capture_output=True,
            text=True,
        )
        said = done.stderr
    packed = folder / f"axe-core-{AXE}.tgz"
    if not packed.is_file():
        pytest.skip(f"ACCESSIBILITY IS NOT TESTED: no axe-core {AXE}: {said.strip()[:200]}")
    with tarfile.open(packed) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.fixture(scope="session")
def model_file(tmp_path_factory) -> Path:
    """Untrained and seeded: two nested structures, with the cleaning up that a model may ask for,
    and a threshold that is no number of 8 bits."""
    import torch

    from hymunet import HyMUNet, Predictor
    from hymunet.network.model_file import save_model

    torch.manual_seed(1)
    network = HyMUNet(3, 2, **TOY).eval()
    preprocess = {"image_size": [64, 64], "resize": "squeeze", "multiple": network.config.stride}
    info = {
        "classes": ["lesion", "core"],
        "licence": "CC0-1.0",
        "threshold": 0.437,
        "preprocess": preprocess,
        "postprocess": {"lesion": ["keep_largest", "fill_holes"], "core": ["keep_largest"]},
    }
    seen = Predictor(network, info=info)(draw_lesion(1, (96, 128)).image).probability
    # a third of the picture above the threshold, of which half is core
    shares = np.array([np.quantile(seen[0], 0.66), np.quantile(seen[1], 0.83)])
    limit = np.log(0.437 / 0.563)
    with torch.no_grad():
        network.head.logits.bias += torch.from_numpy(limit - np.log(shares / (1 - shares))).float()
    return save_model(tmp_path_factory.mktemp("toy") / "toy.safetensors", network, info)


@pytest.fixture(scope="session")
def predictor(model_file):
    from hymunet import Predictor

    return Predictor(model_file)


def needs_export() -> None:
    """Skips where the extra is missing."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(
            package, reason=f"NOT TESTED: {package} (the extra `export`) is missing"
        )


@pytest.fixture(scope="session")
def onnx_file(model_file) -> Path:
    needs_export()
    from hymunet.deploy.export import export

    return export(model_file).path


@pytest.fixture(scope="session")
def site(onnx_file, runtime, tmp_path_factory) -> Path:
    """The static folder, as `hymunet export --format web` writes it of that file."""
    from hymunet.deploy.web import write_static_page

    folder = tmp_path_factory.mktemp("site")
    write_static_page(onnx_file, folder, runtime)
    return folder


@contextmanager
def static_server(folder: Path) -> Iterator[tuple[str, ThreadingHTTPServer]]:
    """Any static server: the standard library's."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", server
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def serving(model_file: Path, token: str | None = None) -> Iterator[str]:
    """The address of `hymunet serve`'s page."""
    pytest.importorskip("uvicorn", reason="NOT TESTED: fastapi and uvicorn are missing")
    from tests.deploy.serve.conftest import started_here

    with started_here(model_file, token=token) as client:
        yield f"http://127.0.0.1:{client.port}/"


@pytest.fixture(scope="session")
def addresses(site, model_file) -> Iterator[dict[str, str]]:
    """The three ways to the page."""
    with static_server(site) as (static, _), serving(model_file) as served:
        yield {"served": served, "static": static, "double-click": (site / "index.html").as_uri()}


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    if reason := why_not():
        pytest.skip(f"THE PAGE IS NOT TESTED: {reason}")
    folder = tmp_path_factory.mktemp("chromium")
    browser = Browser(folder)
    yield browser
    browser.close()
    shutil.rmtree(folder / "profile", ignore_errors=True)
