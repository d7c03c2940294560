"""Bodies of strangers: refused by a 4xx with a reason, quickly, in bounded memory; then still
serving."""

from collections import Counter
from importlib.util import find_spec

import pytest

from tests.deploy.serve.conftest import needs_serve, start
from tests.deploy.serve.hostile import bombs, pictures, small_bodies

pytestmark = [pytest.mark.serve, needs_serve]

MB = 1_000_000


@pytest.fixture(scope="module")
def target(model_file):
    """A server with the limits that it has by default, each image segmented once."""
    running = start(model_file)
    for kind, content in pictures().items():
        assert running.segment(content, kind).status == 200
    yield running
    running.process.kill()


def is_refused(answer):
    """By a 4xx with a sentence."""
    if not 400 <= answer.status < 500:
        return False
    found = answer.json()
    return len(found["error"]["message"]) > 20 and found["request_id"]


def test_bombs_are_refused_before_they_cost_anything(target):
    before = target.memory()
    for body in bombs():
        answer = target.segment(body.content, body.content_type)
        assert is_refused(answer), (body, answer)
        assert target.memory() - before < 150 * MB, body
    assert target.segment(pictures()["image/png"]).status == 200


@pytest.mark.parametrize("count", [120, pytest.param(1000, marks=pytest.mark.slow)])
def test_malformed_bodies_are_refused_in_words(target, count):
    before = target.memory()
    found: Counter[int] = Counter()
    for body in small_bodies(count, seed=count):
        name = body.content_type.encode("latin-1")  # http.client takes bytes of any kind
        answer = target.segment(body.content, name)
        found[answer.status] += 1
        assert is_refused(answer) or (body.may_pass and answer.status == 200), (body, answer)
    assert found[200] < count / 8
    assert {400, 415, 422} < set(found)
    assert target.memory() - before < 100 * MB
    assert target.segment(pictures()["image/png"]).status == 200


@pytest.mark.slow
def test_schemathesis_finds_nothing(target, tmp_path):
    if find_spec("schemathesis") is None:
        pytest.skip("THE API'S DESCRIPTION IS NOT TESTED: pip install schemathesis")
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()", "run",
         f"http://127.0.0.1:{target.port}/openapi.json", "--max-examples", "60", "--seed", "0",
         "--request-timeout", "30", "--exclude-checks", "positive_data_acceptance"],
        capture_output=True, text=True, check=False, timeout=600, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert target.segment(pictures()["image/png"]).status == 200
