"""The page as a folder that needs no server of ours: the model runs in the browser.

Everything that the page needs is a script beside it, so that a double-click on index.html works
where a browser lets such a page run scripts; a page without an origin may fetch nothing.
"""

import base64
import gzip
import json
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hymunet.deploy.onnxruntime_web import LOADER, SCRIPT, VERSION, WASM, runtime_files
from hymunet.deploy.own_folder import make_own_folder
from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.files import make_folder, write_bytes

PAGE = Path(str(files("hymunet").joinpath("deploy", "page")))
_ENGINE = ("<!-- engine:", "<!-- /engine -->")
_END = "</body>"
_OWN_ENGINE = "engine_server.js"  # of the page that `hymunet serve` serves
_SCRIPTS = ("runtime.js", "model.js", "engine_browser.js")
_FETCHES = ("connect-src 'self'", "connect-src 'none'")
_NEEDED = ("name", "classes", "activation", "in_channels")


def write_static_page(
    onnx_file: Path, output: Path, onnxruntime_web: Path | None = None
) -> dict[str, int]:
    """Writes the page with a model and the runtime inside.

    The folder holds index.html, what it loads in `page/`, and `licences/`. Any static server can
    serve it, below any address; the page itself is forbidden to fetch anything (its
    Content-Security-Policy says `connect-src 'none'`), so that no picture can leave the browser.

    Args:
        onnx_file: As `hymunet export --format onnx` writes it, for 8-bit pictures.
        output: Folder, created when missing; an earlier page in it is replaced.
        onnxruntime_web: Folder of the npm package; None: from the user's cache, or by npm.

    Returns:
        Path below `output` -> bytes.

    Raises:
        HyMUNetError: If the model is not one for 8-bit pictures of one or three channels, the
            runtime cannot be had, or the folder cannot be written or holds something else.
    """
    require("export", "a page with the model inside", "onnx", "onnxruntime")
    info, content = _read_model(Path(onnx_file))
    runtime = runtime_files(onnxruntime_web)
    output = Path(output)
    scripts = {
        "runtime.js": _script(
            "runtime",
            {
                "version": VERSION,
                "script": runtime[SCRIPT].decode(),
                "loader": runtime[LOADER].decode(),
                "wasm": _packed(runtime[WASM]),
            },
        ),
        "model.js": _script("model", {"info": info, "onnx": _packed(content)}),
    }
    written: dict[str, bytes] = {
        f"page/{path.name}": path.read_bytes()
        for path in sorted(PAGE.iterdir())
        if path.suffix in (".js", ".css") and path.name != _OWN_ENGINE
    }
    written |= {f"page/{name}": text.encode() for name, text in scripts.items()}
    written |= {f"licences/{name}": text for name, text in _licences(info).items()}
    # last, so that a page that is there is whole
    written["index.html"] = static_index().encode()
    make_own_folder(output, "web")
    for part in ("page", "licences"):
        make_folder(output / part)
    for name, text in written.items():
        write_bytes(output / name, text)
    return {name: len(text) for name, text in written.items()}


def static_index() -> str:
    """index.html with the scripts of the browser's engine in place of the server's."""
    page = (PAGE / "index.html").read_text("utf-8")
    before, _, rest = page.partition(_ENGINE[0])
    engine, _, after = rest.partition(_ENGINE[1])
    # the page and this module go together
    assert _OWN_ENGINE in engine
    assert _FETCHES[0] in before
    scripts = "\n".join(f'<script defer src="page/{name}"></script>' for name in _SCRIPTS)
    # what index.html lies beside is put into a folder of its own
    beside = re.sub(r'(src|href)="(\w+\.(?:js|css))"', r'\1="page/\2"', before + after)
    return beside.replace(*_FETCHES).replace(_END, f"{scripts}\n{_END}")


def _read_model(path: Path) -> tuple[dict[str, Any], bytes]:
    """The metadata and the bytes of an ONNX file, weights beside it included."""
    import onnx

    if not path.is_file():
        raise HyMUNetError(f"there is no ONNX file {path}; write one: hymunet export MODEL")
    try:
        model = onnx.load(path)
    except Exception as error:  # whatever the broken bytes led the parser into
        raise HyMUNetError(f"{path} cannot be read as ONNX: {error}; export it again") from error
    properties = {entry.key: entry.value for entry in model.metadata_props}
    if "hymunet" not in properties:
        raise HyMUNetError(
            f"{path} does not say which model it is (metadata `hymunet`); expected a file that "
            "`hymunet export --format onnx` wrote"
        )
    info = json.loads(properties["hymunet"])
    missing = [name for name in _NEEDED if info.get(name) is None]
    if missing:
        raise HyMUNetError(f"the metadata of {path} lack {', '.join(missing)}; export it again")
    image = {entry.name: entry.type.tensor_type for entry in model.graph.input}.get("image")
    pictures = (
        image is not None
        and image.elem_type == onnx.TensorProto.UINT8
        and len(image.shape.dim) == 4
        and {"probability", "mask"} <= {entry.name for entry in model.graph.output}
    )
    if not pictures or info["in_channels"] not in (1, 3):
        raise HyMUNetError(
            f"the page shows 8-bit pictures, grey or in colour, and {info['name']} reads something "
            f"else ({info['in_channels']} channels, or volumes); use `hymunet predict` or "
            "`hymunet serve` for it"
        )
    structures = len(info["classes"])
    written = [0, 255] if structures == 1 else list(range(structures + 1))
    info["label_values"] = info.get("mask_values") or info.get("label_values") or written
    info["nested"] = info["activation"] == "sigmoid"
    info["postprocess"] = info.get("postprocess") or {}
    return info, model.SerializeToString()


def _packed(content: bytes) -> str:
    """gzip in base64: a third of the WebAssembly's size; the same bytes at each call."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()


def _script(name: str, value: dict[str, Any]) -> str:
    return f"(globalThis.hymunet ??= {{}}).{name} = {json.dumps(value)};\n"


def _licences(info: dict[str, Any]) -> dict[str, bytes]:
    """The terms of what lies in the folder."""
    spec = find_spec("onnxruntime")
    assert spec is not None  # `require` has seen it
    assert spec.submodule_search_locations
    place = Path(spec.submodule_search_locations[0])
    texts = {
        f"onnxruntime-{name}": (place / name).read_bytes()
        for name in ("LICENSE", "ThirdPartyNotices.txt")
        if (place / name).is_file()
    }
    about = [
        "index.html and page/: HyM-UNet, Apache-2.0, https://www.apache.org/licenses/LICENSE-2.0",
        f"page/runtime.js: ONNX Runtime Web {VERSION}, MIT; its text and the notices of what it "
        "contains lie here",
        f"page/model.js: the model {info['name']}; "
        f"{info.get('licence') or 'licence not stated: that of its training data applies'}",
        "",
        "Research use only. Not a medical device.",
        "",
        "To open the page: a double-click on index.html (Chrome, Edge). Where a browser does not",
        "allow that, serve the folder: python -m http.server --directory FOLDER",
        "and open http://localhost:8000",
    ]
    return {**texts, "README.txt": ("\n".join(about) + "\n").encode()}
