"""`hymunet plan` says what train does, in words and numbers; verify says what it takes."""

import json
import re
from pathlib import Path

import pytest
from rich.console import Console

from hymunet.cli import main
from hymunet.data.phantoms import write_phantoms
from hymunet.training.options import OPEN


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path):
    return str(write_phantoms(tmp_path / "drawn", 10, size=(40, 48)))


def test_the_plan_of_pictures(data, capsys):
    assert main(["plan", data, "--device", "cpu"]) == 0
    said = capsys.readouterr().out
    for name in OPEN:
        assert name in said
    assert "parameters; a batch needs about" in said


def test_as_json_it_is_what_train_keeps(data, tmp_path, capsys):
    options = ["--device", "cpu", "--epochs", "1", "--batch-size", "2", "--workers", "0"]
    assert main(["plan", data, *options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["plan"]["batch_size"] == {"value": 2, "reason": "as given"}
    assert said["training_seconds"] > 0 < said["batch_bytes"]
    assert said["steps"] == 3  # 7 of 10 cases teach, by twos
    assert main(["train", data, *options, "--output", str(tmp_path / "run")]) == 0
    kept = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert kept["plan"] == said["plan"]
    report = (tmp_path / "run" / "report.html").read_text()
    assert "The plan" in report
    assert said["plan"]["image_size"]["reason"] in report


def test_only_what_a_split_file_gives_to_train_has_a_say(data, tmp_path, capsys):
    ids = [f"phantom_{number:04d}" for number in range(8)]
    rows = [f"{id_},{'train' if number < 4 else 'val'}" for number, id_ in enumerate(ids)]
    (tmp_path / "parts.csv").write_text("\n".join(["case,split", *rows]) + "\n")
    options = ["--device", "cpu", "--epochs", "1", "--batch-size", "2", "--json"]
    assert main(["plan", data, "--split-file", str(tmp_path / "parts.csv"), *options]) == 0
    assert json.loads(capsys.readouterr().out)["steps"] == 2


def test_a_budget_is_turned_into_epochs(data, capsys):
    epochs = []
    for budget in ("10s", "20m"):
        assert main(["plan", data, "--device", "cpu", "--budget", budget, "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)["plan"]
        assert f"the budget is {budget}" in plan["epochs"]["reason"]
        epochs.append(plan["epochs"]["value"])
    assert epochs[0] < epochs[1]


def test_verify_says_what_a_training_takes_and_its_warnings_stand_in_the_report(
    data, tmp_path, capsys
):
    masks = sorted((tmp_path / "drawn" / "masks").iterdir())
    from PIL import Image

    Image.new("L", Image.open(masks[0]).size).save(masks[0])
    assert main(["verify", data, "--json", "--output", str(tmp_path / "v")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "steps in about" in found["facts"]["training here"]
    assert found["facts"]["foreground"].startswith("value 255 in 9 cases")
    warning = next(f["message"] for f in found["findings"] if f["level"] == "warning")
    options = ["--device", "cpu", "--epochs", "1", "--batch-size", "2", "--workers", "0"]
    assert main(["train", data, *options, "--output", str(tmp_path / "run")]) == 0
    assert warning in (tmp_path / "run" / "report.html").read_text()


def test_verify_says_what_the_plan_says(data, capsys):
    for split in ("train,val,test", "train", None):  # the data's own, one without val, a drawn one
        table = Path(data) / "split.csv"
        if split is None:
            table.unlink()
        elif split == "train":
            table.write_text(table.read_text().replace(",val", ",train"))
        assert main(["plan", data, "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert main(["verify", data, "--json"]) == 0
        here = json.loads(capsys.readouterr().out)["facts"]["training here"]
        chosen = {name: choice["value"] for name, choice in plan["plan"].items()}
        side = chosen["image_size"]
        start = f"{chosen['preset']}, whole pictures at {side} x {side}, batches of "
        assert here.startswith(f"{start}{chosen['batch_size']}: ")
        assert f", {plan['steps']} steps in about" in here


def test_verify_goes_on_where_no_split_can_be_drawn(tmp_path, capsys):
    data = write_phantoms(tmp_path / "two", 10, size=(40, 48))
    (data / "split.csv").unlink()
    for path in sorted((data / "images").iterdir())[2:]:
        path.unlink()
        (data / "masks" / path.name).unlink()
    assert main(["verify", str(data), "--json"]) == 0
    here = json.loads(capsys.readouterr().out)["facts"]["training here"]
    assert here.startswith("not without a split file: a split into train, val, test needs")


def test_what_was_understood_is_not_counted_as_a_note(data, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["verify", data, "--groups", "phantom_0+([0-9])"]) == 0
    said = capsys.readouterr().out
    assert "10 groups by --groups" in said
    assert all(len(line) <= 80 for line in said.splitlines() if "verify-" not in line)
    counted = int(re.search(r"warnings?, (\d+) notes?\.", said)[1])
    assert len(re.findall(r"^note: ", said, re.MULTILINE)) == counted


def test_a_halved_batch_says_how_much_in_a_unit_that_shows_it():
    from types import SimpleNamespace

    from hymunet.training.limits import in_memory

    class Decided(SimpleNamespace):
        def but(self, name, value, reason):
            return Decided(settings=self.settings, name=name, value=value, reason=reason)

    decision = Decided(settings=SimpleNamespace(batch_size=8))
    found = in_memory(decision, 2**20, 8 * 2**20, Console(quiet=True), False)
    assert (found.name, found.value) == ("batch_size", 4)
    assert found.reason == "8 would need 8 MiB, over half of what is free"
