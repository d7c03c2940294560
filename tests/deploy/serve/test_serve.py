"""The server answers as `predict` does, refuses in words, and says what it is."""

import base64
import contextlib
import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from hymunet import Predictor
from hymunet.data.image_io import read_image
from hymunet.data.phantoms import draw_lesion
from hymunet.deploy.limits import Limits
from hymunet.deploy.serve import listen
from tests.deploy.serve.conftest import SOURCE, needs_serve, save_toy, started_here, wait_until
from tests.deploy.serve.hostile import dicom, form, nifti, pictures
from tests.deploy.serve.test_answers import expanded
from tests.inference.test_contours import filled

pytestmark = [pytest.mark.serve, needs_serve]


def picture(seed=0, size=(48, 64)):
    """PNG bytes of a drawn lesion."""
    buffer = io.BytesIO()
    Image.fromarray(np.moveaxis(draw_lesion(seed, size).image, 0, -1)).save(buffer, "PNG")
    return buffer.getvalue()


def decoded(text):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


@pytest.fixture(scope="module")
def predictor(model_file):
    return Predictor(model_file)


@pytest.mark.parametrize("kind", sorted(pictures()))
def test_the_answer_is_what_predict_says(server, predictor, kind, tmp_path):
    content = pictures()[kind]
    suffix = {"application/gzip": "nii.gz", "application/dicom": "dcm"}.get(kind, "png")
    path = tmp_path / f"image.{suffix}"
    path.write_bytes(content)
    expected = predictor(path)
    answer = server.segment(content, kind, "?include=mask,probability,contours,rle")
    assert answer.status == 200, answer.content
    found = answer.json()
    mask = decoded(found["mask_png"])
    np.testing.assert_array_equal(mask, expected.mask * np.uint8(255))
    assert 0.1 < expected.mask.mean() < 0.9
    (grey,) = map(decoded, found["probability_png"])
    np.testing.assert_array_equal(grey, np.rint(expected.probability[0] * 255))
    assert found["measurements"] == json.loads(json.dumps(expected.measurements))
    (outline,), (runs,) = found["contours"], found["rle"]
    assert outline["class"] == runs["class"] == "lesion"
    np.testing.assert_array_equal(filled(outline["rings"], mask.shape), mask > 0)
    np.testing.assert_array_equal(expanded(runs["size"], runs["counts"]), mask > 0)
    height, width = mask.shape
    assert (found["image"]["height"], found["image"]["width"]) == (height, width)
    assert found["image"]["depth"] is None
    assert found["research_use_only"] is True
    assert set(found["timing_ms"]) == {"decode", "queue", "predict", "encode", "total"}
    assert found["request_id"] == answer.headers["x-request-id"]


def test_only_what_is_asked_for_is_sent(server):
    found = server.segment(picture()).json()
    assert "mask_png" in found
    assert not {"probability_png", "contours", "rle"} & found.keys()
    assert "mask_png" not in server.segment(picture(), query="?include=rle").json()
    bare = server.segment(picture(), query="?include=").json()
    assert bare["measurements"] == found["measurements"]
    assert "mask_png" not in bare


def test_a_form_is_as_good_as_a_body(server):
    alone = server.segment(picture()).json()
    body, kind = form(picture(), filename="../../../etc/SECRET.png")
    assert server.segment(body, kind).json()["mask_png"] == alone["mask_png"]


def test_a_threshold_of_ones_own(server, predictor):
    image = predictor(np.moveaxis(np.asarray(Image.open(io.BytesIO(picture()))), -1, 0))
    higher = round(float(np.quantile(image.probability, 0.8)), 4)
    found = server.segment(picture(), query=f"?threshold={higher}").json()
    np.testing.assert_array_equal(decoded(found["mask_png"]) > 0, image.probability[0] >= higher)
    assert found["model"]["threshold"] == higher
    assert found["measurements"][0]["area_px"] == (image.probability >= higher).sum()


def test_spacing_of_a_dicom_file_comes_back_in_mm(server):
    from tests.deploy.serve.hostile import element

    grey = np.asarray(Image.open(io.BytesIO(picture())).convert("L"))
    content = dicom(grey, more=element((0x28, 0x30), b"DS", b"0.5\\0.25"))
    found = server.segment(content, "application/dicom").json()
    assert found["image"]["spacing_mm"] == [0.5, 0.25]
    row = found["measurements"][0]
    assert row["area_mm2"] == pytest.approx(row["area_px"] * 0.125)


