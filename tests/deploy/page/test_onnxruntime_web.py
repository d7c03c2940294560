"""The browser's runtime: from the cache, a folder, npm; never another one than the pinned."""

import sys

import pytest

from hymunet.deploy import onnxruntime_web
from hymunet.deploy.onnxruntime_web import FILES, LOADER, VERSION, WASM, runtime_files
from hymunet.errors import HyMUNetError


def test_a_changed_file_is_refused(runtime, tmp_path):
    for name in FILES:
        (tmp_path / name).write_bytes((runtime / name).read_bytes())
    assert set(runtime_files(tmp_path)) == set(FILES)
    with open(tmp_path / LOADER, "ab") as file:
        file.write(b" ")
    with pytest.raises(HyMUNetError, match=f"{LOADER} is not that of onnxruntime-web {VERSION}"):
        runtime_files(tmp_path)


def test_a_folder_without_it_is_refused(tmp_path):
    with pytest.raises(HyMUNetError, match=f"lacks .*{WASM}.*npm pack onnxruntime-web@{VERSION}"):
        runtime_files(tmp_path)


def test_another_package_is_refused(tmp_path):
    (tmp_path / f"onnxruntime-web-{VERSION}.tgz").write_bytes(b"another")
    with pytest.raises(HyMUNetError, match="as npm publishes it: expected sha512-"):
        runtime_files(tmp_path)


def test_without_npm_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(HyMUNetError, match=r"no npm here.*--onnxruntime-web FOLDER"):
        runtime_files()


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for npm is a shell script")
def test_without_a_network_it_is_said_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path / "cache"))
    npm = tmp_path / "npm"  # what npm does then: it says so and fails
    npm.write_text("#!/bin/sh\necho 'npm error network request failed' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setattr(onnxruntime_web.shutil, "which", lambda name: str(npm))
    with pytest.raises(HyMUNetError, match=r"network request failed.*--onnxruntime-web FOLDER"):
        runtime_files()
    assert not (tmp_path / "cache").exists()


def test_a_cut_file_in_the_cache_is_fetched_anew(runtime, tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path))
    whole = {name: (runtime / name).read_bytes() for name in FILES}
    monkeypatch.setattr(onnxruntime_web, "_fetch", lambda: whole)
    place = tmp_path / f"onnxruntime-web-{VERSION}"
    place.mkdir()
    (place / LOADER).write_bytes(b"cut")
    assert runtime_files() == whole
    assert (place / LOADER).read_bytes() == whole[LOADER]
