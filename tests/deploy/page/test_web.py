"""The static folder: what is in it, and what is refused."""

import json
import re

import pytest

from hymunet.deploy.web import PAGE, static_index, write_static_page
from hymunet.errors import HyMUNetError

pytestmark = pytest.mark.onnx


def small_model(onnx, path, channels=3, element="UINT8", dims=4, **info):
    """An ONNX file that hands its input on, with metadata as the exporter writes them."""
    kind, sides = getattr(onnx.TensorProto, element), [None] * dims
    values = [
        onnx.helper.make_tensor_value_info(name, kind, sides)
        for name in ("image", "probability", "mask")
    ]
    nodes = [onnx.helper.make_node("Identity", ["image"], [out.name]) for out in values[1:]]
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", values[:1], values[1:]))
    about = {
        "name": "toy",
        "classes": ["lesion"],
        "activation": "sigmoid",
        "threshold": 0.5,
        "label_values": [0, 255],
        "in_channels": channels,
    }
    onnx.helper.set_model_props(model, {"hymunet": json.dumps(about | info)})
    onnx.save(model, path)
    return path


@pytest.fixture
def onnx():
    return pytest.importorskip("onnx", reason="NOT TESTED: the extra `export` is missing")


def test_the_folder_is_whole_and_nothing_in_it_points_elsewhere(site):
    page = (site / "index.html").read_text()
    addressed = re.findall(r'(?:src|href)="([^"#]+)"', page)
    inside = [name for name in addressed if not name.startswith("data:")]
    assert inside
    assert all((site / name).is_file() for name in inside)
    assert not (site / "page" / "engine_server.js").exists()
    assert "connect-src 'none'" in page
    assert "MIT" in (site / "licences" / "onnxruntime-LICENSE").read_text()
    assert "Research use only" in (site / "licences" / "README.txt").read_text()


def test_both_pages_are_one_but_for_the_engine():
    served = (PAGE / "index.html").read_text("utf-8").splitlines()
    static = static_index().replace('"page/', '"').splitlines()
    only_served = [line for line in served if line not in static]
    only_static = [line for line in static if line not in served]
    assert "connect-src 'self'" in only_served[0]
    assert "connect-src 'none'" in only_static[0]
    assert all("engine" in line for line in only_served[1:])
    scripts = ("runtime.js", "model.js", "engine_browser.js")
    assert only_static[1:] == [f'<script defer src="{name}"></script>' for name in scripts]


def test_the_same_model_gives_the_same_bytes(onnx_file, site, runtime, tmp_path):
    written = write_static_page(onnx_file, tmp_path, runtime)
    assert written["page/model.js"] == (site / "page" / "model.js").stat().st_size
    for name in written:
        assert (tmp_path / name).read_bytes() == (site / name).read_bytes()
    # over itself once more, but over nobody else's page
    assert write_static_page(onnx_file, tmp_path, runtime) == written
    (tmp_path / "page" / "model.js").unlink()
    (tmp_path / "index.html").write_text("home", encoding="utf-8")
    with pytest.raises(HyMUNetError, match="is not empty and holds no web export"):
        write_static_page(onnx_file, tmp_path, runtime)
    assert (tmp_path / "index.html").read_text(encoding="utf-8") == "home"


@pytest.mark.parametrize(
    "unlike", [{"channels": 4}, {"element": "FLOAT"}, {"dims": 5}], ids=lambda unlike: str(unlike)
)
def test_models_that_do_not_read_pictures_are_refused(onnx, tmp_path, unlike):
    path = small_model(onnx, tmp_path / "toy.onnx", **unlike)
    with pytest.raises(HyMUNetError, match=r"8-bit pictures.*use `hymunet predict`"):
        write_static_page(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_that_say_too_little_are_refused(onnx, tmp_path):
    with pytest.raises(HyMUNetError, match="there is no ONNX file"):
        write_static_page(tmp_path / "none.onnx", tmp_path / "out")
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(HyMUNetError, match="cannot be read as ONNX"):
        write_static_page(tmp_path / "bad.onnx", tmp_path / "out")
    path = small_model(onnx, tmp_path / "toy.onnx", classes=None)
    with pytest.raises(HyMUNetError, match="lack classes"):
        write_static_page(path, tmp_path / "out")
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    with pytest.raises(HyMUNetError, match="does not say which model it is"):
        write_static_page(path, tmp_path / "out")