def test_what_is_served(server, model_file):
    from hymunet.network.model_file import model_identity

    content = server.ask("GET", "/v1/models").json()
    (model,) = content["models"]
    assert model["id"] == model_identity(model_file)["weights_sha256"]
    assert model["classes"] == ["lesion"]
    assert model["label_values"] == [0, 255]
    assert model["licence"] == "CC0-1.0"
    assert content["limits"]["megabytes"] == 12


def test_health_metrics_and_the_page(server):
    assert server.ask("GET", "/health").json()["status"] == "ok"
    server.segment(picture())
    text = server.ask("GET", "/metrics").content.decode()
    assert 'hymunet_requests_total{route="/v1/segment",status="200"}' in text
    assert "hymunet_queue_waiting 0.0" in text
    page = server.ask("GET", "/page/")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert server.ask("GET", "/").headers["location"] == "page/"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    for answer in (page, server.segment(picture())):
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert server.segment(picture()).headers["cache-control"] == "no-store"


@pytest.mark.parametrize("name", ["../serve.py", "%2e%2e/serve.py", "..%2fserve.py", "/etc/passwd"])
def test_the_page_is_all_that_is_served_of_the_disk(server, name):
    assert server.ask("GET", f"/page/{name}").status == 404


def test_no_page_of_documentation_loads_scripts_from_elsewhere(server):
    assert server.ask("GET", "/docs").status == server.ask("GET", "/redoc").status == 404


def test_head_is_get_without_a_body(server):
    answer = server.ask("HEAD", "/health")
    assert (answer.status, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) > 0


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/segment", 405, "method-not-allowed"),
        ("POST", "/health", 405, "method-not-allowed"),
        ("OPTIONS", "/v1/models", 405, "method-not-allowed"),
        ("GET", "/nowhere", 404, "not-found"),
        ("POST", "/v1/segment?threshold=1", 422, "bad-parameter"),
        ("POST", "/v1/segment?threshold=nan", 422, "bad-parameter"),
        ("POST", "/v1/segment?include=masks", 422, "bad-parameter"),
        ("POST", "/v1/segment", 422, "unreadable-image"),
    ],
)
def test_every_refusal_has_one_shape(server, method, path, status, code):
    answer = server.ask(method, path)
    assert answer.status == status
    found = answer.json()
    assert found["error"]["code"] == code
    assert len(found["error"]["message"]) > 20
    assert found["request_id"] == answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"]


def test_curls_own_type_is_told_what_to_say(server):
    answer = server.segment(picture(), "application/x-www-form-urlencoded")
    assert answer.status == 415
    assert "-F image=@FILE" in answer.json()["error"]["message"]


def test_a_body_is_refused_by_its_announced_length(server):
    with raw(server) as connection:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Length: 99999999999999999999\r\n\r\n")  # fmt: skip
        assert received(connection)[0] == 413


def test_a_body_without_length_is_counted(server):
    def chunks():
        for _ in range(14):
            yield b"\x89PNG" + b"x" * 999_996

    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        answer = server.ask("POST", "/v1/segment", chunks(), {"Content-Type": "image/png"})
        assert answer.status == 413
        assert answer.json()["error"]["code"] == "body-too-large"
        return
    pytest.fail("the answer was lost")


def test_fewer_bytes_than_announced_are_not_waited_for_forever(model_file):
    with started_here(model_file, Limits(timeout_s=1)) as running, raw(running) as connection:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Length: 1000\r\n\r\nabc")  # fmt: skip
        status, content = received(connection)
    assert status == 408
    assert "only 3 bytes of the body came" in content["error"]["message"]


def test_what_is_no_http_is_told_so_in_json(server):
    with raw(server) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        status, content = received(connection)
    assert status == 400
    assert content["error"]["code"] == "bad-request"


def raw(running):
    """A connection on which anything can be sent."""
    return socket.create_connection(("127.0.0.1", running.port), timeout=30)


def received(connection):
    """Status and JSON of the answer on it."""
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    return answer.status, json.loads(answer.read())


def test_another_host_name_is_refused(server):
    answer = server.ask("GET", "/v1/models", headers={"Host": "evil.example:8000"})
    assert answer.status == 421
    assert answer.json()["error"]["code"] == "wrong-host"


