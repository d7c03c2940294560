"""Runs that start from a model: frozen, slower, resumed, repeated, and honest about their cases."""

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from hymunet.cli import main
from hymunet.data.phantoms import write_phantoms
from hymunet.data.splits import PARTS, load_split
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.network.model_file import find_model, load_model, read_info, save_model
from hymunet.training.fit import fit
from hymunet.training.options import TrainOptions

OPTIONS = TrainOptions(image_size=32, epochs=1, batch_size=4, workers=0, device="cpu")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    os.environ["HYMUNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["HYMUNET_CACHE"]


@pytest.fixture(scope="module")
def old_data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("old") / "old", 12, size=(40, 48), seed=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("new") / "new", 16, size=(40, 48), seed=2)


@pytest.fixture(scope="module")
def old_run(old_data, tmp_path_factory):
    """A trained model with a licence."""
    output = tmp_path_factory.mktemp("runs") / "old-run"
    fit(old_data, output, OPTIONS, console=Console(quiet=True))
    network, info = load_model(output)
    save_model(output / "best.safetensors", network, info | {"licence": "CC0-1.0"})
    return output


def tune(data, output, init, split=None, images=None, masks=None, **changes):
    """Fine-tunes quietly; changes are options that differ from OPTIONS. Returns what was said."""
    settings = {"epochs": 2, "batch_size": 4, "drop_path": 0.3, "seed": 1} | changes
    options = TrainOptions(
        init=init and str(init), image_size=32, workers=0, device="cpu", **settings
    )
    console = Console(record=True, file=open(os.devnull, "w"), width=200)  # noqa: SIM115
    fit(data, output, options, images, masks, split, console)
    return console.export_text()


def rows_of(output):
    with open(output / "metrics.csv", newline="") as file:
        return [{n: v for n, v in row.items() if n != "seconds"} for row in csv.DictReader(file)]


def weights(path):
    return load_file(path / "best.safetensors" if path.is_dir() else path)


def assert_same_run(one, two):
    assert rows_of(one) == rows_of(two)
    first, second = weights(one), weights(two)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_info(one)["training"] == read_info(two)["training"]


@pytest.fixture(scope="module")
def tuned(data, old_run, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "tuned"
    tune(data, output, old_run)
    return output


def test_freezing_keeps_every_bit_of_the_encoder(data, old_run, tmp_path):
    said = tune(data, tmp_path / "run", old_run, freeze_encoder=True)
    assert "of them frozen" in said
    before, after = weights(old_run), weights(tmp_path / "run")
    for name in before:  # weights, running means, variances and their counts
        moved = not torch.equal(before[name], after[name])
        assert moved != name.startswith("encoder."), name
    # the trained network itself, not only its average, and an optimiser that knows nothing of it
    checkpoint = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)
    for name, value in checkpoint["state_dict"].items():
        if name.startswith("network.encoder."):
            assert torch.equal(value, before[name.removeprefix("network.")]), name
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    trained = sum(len(group["params"]) for group in groups)
    network, _ = load_model(old_run)
    rest = [n for n, _ in network.named_parameters() if not n.startswith("encoder.")]
    assert trained == len(rest)


def test_without_freezing_every_part_moves(old_run, tuned):
    before, after = weights(old_run), weights(tuned)
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_a_slower_encoder_has_its_own_rate_in_every_step(data, old_run, tmp_path):
    from hymunet.training.optimiser import warmup_cosine

    tune(data, tmp_path / "run", old_run, encoder_rate=0.125, learning_rate=1e-3, epochs=4)
    for name, steps in (("previous.ckpt", 9), ("last.ckpt", 12)):
        state = torch.load(tmp_path / "run" / name, weights_only=True)["optimizer_states"][0]
        rates = [group["lr"] for group in state["param_groups"]]
        factor = warmup_cosine(steps, 12, 0.05)
        assert rates == [1e-3 * factor] * 3 + [1e-3 * 0.125 * factor] * 3
    assert float(rows_of(tmp_path / "run")[2]["lr"]) == pytest.approx(
        1e-3 * warmup_cosine(9, 12, 0.05)
    )


def test_the_slower_the_encoder_the_less_it_moves(data, old_run, tmp_path):
    before = weights(old_run)
    moved = []
    for rate in (1.0, 0.1, 0.01):
        tune(data, tmp_path / f"run{rate}", old_run, encoder_rate=rate, epochs=1, drop_path=0.0)
        after = weights(tmp_path / f"run{rate}")
        kernels = [n for n in before if n.startswith("encoder.") and before[n].ndim == 4]
        moved.append(sum((after[n] - before[n]).abs().sum().item() for n in kernels))
    assert moved[0] > 3 * moved[1] > 9 * moved[2] > 0


