"""Fetching over real connections that are cut, refused, redirected; resuming never mixes files."""

import json
import random
import shutil
import ssl
import subprocess
import sys
from collections import deque

import pytest

from hymunet.data.partial import Partial, Remote
from hymunet.errors import HyMUNetError
from tests.data.file_server import FileServer, Served

pytest.importorskip("requests")
from hymunet.data.transfer import CHUNK, Transfer

SIZE = 5 * CHUNK + 123


@pytest.fixture
def content():
    return random.Random(1).randbytes(SIZE)


@pytest.fixture
def part(tmp_path):
    return Partial(tmp_path / "a.zip.part")


@pytest.fixture
def heard():
    return []


@pytest.fixture
def transfer(heard):
    return Transfer(heard.append, backoff_s=0.0, retries=3)


def starts(server):
    """Where each GET began."""
    return [int(r.removeprefix("bytes=").removesuffix("-")) if r else 0 for r in server.gets()]


def test_a_file_comes_as_it_is_with_its_version_noted(server, transfer, part, content):
    server.files["/a.zip"] = Served(content)
    seen = []
    remote = transfer.fetch(f"{server.url}/a.zip", part, lambda *at: seen.append(at))
    assert part.path.read_bytes() == content
    assert remote == Remote(f"{server.url}/a.zip", SIZE, '"one"', "Wed, 01 Jan 2020 00:00:00 GMT")
    assert part.known(remote.url) == remote
    assert seen[-1] == (SIZE, SIZE)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    # whole already: no question is asked
    asked = len(server.asked)
    assert transfer.fetch(remote.url, part) == remote
    assert len(server.asked) == asked


@pytest.mark.parametrize("length", [True, False], ids=["length said", "length unknown"])
def test_an_empty_file_is_a_file(server, transfer, part, length):
    server.files["/a.zip"] = Served(b"", length=length)
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == b""


def test_the_size_is_told_before(server, transfer, content):
    server.files["/a.zip"] = Served(content)
    server.files["/b.zip"] = Served(content, head=False)
    assert transfer.size(f"{server.url}/a.zip") == SIZE
    assert transfer.size(f"{server.url}/b.zip") is None
    with pytest.raises(HyMUNetError, match="answered 404 Not Found; expected the file"):
        transfer.size(f"{server.url}/c.zip")
    assert server.gets() == []


# --- cut connections --------------------------------------------------------------------------


