"""ONNX Runtime Web, which runs models in browsers: the pinned version, from npm, checked.

It is not part of this package: 14 MB of WebAssembly that only `hymunet export --format web` needs.
"""

import base64
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_bytes

VERSION = "1.30.0"
LICENCE = "MIT"
# what the npm registry states of the package
INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZ"
    "ClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
SCRIPT = "ort.wasm.min.js"
LOADER = "ort-wasm-simd-threaded.mjs"
WASM = "ort-wasm-simd-threaded.wasm"
# SHA-256 of the files of its folder `dist` that a page needs
FILES = {
    SCRIPT: "faece07e84faa9001f5104bbe4e5c70861d06cb2376a0dea1fa0ad33a67adc81",
    LOADER: "e13f7f94fc51b4ca72b12faeb1ee95f4ace6dfbc8939bc718aabdc0a27c4299b",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_SECONDS = 600  # for npm to fetch 30 MB


def runtime_files(folder: Path | None = None) -> dict[str, bytes]:
    """The files of `FILES`, each checked.

    Args:
        folder: Where the package lies unpacked (as in `node_modules/onnxruntime-web`), or as the
            `.tgz` that `npm pack` writes. None: the user's cache; if it is not there yet, npm
            fetches it once.

    Raises:
        HyMUNetError: If it is not there and cannot be fetched, or is not the pinned version.
    """
    if folder is not None:
        return _from_folder(Path(folder))
    from hymunet.data.cache import default_cache_folder

    cache = default_cache_folder() / f"onnxruntime-web-{VERSION}"
    try:
        return {name: _checked(name, (cache / name).read_bytes(), cache) for name in FILES}
    except (OSError, HyMUNetError):
        pass  # not there, or cut short: it comes anew
    files = _fetch()
    make_folder(cache)
    for name, content in files.items():
        write_bytes(cache / name, content)
    return files


def _from_folder(folder: Path) -> dict[str, bytes]:
    packed = folder / f"onnxruntime-web-{VERSION}.tgz"
    if packed.is_file():
        return _unpack(packed)
    place = folder if (folder / SCRIPT).is_file() else folder / "dist"
    missing = [name for name in FILES if not (place / name).is_file()]
    if missing:
        raise HyMUNetError(
            f"{folder} lacks {', '.join(missing)}; expected the npm package onnxruntime-web "
            f"{VERSION}, unpacked or as {packed.name}: npm pack onnxruntime-web@{VERSION}"
        )
    return {name: _checked(name, (place / name).read_bytes(), place) for name in FILES}


def _checked(name: str, content: bytes, where: Path) -> bytes:
    came = hashlib.sha256(content).hexdigest()
    if came != FILES[name]:
        raise HyMUNetError(
            f"{where / name} is not that of onnxruntime-web {VERSION}: expected SHA-256 "
            f"{FILES[name]}, it has {came}; take that version, unchanged: "
            f"npm pack onnxruntime-web@{VERSION}"
        )
    return content


def _fetch() -> dict[str, bytes]:
    instead = (
        f"on a machine with a network: npm pack onnxruntime-web@{VERSION}, and name the folder of "
        "the file that it writes: --onnxruntime-web FOLDER"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise HyMUNetError(
            f"a page that runs models in the browser needs onnxruntime-web {VERSION}, which npm "
            f"would fetch, but there is no npm here; install Node.js, or, {instead}"
        )
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--silent", "--ignore-scripts"]
        try:
            done = subprocess.run(
                command, cwd=temporary, capture_output=True, text=True, timeout=_SECONDS
            )
            failed = (done.stderr or done.stdout).strip() if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            failed = str(error)
        packed = Path(temporary) / f"onnxruntime-web-{VERSION}.tgz"
        if failed or not packed.is_file():
            reason = " ".join(failed.split())[:200]
            raise HyMUNetError(
                f"npm could not fetch onnxruntime-web {VERSION} ({reason}); try again with a "
                f"network, or, {instead}"
            )
        return _unpack(packed)


def _unpack(packed: Path) -> dict[str, bytes]:
    content = packed.read_bytes()
    came = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if came != INTEGRITY:
        raise HyMUNetError(
            f"{packed} is not onnxruntime-web {VERSION} as npm publishes it: expected {INTEGRITY}, "
            f"it has {came}; fetch it again: npm pack onnxruntime-web@{VERSION}"
        )
    files = {}
    with tarfile.open(packed) as archive:
        for name in FILES:
            member = archive.extractfile(f"package/dist/{name}")
            assert member is not None  # the archive is the pinned one
            files[name] = member.read()
    return files