def test_a_resumed_run_does_not_need_the_model_any_more(data, old_run, tuned, tmp_path):
    mother = tmp_path / "mother"
    shutil.copytree(old_run, mother)
    output = tmp_path / "run"
    tune(data, output, mother)
    # as it was after the first of two epochs
    os.replace(output / "previous.ckpt", output / "last.ckpt")
    provenance = json.loads((output / "provenance.json").read_text())
    (output / "provenance.json").write_text(json.dumps(provenance | {"finished": False}))
    shutil.rmtree(mother)
    said = tune(data, output, mother)
    assert "started from mother, as kept in init.safetensors" in said
    assert "resuming from" in said
    assert rows_of(output) == rows_of(tuned)
    first, second = weights(tuned), weights(output)
    assert all(torch.equal(first[name], second[name]) for name in first)
    origin = read_info(output)["training"]["init"]
    assert origin == read_info(tuned)["training"]["init"] | {"name": "mother"}
    # stopped before its first checkpoint it starts from the kept weights as well
    for name in ("last.ckpt", "metrics.csv", "best.safetensors"):
        (output / name).unlink()
    (output / "provenance.json").write_text(json.dumps(provenance | {"finished": False}))
    tune(data, output, mother)
    assert rows_of(output) == rows_of(tuned)


def test_a_run_is_found_again_by_any_name_of_its_model(data, old_run, tmp_path, monkeypatch):
    shutil.copytree(old_run, tmp_path / "mother")
    tune(data, tmp_path / "run", tmp_path / "mother", epochs=1)
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["init"] == str(tmp_path / "mother")
    assert not {"preset", "stages", "skip"} & set(config)  # the model's
    monkeypatch.chdir(tmp_path)
    assert "finished already" in tune(data, tmp_path / "run", "mother", epochs=1)
    shutil.rmtree(tmp_path / "mother")
    assert "finished already" in tune(data, tmp_path / "run", "mother", epochs=1)
    with pytest.raises(HyMUNetError, match=r"init is '.*mother' there and 'father' now"):
        tune(data, tmp_path / "run", "father", epochs=1)
    with pytest.raises(HyMUNetError, match=r"init is '.*mother' there and None now"):
        tune(data, tmp_path / "run", None, epochs=1)


def test_config_alone_repeats_a_tuned_run(tuned, tmp_path, capsys):
    again = tmp_path / "again"
    assert main(["train", "--config", str(tuned / "config.yaml"), "--output", str(again)]) == 0
    assert_same_run(tuned, again)
    one, two = ((run / "config.yaml").read_text() for run in (tuned, again))
    assert one.replace(str(tuned), "") == two.replace(str(again), "")


def test_the_new_model_file_tells_of_the_old(old_run, tuned):
    info, old = read_info(tuned), read_info(old_run)
    assert info["licence"] == "CC0-1.0"
    origin = info["training"]["init"]
    assert (origin["name"], origin["data"], origin["cases"]) == ("old-run", "folder pairs", 8)
    content = find_model(old_run).read_bytes()
    assert origin["sha256"] == hashlib.sha256(content).hexdigest()
    assert info["training"]["options"]["init"] == "old-run"  # nobody's paths
    provenance = json.loads((tuned / "provenance.json").read_text())
    assert provenance["init"] == origin
    split = load_split(tuned / "split.json")
    assert [len(info["cases"][part]) for part in PARTS] == [len(split.train) + 8, 2, 2]
    assert set(old["cases"]["train"]) < set(info["cases"]["train"])


def test_evaluate_refuses_what_the_old_model_was_trained_on(tuned, old_data, tmp_path):
    model = shutil.copy(tuned / "best.safetensors", tmp_path / "tuned.safetensors")
    with pytest.raises(HyMUNetError, match="8 of 8 cases were trained on"):
        evaluate(model, old_data, split="train")
    assert len(evaluate(model, old_data, split="test").cases) == 2


def parts_of(data):
    with open(data / "split.csv", newline="") as file:
        return {row["case"]: row["split"] for row in csv.DictReader(file)}


def write_parts(path, parts):
    path.write_text("case,split\n" + "".join(f"{id},{part}\n" for id, part in parts.items()))
    return path


def copy_cases(data, target, ids, prefix=""):
    """Images and masks of some cases, without a split."""
    for folder in ("images", "masks"):
        (target / folder).mkdir(parents=True, exist_ok=True)
        for id in ids:
            shutil.copy(data / folder / f"{id}.png", target / folder / f"{prefix}{id}.png")
    return target


def test_validating_on_what_the_old_model_was_trained_on_is_refused(data, tuned, tmp_path):
    swap = {"train": "val", "val": "train", "test": "test"}
    swapped = {id: swap[part] for id, part in parts_of(data).items()}
    table = write_parts(tmp_path / "swapped.csv", swapped)
    words = r"12 of the 14 val and test cases were trained on by tuned \(--init\)"
    with pytest.raises(HyMUNetError, match=words):
        tune(data, tmp_path / "run", tuned, split=table)
    assert not (tmp_path / "run" / "config.yaml").exists()  # free for the corrected command