def test_cuts_are_mended_and_nothing_comes_twice(server, transfer, part, content, heard):
    # more cuts than the attempts that are allowed in a row: each got further
    cuts = [2 * CHUNK, CHUNK + 1, CHUNK, 7 * 2, CHUNK // 2]
    server.files["/a.zip"] = Served(content, cuts=deque(cuts))
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content
    begun = starts(server)
    assert begun[0] == 0
    for cut, before, after in zip(cuts, begun, begun[1:], strict=False):
        # a reset takes along what had not been read yet
        assert before <= after <= before + cut if cut % 2 else after == before + cut
    assert len(begun) == len(cuts) + 1
    assert sum("the connection was cut" in line for line in heard) == len(cuts)


def test_it_gives_up_in_the_end_and_a_later_call_goes_on(server, transfer, part, content):
    file = server.files["/a.zip"] = Served(content, cuts=deque([2 * CHUNK] + [0] * 3))
    with pytest.raises(HyMUNetError, match=r"gave up after 4 failures in a row.*same command goes"):
        transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content[: 2 * CHUNK]
    assert not file.cuts
    del server.asked[:]
    Transfer(print).fetch(f"{server.url}/a.zip", part)
    assert starts(server) == [2 * CHUNK]
    assert part.path.read_bytes() == content


def test_a_server_without_parts_that_cuts_does_not_keep_us_for_ever(
    server, transfer, part, content
):
    # each attempt brings bytes, none brings more than the first
    server.files["/a.zip"] = Served(content, parts=False, cuts=deque([2 * CHUNK] * 50))
    with pytest.raises(HyMUNetError, match="gave up after 4 failures"):
        transfer.fetch(f"{server.url}/a.zip", part)
    assert len(server.asked) == 4


def test_a_server_without_parts_starts_anew(server, transfer, part, content, heard):
    server.files["/a.zip"] = Served(content, parts=False, cuts=deque([CHUNK]))
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content
    assert server.gets() == [None, f"bytes={CHUNK}-"]
    assert any("sends no parts" in line for line in heard)


# --- versions ---------------------------------------------------------------------------------


@pytest.mark.parametrize("compares", [True, False], ids=["If-Range", "without If-Range"])
@pytest.mark.parametrize("same_size", [True, False])
def test_a_file_that_changed_starts_anew(
    server, transfer, part, content, heard, compares, same_size
):
    file = server.files["/a.zip"] = Served(
        content, compares=compares, cuts=deque([CHUNK] + [0] * 9)
    )
    with pytest.raises(HyMUNetError):
        transfer.fetch(f"{server.url}/a.zip", part)
    assert part.size == CHUNK
    file.content = random.Random(2).randbytes(SIZE if same_size else SIZE + 1)
    file.etag, file.cuts = '"two"', deque()
    remote = transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == file.content
    assert remote.etag == '"two"'
    assert any("has changed" in line for line in heard)


def test_a_file_that_shrank_starts_anew(server, transfer, part, content):
    file = server.files["/a.zip"] = Served(content, compares=False, cuts=deque([CHUNK] + [0] * 9))
    with pytest.raises(HyMUNetError):
        transfer.fetch(f"{server.url}/a.zip", part)
    file.content, file.cuts = content[:100], deque()  # the part is longer: 416
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content[:100]


@pytest.mark.parametrize(
    ("etag", "modified", "resumes"),
    [
        ('"one"', None, True),
        (None, "Wed, 01 Jan 2020 00:00:00 GMT", True),
        ('W/"one"', "Wed, 01 Jan 2020 00:00:00 GMT", True),  # by the time
        ('W/"one"', None, False),  # the same meaning is not the same bytes
        (None, None, False),
    ],
)
def test_it_resumes_only_what_can_be_known_again(
    server, transfer, part, content, etag, modified, resumes
):
    server.files["/a.zip"] = Served(content, etag=etag, modified=modified, cuts=deque([CHUNK]))
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content
    assert starts(server) == [0, CHUNK if resumes else 0]


def test_bytes_of_unknown_origin_are_not_continued(server, transfer, part, content):
    server.files["/a.zip"] = Served(content)
    part.path.write_bytes(b"x" * 100)  # no note
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content
    for spoiled in ("{", "[]", json.dumps({"url": 1})):
        part.path.write_bytes(b"x" * 100)
        part.note.write_text(spoiled)
        transfer.fetch(f"{server.url}/a.zip", part)
        assert part.path.read_bytes() == content
    # more than the file has
    part.path.write_bytes(content + b"x")
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content
    # of another address
    server.files["/b.zip"] = Served(content[::-1])
    transfer.fetch(f"{server.url}/b.zip", part)
    assert part.path.read_bytes() == content[::-1]
    assert set(server.gets()) == {None}


# --- answers that are no file -----------------------------------------------------------------


def test_errors_that_pass_are_waited_for(server, transfer, part, content, heard):
    answers = deque([(500, {}), (503, {"Retry-After": "1"}), (429, {"Retry-After": "soon"})])
    server.files["/a.zip"] = Served(content, answers=answers)
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content
    assert "answered 500 Internal Server Error; trying again in 0 s" in heard[0]
    assert "answered 503 Service Unavailable; trying again in 1 s" in heard[1]
    assert "answered 429 Too Many Requests; trying again in 0 s" in heard[2]


def test_waits_double_while_nothing_comes(server, part, content, heard):
    server.files["/a.zip"] = Served(content, answers=deque([(500, {})] * 4))
    Transfer(heard.append, backoff_s=0.02, retries=4).fetch(f"{server.url}/a.zip", part)
    assert [line.rsplit("in ", 1)[1] for line in heard] == ["0.02 s", "0.04 s", "0.08 s", "0.16 s"]


@pytest.mark.parametrize("status", [400, 403, 404, 410])
def test_a_refusal_is_not_repeated(server, transfer, part, content, status):
    server.files["/a.zip"] = Served(content, answers=deque([(status, {})]))
    with pytest.raises(HyMUNetError, match=f"answered {status} .*expected the file"):
        transfer.fetch(f"{server.url}/a.zip", part)
    assert len(server.asked) == 1


def test_a_refusal_keeps_what_has_come(server, transfer, part, content):
    file = server.files["/a.zip"] = Served(content, cuts=deque([CHUNK] + [0] * 9))
    with pytest.raises(HyMUNetError):
        transfer.fetch(f"{server.url}/a.zip", part)
    file.answers.append((403, {}))
    with pytest.raises(HyMUNetError, match="403 Forbidden"):
        transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content[:CHUNK]


def test_a_redirect_is_followed_with_its_range(server, transfer, part, content):
    server.files["/a.zip"] = Served(b"", location="/there.zip")
    server.files["/there.zip"] = Served(content, cuts=deque([CHUNK]))
    transfer.fetch(f"{server.url}/a.zip", part)
    assert part.path.read_bytes() == content
    assert server.asked[-1] == ("GET", "/there.zip", f"bytes={CHUNK}-")


def test_nobody_there(transfer, part):
    server = FileServer()
    server.close()
    with pytest.raises(HyMUNetError, match=r"no connection to .*refused.*HTTPS_PROXY"):
        transfer.fetch(f"{server.url}/a.zip", part)


@pytest.mark.parametrize("url", ["a.zip", "ftp://127.0.0.1/a.zip", "http:///a.zip"])
def test_an_address_that_is_none(transfer, part, url):
    with pytest.raises(HyMUNetError, match=r"cannot ask for .*check the address"):
        transfer.fetch(url, part)


def test_a_proxy_is_taken_from_the_environment(server, part, content, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, server.url)
    server.files["http://data.invalid/a.zip"] = Served(content)
    Transfer(print).fetch("http://data.invalid/a.zip", part)
    assert part.path.read_bytes() == content


# --- a full disk ------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="limits a process as POSIX does")
def test_a_full_disk_keeps_what_fitted_and_a_later_call_goes_on(server, part, content):
    server.files["/a.zip"] = Served(content)
    limit = 2 * CHUNK + 1000  # in the middle of a chunk
    code = (
        "import resource, sys; from pathlib import Path\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "from hymunet.data.partial import Partial\n"
        "from hymunet.data.transfer import Transfer\n"
        "Transfer(print).fetch(sys.argv[1], Partial(Path(sys.argv[2])))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, f"{server.url}/a.zip", str(part.path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "HyMUNetError: cannot write" in done.stderr
    assert "File too large; 525.3 kB of 1.3 MB are kept: make room" in done.stderr
    assert part.path.read_bytes() == content[:limit]
    Transfer(print).fetch(f"{server.url}/a.zip", part)
    assert starts(server) == [0, limit]
    assert part.path.read_bytes() == content


# --- encryption -------------------------------------------------------------------------------


@pytest.fixture
def secure(tmp_path, monkeypatch):
    """An https server with a certificate that nobody signed, and that certificate."""
    if shutil.which("openssl") is None:
        pytest.skip("NOT TESTED: certificates need the program openssl to make one")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1 "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {certificate}"
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    running = FileServer(context)
    yield running, certificate
    running.close()


def test_certificates_are_verified_and_can_be_named(secure, transfer, part, content, monkeypatch):
    running, certificate = secure
    running.files["/a.zip"] = Served(content)
    with pytest.raises(HyMUNetError, match=r"certificate of https.* could not be verified"):
        transfer.fetch(f"{running.url}/a.zip", part)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    transfer.fetch(f"{running.url}/a.zip", part)
    assert part.path.read_bytes() == content


def test_https_does_not_lead_to_http(secure, server, transfer, part, content, monkeypatch):
    running, certificate = secure
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    server.files["/a.zip"] = Served(content)
    running.files["/a.zip"] = Served(b"", location=f"{server.url}/a.zip")
    with pytest.raises(HyMUNetError, match="not encrypted: refused"):
        transfer.fetch(f"{running.url}/a.zip", part)
    assert not part.path.exists()