def test_the_log_holds_nothing_of_a_patient(server):
    before = len(server.lines)
    body, kind = form(b"\x89PNG" + b"SECRET", filename="SECRET^PATIENT.png")
    answers = [
        server.segment(dicom(np.zeros((16, 16), np.uint8)), "application/dicom"),
        server.segment(body, kind),
        server.ask("GET", "/page/SECRET^PATIENT.png"),
        server.ask("GET", "/SECRET?name=SECRET"),
    ]
    numbers = [answer.headers["x-request-id"] for answer in answers]
    wait_until(lambda: all(number in "\n".join(server.lines) for number in numbers))
    said = "\n".join(server.lines[before:])
    assert "/v1/segment 200" in said
    assert "other 404" in said
    assert "SECRET" not in said
    assert "127.0.0.1" not in said


def test_a_full_queue_says_when_to_come_again(model_file):
    content = picture(size=(700, 700))
    answers = []
    with started_here(model_file, Limits(queue=1, batch=1)) as running:
        clients = [
            threading.Thread(target=lambda: answers.append(running.segment(content)))
            for _ in range(12)
        ]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        assert running.ask("GET", "/health").json()["waiting"] == 0
    assert {answer.status for answer in answers} == {200, 429}
    for answer in answers:
        if answer.status == 429:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["error"]["code"] == "busy"


def test_a_token_is_asked_for(model_file):
    right = {"Authorization": "Bearer correct-horse-battery"}
    wrong = [{}, *({"Authorization": f"{scheme} correct-horse-{word}"}
                   for scheme, word in (("Bearer", "batterx"), ("Basic", "battery")))]  # fmt: skip
    with started_here(model_file, token="correct-horse-battery") as running:
        for shown in wrong:
            for where in ("/v1/segment", "/v1/models", "/metrics"):
                answer = running.ask("POST" if "seg" in where else "GET", where, headers=shown)
                assert answer.status == 401, where
                assert answer.headers["www-authenticate"].startswith("Bearer")
        assert running.ask("GET", "/v1/models", headers=right).status == 200
        assert running.segment(picture(), **right).status == 200
        assert running.ask("GET", "/health").status == 200


def refused(*arguments):
    """What `hymunet serve` prints before it gives up."""
    run = "import sys; from hymunet.cli import main; sys.exit(main(sys.argv[1:]))"
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-c", run, "serve", *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    return done.stderr


def test_what_cannot_be_served_is_said_at_once(server, model_file, tmp_path):
    short = tmp_path / "token"
    short.write_text("secret", encoding="utf-8")
    said = refused(model_file, "--token-file", short)
    assert "has 6 characters; expected at least 16" in said
    assert "secret" not in said.replace("import secrets; print(secrets", "")
    said = refused(model_file, "--port", server.port)
    assert f"cannot listen at 127.0.0.1, port {server.port}" in said
    assert "--queue must lie between" in refused(model_file, "--queue", "0")


def test_a_volume_comes_back_on_its_grid(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    path = save_toy(tmp_path / "volumes.safetensors", 3, 3, classes=["front", "back"])
    values = np.random.default_rng(0).integers(0, 200, (20, 24, 18)).astype(np.int16)
    content = nifti(values.shape, np.int16, values, pixdim=2.0)
    (tmp_path / "scan.nii").write_bytes(content)
    expected = Predictor(path)(tmp_path / "scan.nii")
    with started_here(path) as running:
        answer = running.segment(content, "application/octet-stream")
        assert running.segment(content, query="?include=rle").status == 422
        assert running.segment(content, query="?threshold=0.3").status == 422
        assert "3-D" in running.segment(picture()).json()["error"]["message"]
    assert answer.status == 200, answer.content
    found = answer.json()
    (tmp_path / "mask.nii.gz").write_bytes(base64.b64decode(found["mask_nifti"]))
    mask = nibabel.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(mask.dataobj).T, expected.mask)
    np.testing.assert_array_equal(mask.affine, read_image(tmp_path / "scan.nii", 1).affine)
    assert found["image"]["depth"] == 18
    assert found["image"]["spacing_mm"] == [2.0, 2.0, 2.0]