def test_a_drawn_split_puts_what_the_old_model_knows_into_train(data, tuned, tmp_path):
    fresh = write_phantoms(tmp_path / "drawn", 12, size=(40, 48), seed=9)
    more = copy_cases(fresh, tmp_path / "more", parts_of(fresh))
    copy_cases(data, more, parts_of(data), prefix="old-")
    said = tune(more, tmp_path / "run", tuned, epochs=1)
    assert "12 cases that the model of --init was trained on were put into train" in said
    split = load_split(tmp_path / "run" / "split.json")
    assert {f"old-{id}" for id, part in parts_of(data).items() if part == "train"} < {*split.train}
    # the 16 others are shared out as ever
    assert (len(split.train), len(split.val), len(split.test)) == (12 + 11, 3, 2)


def test_too_few_cases_that_the_old_model_does_not_know_are_refused(data, tuned, tmp_path):
    ids = [id for id, part in parts_of(data).items() if part != "test"]
    few = copy_cases(data, tmp_path / "few", ids)
    with pytest.raises(
        HyMUNetError, match=r"on 12 of the 14 cases .* --split-file RUN/split\.json"
    ):
        tune(few, tmp_path / "run", tuned)


def test_a_split_file_is_used_instead_of_the_datas_own(data, tmp_path):
    chosen = sorted(parts_of(data))[:10]
    table = dict.fromkeys(chosen[:6], "train") | dict.fromkeys(chosen[6:], "validation")
    path = write_parts(tmp_path / "ten.csv", table)
    said = tune(data, tmp_path / "run", None, epochs=1, split=path)
    assert "6 cases in no part of it and not used" in said
    split = load_split(tmp_path / "run" / "split.json")
    assert set(split.train) == set(chosen[:6])
    assert set(split.val) == set(chosen[6:])
    assert split.test == ()
    assert len(read_info(tmp_path / "run")["cases"]["train"]) == 6
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert config["split_file"] == str(path)
    # the run knows its parts by itself
    path.unlink()
    assert "finished already" in tune(data, tmp_path / "run", None, epochs=1, split=path)
    with pytest.raises(HyMUNetError, match=r"split_file is '.*ten\.csv' there and None now"):
        tune(data, tmp_path / "run", None, epochs=1)


def test_cases_that_are_in_no_part_are_not_even_read(data, tmp_path):
    source = tmp_path / "data"
    shutil.copytree(data, source)
    ids = sorted(parts_of(data))
    (source / "images" / f"{ids[0]}.png").write_bytes(b"no picture at all")
    parts = {"train": ids[1:9], "val": ids[9:12], "test": ids[12:]}
    (tmp_path / "split.json").write_text(json.dumps(parts | {"seed": None, "notes": []}))
    tune(source, tmp_path / "run", None, epochs=1, split=tmp_path / "split.json")


def test_another_runs_parts_are_a_split_file(data, tuned, tmp_path):
    said = tune(data, tmp_path / "run", None, epochs=1, seed=5, split=tuned / "split.json")
    one, two = (load_split(run / "split.json") for run in (tuned, tmp_path / "run"))
    assert all(getattr(one, part) == getattr(two, part) for part in PARTS)
    assert f"as given by {tuned / 'split.json'}" in said


def test_the_verb_takes_all_three(data, old_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copy(data / "split.csv", tmp_path / "parts.csv")
    command = ["train", str(data), "--init", str(old_run), "--encoder-rate", "0.1"]
    command += ["--split-file", "parts.csv", "--image-size", "32", "--epochs", "1"]
    command += ["--batch-size", "4", "--workers", "0", "--device", "cpu"]
    assert main(command) == 0
    run = Path("runs/new-from-old-run-seed0")
    values = yaml.safe_load((run / "config.yaml").read_text())
    assert values["split_file"] == str(tmp_path / "parts.csv")
    assert (values["init"], values["encoder_rate"]) == (str(old_run), 0.1)
    assert (run / "report.html").is_file()
    assert "licence CC0-1.0, which passes on" in capsys.readouterr().err
    assert main([*command, "--stages", "CCCC", "--output", "other"]) == 1
    assert "--stages is CCCC and the model's is CCMM" in capsys.readouterr().err
    assert main(["train", str(data), "--freeze-encoder"]) != 0
    assert "name it by init (--init MODEL)" in " ".join("".join(capsys.readouterr()).split())


def test_runs_from_before_an_option_go_on(data, tmp_path):
    tune(data, tmp_path / "run", None, epochs=1)
    values = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    for name in ("freeze_encoder", "encoder_rate"):
        del values[name]
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(values))
    assert "finished already" in tune(data, tmp_path / "run", None, epochs=1)


def test_fewer_steps_are_needed_from_a_model(data, old_run, tmp_path):
    said = tune(data, tmp_path / "run", old_run, epochs=1)
    assert "3 optimisation steps in all are too few to learn new images (at least 100" in said
    said = tune(data, tmp_path / "new", None, epochs=1)
    assert "3 optimisation steps in all are too few to learn from scratch (at least 300" in said


def test_options_of_another_start_are_another_run(data, old_run, tuned):
    with pytest.raises(HyMUNetError, match=r"encoder_rate is 1\.0 there and 0.5 now"):
        tune(data, tuned, old_run, encoder_rate=0.5)
