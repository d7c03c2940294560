"""A local HTTP server for the tests of downloading."""

import pytest

from tests.data.file_server import FileServer


@pytest.fixture
def server(monkeypatch):
    # a proxy of the machine that the tests run on knows nothing of this address
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    running = FileServer()
    yield running
    running.close()