def test_two_hundred_requests_of_eight_clients_lose_none(server, predictor):
    contents = [picture(seed, (40 + seed, 60)) for seed in range(5)]
    alone = [predictor(np.moveaxis(np.asarray(Image.open(io.BytesIO(c))), -1, 0)) for c in contents]
    answers: list[tuple[int, dict]] = []

    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        for turn in range(25):
            which = (number + turn) % 5
            connection.request("POST", "/v1/segment?include=probability", contents[which],
                               {"Content-Type": "image/png"})  # fmt: skip
            answer = connection.getresponse()
            assert answer.status == 200
            answers.append((which, json.loads(answer.read())))
        connection.close()

    clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    assert len(answers) == 200
    assert len({found["request_id"] for _, found in answers}) == 200
    for which, found in answers:  # each its own, taken together with others or not
        grey = decoded(found["probability_png"][0]).astype(int)
        assert np.abs(grey - np.rint(alone[which].probability[0] * 255)).max() <= 1
    text = server.ask("GET", "/metrics").content.decode()
    together = {
        line.split()[0]: float(line.split()[1])
        for line in text.splitlines()
        if line.startswith("hymunet_batch_pictures_bucket")
    }
    assert (
        together['hymunet_batch_pictures_bucket{le="1.0"}']
        < together['hymunet_batch_pictures_bucket{le="8.0"}']
    )


def test_sigterm_under_load_loses_nothing_that_was_accepted(scratch_server, model_file):
    running = scratch_server(model_file, "--batch", "1")
    # six of them wait for longer than newcomers are told 503 at least
    content = picture(size=(2400, 2400))
    outcomes: list[str] = []
    stop = threading.Event()

    def client():
        while not stop.is_set():
            try:
                outcomes.append(str(running.segment(content).status))
            except ConnectionRefusedError:
                outcomes.append("refused")
                return
            except (ConnectionResetError, http.client.RemoteDisconnected):
                outcomes.append("lost")
                return

    clients = [threading.Thread(target=client) for _ in range(6)]
    for one in clients:
        one.start()
    wait_until(lambda: outcomes.count("200") > 2)
    code = running.stop(signal.SIGTERM)
    stop.set()
    for one in clients:
        one.join()
    assert code == 0, running.lines[-30:]
    assert "503" in outcomes, (outcomes, running.lines)
    # a connection that the system took up but the server has never seen may be reset at the end
    assert outcomes.count("lost") <= len(clients)
    for status in ("200", "503"):
        accepted = sum(f"/v1/segment {status}" in line for line in running.lines)
        assert outcomes.count(status) == accepted
    assert not any("gone" in line for line in running.lines)
    print(Counter(outcomes))


def test_a_client_that_leaves_is_not_worked_for(server):
    def gone():
        text = server.ask("GET", "/metrics").content.decode()
        return float(text.split("\nhymunet_disconnects_total ")[1].split()[0])

    before = gone()
    content = picture(size=(1500, 1500))
    for _ in range(6):
        with raw(server) as connection:
            connection.sendall(
                b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                b"image/png\r\nContent-Length: %d\r\n\r\n" % len(content) + content
            )
            time.sleep(0.02)
    wait_until(lambda: gone() > before)
    wait_until(lambda: server.ask("GET", "/health").json()["waiting"] == 0)
    assert server.segment(picture()).status == 200


def test_answers_are_not_held_back():
    """asyncio turns Nagle's algorithm off only where a socket's protocol is named; left on, each
    answer waits 40 ms for the client's acknowledgement."""
    with listen("127.0.0.1", 0) as bound:
        assert bound.proto == socket.IPPROTO_TCP


@pytest.mark.parametrize("sent", [b"", b"POST /v1/segment HTTP/1.1\r\nHost: loc"])
def test_a_head_that_does_not_end_is_not_waited_for(model_file, monkeypatch, sent):
    monkeypatch.setattr("hymunet.deploy.listener.HEAD_SECONDS", 0.3)
    with started_here(model_file) as running, raw(running) as connection:
        connection.sendall(sent)
        assert connection.recv(100) == b""  # closed by the server


def test_a_second_head_on_a_connection_is_not_waited_for_either(model_file, monkeypatch):
    monkeypatch.setattr("hymunet.deploy.listener.HEAD_SECONDS", 0.3)
    with started_here(model_file) as running, raw(running) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert received(connection)[0] == 200
        connection.sendall(b"GET /health HT")
        assert connection.recv(100) == b""


def test_a_refused_body_may_not_go_on_and_on(model_file, monkeypatch):
    monkeypatch.setattr("hymunet.deploy.listener.LINGER_SECONDS", 0.5)
    with started_here(model_file, Limits(megabytes=0.01)) as running, raw(running) as connection:
        connection.sendall(b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
                           b"Content-Length: 100000\r\n\r\nabc")  # fmt: skip
        assert received(connection)[0] == 413
        with pytest.raises(OSError, match=r"reset|pipe"):
            wait_until(lambda: connection.sendall(b"x" * 10))
