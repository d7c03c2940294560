"""A comparison end to end, on drawn lesions: equal footing, a failure, a Ctrl-C, a resume."""

import json
import re
import shlex
import sys
from importlib import invalidate_caches

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from hymunet.cli import main
from hymunet.errors import HyMUNetError
from hymunet.evaluation.evaluate import evaluate
from hymunet.evaluation.summary import headline_means
from hymunet.experiments.compare.entrants import find_entrant
from hymunet.experiments.compare.settle import settle_all
from hymunet.network.model_file import load_model
from hymunet.training.cost import Pace, bytes_a_sample
from hymunet.training.options import TrainOptions
from hymunet.training.planning.effort import passes
from hymunet.training.planning.plan import Settings
from hymunet.training.run_config import read_config
from hymunet.workflows.compare import compare

FLAGS = ["--epochs", "2", "--image-size", "32", "--batch-size", "4", "--workers", "0"]
FLAGS += ["--device", "cpu", "--preset", "tiny"]
OURS, ONE, WIDE = "CCCC", "small_networks:one", "small_networks:wide"
STUMBLING, INTERRUPTED = "small_networks:stumbling", "small_networks:interrupted"


def call(output, *models):
    return main(["compare", "data", "--models", *models, "--output", str(output), *FLAGS])


def log(folder, name):
    return (folder / f"{name}.log").read_text().splitlines()


@pytest.fixture(scope="module")
def first(workplace):
    """Ours, two networks of a user's own, and one that fails in training."""
    assert call("runs", OURS, ONE, STUMBLING, WIDE) == 1
    table = json.loads((workplace / "runs" / "table.json").read_text())
    return workplace / "runs", table


@pytest.fixture(scope="module")
def mended(first, workplace):
    """The same command again, after what failed has been mended."""
    output, _ = first
    before = {p: p.stat().st_mtime_ns for p in output.glob("*/*.safetensors")}
    (workplace / "mended").touch()
    assert call("runs", OURS, ONE, STUMBLING, WIDE) == 0
    (workplace / "mended").unlink()
    return output, json.loads((output / "table.json").read_text()), before


def test_a_failure_is_recorded_and_loses_nobody_else(first):
    output, table = first
    assert [model["name"] for model in table["models"]] == [OURS, ONE, WIDE]
    (failed,) = table["failed"]
    assert (failed["model"], failed["seed"]) == (STUMBLING, 0)
    assert failed["reason"] == "RuntimeError: a deliberate"
    note = json.loads((output / "small_networks.stumbling-seed0.failure.json").read_text())
    assert "in forward" in note["traceback"]
    assert "a deliberate" in (output / "report.html").read_text()
    assert "failed: RuntimeError: a deliberate" in (output / "table.md").read_text()


def test_all_are_trained_on_the_same_pictures_in_the_same_order(first, workplace):
    one, wide = log(workplace, "one")[:4], log(workplace, "wide")
    assert len(wide) == 2 * 2  # two epochs of two batches
    assert len(set(one)) == 4  # augmented anew in each
    assert one == wide
    splits = [
        json.loads((first[0] / f"{name}-seed0" / "split.json").read_text())
        for name in (OURS, "small_networks.one", "small_networks.wide")
    ]
    assert splits[0]["train"] == splits[1]["train"] == splits[2]["train"]
    assert splits[0]["test"] == splits[1]["test"] == splits[2]["test"]


def test_the_table_has_every_column(first):
    _, table = first
    words = shlex.split(table["made"]["command"])
    assert words[:3] == ["hymunet", "compare", "data"]
    assert words[3:8] == ["--models", OURS, ONE, STUMBLING, WIDE]
    for option, value in zip(FLAGS[::2], FLAGS[1::2], strict=True):
        assert words[words.index(option) + 1] == value
    assert (table["n"], table["part"], table["reference"]) == (4, "test", OURS)
    for model in table["models"]:
        assert {"dice", "iou", "precision", "boundary_iou", "hd95"} <= model["per_image"].keys()
        assert model["pooled"].keys() == {"dice", "iou"}
        assert model["cost"]["parameters"] > 0
        assert model["cost"]["cpu_s"] > 0
        assert model["images_a_second"] > 0
        assert model["epochs"] == [2]
        assert model["passes"] == [2.0]
        assert model["best_passes"][0] in (1.0, 2.0)
    ours, one, _ = table["models"]
    assert ours["difference"] is None
    assert one["difference"]["dice"]["mean"] == pytest.approx(
        one["per_image"]["dice"]["mean"] - ours["per_image"]["dice"]["mean"]
    )
    assert 0 < one["difference"]["dice"]["p"] <= one["difference"]["dice"]["p_holm"] <= 1


def test_the_page_fetches_nothing(first):
    page = (first[0] / "report.html").read_text()
    assert "<script" not in page
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page)
    assert "http" not in page
    assert "Dice against CPU latency" in page
    assert page.count("</html>") == 1
    assert "<h1>Comparison: data</h1>" in page
    assert ONE in page


def test_ours_is_scored_as_evaluate_scores_it(first, workplace):
    output, table = first
    evaluation = evaluate(str(output / f"{OURS}-seed0"), workplace / "data", split="test")
    means = headline_means(evaluation.summary)
    for metric in ("dice", "hd95"):
        assert table["models"][0]["per_image"][metric]["mean"] == means[metric]["mean"]


def test_a_cell_is_an_ordinary_run_folder(first, capsys):
    output, _ = first
    ours, theirs = output / f"{OURS}-seed0", output / "small_networks.one-seed0"
    assert read_config(ours / "config.yaml")["stages"] == "CCCC"
    assert load_model(ours)[0].config.stages == "CCCC"
    for name in ("metrics.csv", "cases.csv", "metrics.json", "report.html", "last.ckpt"):
        assert (ours / name).is_file()
        assert (theirs / name).is_file()
    assert read_config(theirs / "config.yaml")["network"] == ONE
    assert main(["train", "--config", str(theirs / "config.yaml")]) == 1
    assert "which `hymunet train` cannot build" in capsys.readouterr().err
    with pytest.raises(HyMUNetError, match=r"runs no code"):
        load_model(theirs)


def test_a_second_call_trains_only_what_failed(mended, first, workplace):
    output, table, before = mended
    assert table["failed"] == []
    assert [model["name"] for model in table["models"]] == [OURS, ONE, STUMBLING, WIDE]
    assert not list(output.glob("*.failure.json"))
    untouched = [path for path in before if "stumbling" not in str(path)]
    assert len(untouched) == 3
    assert all(path.stat().st_mtime_ns == before[path] for path in untouched)
    assert len(log(workplace, "wide")) == 4  # not a step more


def test_what_stopped_goes_on_as_if_it_had_not(mended, workplace):
    output, _, _ = mended
    # `stumbling` is `one` by another name, and fell in the midst of its second epoch
    steps, whole = log(workplace, "stumbling"), log(workplace, "one")[:4]
    assert steps == [*whole[:3], *whole[2:]]
    one, again = (
        load_file(output / f"small_networks.{name}-seed0" / "best.safetensors")
        for name in ("one", "stumbling")
    )
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_ctrl_c_stops_all_and_the_same_command_goes_on(mended, workplace, capsys):
    assert call("runs2", INTERRUPTED, ONE) == 130
    assert not (workplace / "runs2" / "small_networks.one-seed0").exists()
    assert not list((workplace / "runs2").glob("*.failure.json"))
    (workplace / "mended").touch()
    assert call("runs2", INTERRUPTED, ONE) == 0
    (workplace / "mended").unlink()
    one, again = (
        load_file(workplace / "runs2" / f"small_networks.{name}-seed0" / "best.safetensors")
        for name in ("one", "interrupted")
    )
    assert all(torch.equal(one[name], again[name]) for name in one)


def test_seeds_and_models_may_be_added_and_nothing_else(mended, workplace, capsys):
    output, _, _ = mended
    assert main(["compare", "data", "--models", ONE, "--seeds", "0", "1", "--output", "runs",
                 *FLAGS]) == 0  # fmt: skip
    table = json.loads((output / "table.json").read_text())
    seeds = {model["name"]: model["seeds"] for model in table["models"]}
    assert seeds == {OURS: [0], ONE: [0, 1], STUMBLING: [0], WIDE: [0]}
    assert table["reference"] == OURS  # who came first, by whatever call
    assert table["models"][1]["per_image"]["dice"]["sd_over_seeds"] is not None
    assert table["models"][1]["difference_seeds"] == [0]
    assert "but not the same seeds" in (output / "table.md").read_text()
    seen = log(workplace, "one")
    assert not set(seen[:4]) & set(seen[-4:])  # another seed, other pictures
    capsys.readouterr()
    again = ["compare", "data", "--models", ONE, "--output", "runs", *FLAGS]
    assert main([*again, "--clip", "2"]) == 1
    assert "clip is 1.0 there and 2.0 now. Models and seeds may be added" in capsys.readouterr().err


def test_what_failed_before_is_told_and_is_no_failure_of_this_call(workplace, capsys):
    (workplace / "stumbling.log").unlink(missing_ok=True)  # so that it stumbles
    assert call("runs4", ONE, STUMBLING) == 1
    capsys.readouterr()
    assert call("runs4", ONE) == 0
    assert "small_networks:stumbling, seed 0: in an earlier call failed" in capsys.readouterr().out


def write_edited(workplace, width, ending=""):
    source = f"""
from small_networks import Small, one

def mine(in_channels, num_classes):
    {ending}
    return Small(in_channels, num_classes, "mine", width={width})

mine.stride = 8
"""
    (workplace / "edited.py").write_text(source)
    sys.modules.pop("edited", None)
    invalidate_caches()


def test_an_edited_network_is_not_mixed_with_what_it_was(workplace, capsys):
    write_edited(workplace, 8, 'raise RuntimeError("a slip")')
    assert call("runs5", "edited:mine") == 1
    write_edited(workplace, 9)
    assert call("runs5", "edited:mine") == 0  # nothing had been trained by the slip
    assert "was edited" not in (workplace / "runs5" / "table.md").read_text()
    assert call("runs5", ONE) == 0
    write_edited(workplace, 11)
    capsys.readouterr()
    again = ["compare", "data", "--models", "edited:mine", "--output", "runs5", *FLAGS]
    assert main([*again, "--seeds", "0", "1"]) == 1
    assert "was edited since edited.mine-seed0 began" in " ".join(capsys.readouterr().err.split())
    assert not (workplace / "runs5" / "edited.mine-seed1").exists()
    assert main(again) == 0  # what is done is shown, with a note
    assert "edited:mine: its file was edited after seed 0" in capsys.readouterr().out


def test_a_budget_becomes_epochs_that_all_seeds_share(workplace):
    options = TrainOptions(
        budget="1s", image_size=32, batch_size=4, workers=0, device="cpu", preset="tiny"
    )
    data = workplace / "data"
    result = compare(data, models=(ONE,), seeds=(0, 1), options=options, output=workplace / "b")
    (model,) = result.summary["models"]
    assert model["epochs"][0] == model["epochs"][1]
    assert result.exit_code == 0
    pace = json.loads((workplace / "b" / "compare.json").read_text())["paces"][ONE]
    fitting = Pace(pace["step"], pace["look"]).epochs_in(1.0, 2)  # 8 cases in batches of 4
    assert (pace["epochs"], pace["steps_per_epoch"]) == fitting
    assert model["epochs"][0] == pace["epochs"]
    again = compare(data, models=(ONE,), seeds=(0, 1), options=options, output=workplace / "b")
    assert again.summary["models"][0]["epochs"] == model["epochs"]


def test_a_budget_is_measured_once_and_a_network_without_a_pace_says_why(workplace, capsys):
    options = TrainOptions(
        budget="1s", image_size=32, batch_size=4, workers=0, device="cpu", preset="tiny"
    )
    output = workplace / "unmeasured"
    models = (ONE, "small_networks:picky")
    result = compare(workplace / "data", models=models, options=options, output=output)
    (failed,) = result.summary["failed"]
    assert failed["model"] == "small_networks:picky"
    assert "small_networks:picky: cannot be trained" in capsys.readouterr().err
    paces = json.loads((output / "compare.json").read_text())["paces"]
    assert paces.keys() == {ONE}
    more = (*models, "small_networks:wide")
    compare(workplace / "data", models=more, options=options, output=output)
    again = json.loads((output / "compare.json").read_text())["paces"]
    assert again[ONE] == paces[ONE]
    assert again.keys() == {ONE, "small_networks:wide"}


def test_what_makes_no_sense_is_refused_before_anything_is_made(workplace):
    data, output = workplace / "data", workplace / "nothing"
    small = {"image_size": 32, "workers": 0, "device": "cpu", "preset": "tiny"}
    for models, options, words in (
        ((ONE,), TrainOptions(init="isic2018-tiny"), r"advantage over the others; leave --init"),
        ((ONE,), TrainOptions(stages="CCAA"), r"has stages of its own here.*leave --stages out"),
        ((ONE, "small_networks:sixty_four"), TrainOptions(**small),
         r"image_size 32 is not a multiple of 64, as these models need together; give 64"),
        ((), TrainOptions(**small), r"at least one model and one seed"),
    ):  # fmt: skip
        with pytest.raises(HyMUNetError, match=words):
            compare(data, models=models, options=options, output=output)
        assert not output.exists()
    (workplace / "thesis").mkdir()
    (workplace / "thesis" / "thesis.tex").touch()
    with pytest.raises(HyMUNetError, match=r"holds no comparison \(thesis\.tex; compare\.json"):
        compare(data, models=(ONE,), options=TrainOptions(**small), output=workplace / "thesis")


def test_a_chosen_size_is_what_all_can_take(workplace):
    options = TrainOptions(
        epochs=1, batch_size=4, workers=0, device="cpu", preset="tiny", resize="squeeze"
    )
    models = (ONE, "small_networks:sixty_four")
    result = compare(workplace / "data", models=models, options=options, output=workplace / "c")
    assert result.summary["size"] == [64, 64]
    saved = json.loads((workplace / "c" / "compare.json").read_text())
    assert saved["settled"]["image_size"] == 64


def test_the_batch_is_what_the_hungriest_can_be_trained_with(workplace, monkeypatch):
    options = TrainOptions(image_size=32, workers=0, device="cpu", preset="tiny")
    entrants = [find_entrant(word) for word in (ONE, "small_networks:wider")]
    settings = Settings(preset="tiny", image_size=32)
    needs = [bytes_a_sample(entrant.make(settings, 3, 2), (32, 32)) for entrant in entrants]
    assert needs[1] > 2 * needs[0]
    # half of what is free holds two of the one, more of the other
    monkeypatch.setattr(
        "hymunet.experiments.compare.settle.available_memory", lambda _: 4 * needs[1]
    )
    output, console = workplace / "batch", Console(quiet=True)
    shared = settle_all(output, workplace / "data", options, entrants, "compare", console)
    assert shared.settings.batch_size == 2
    # 8 cases in batches of 2: as many passes as make the usual number of steps
    assert shared.settings.epochs == passes(8, 2, False)[0]
    monkeypatch.undo()
    again = settle_all(output, workplace / "data", options, entrants, "compare", console)
    assert (again.settings, again.split.train) == (shared.settings, shared.split.train)


def test_an_ablation_says_effects_with_intervals(workplace, capsys):
    flags = [*FLAGS[2:], "--epochs", "1"]
    arguments = ["ablate", "data", "--factors", "directions", "--seeds", "0", "--output", "a"]
    assert main([*arguments, *flags]) == 0
    table = json.loads((workplace / "a" / "table.json").read_text())
    names = [model["name"] for model in table["models"]]
    assert names == ["hymunet", "directions-1", "directions-2"]
    updates = [model["cost"]["scan_updates"] for model in table["models"]]
    assert updates == [4 * updates[1], updates[1], 2 * updates[1]]
    assert all(model["difference"]["dice"]["low"] is not None for model in table["models"][1:])
    page = (workplace / "a" / "report.html").read_text()
    assert call("a", ONE) == 1  # a folder is of one verb
    assert "holds the results of `hymunet ablate`" in " ".join(capsys.readouterr().err.split())
    assert ">directions</th>" in page
    assert load_model(workplace / "a" / "directions-1-seed0")[0].config.directions == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--skip", "concat"], "no difference between hymunet and skip-concat; leave --skip out"),
     (["--boundary-weight", "0"], "leave --boundary-weight out, or the factor loss"),
     (["--stages", "CCCC"], "each model has stages of its own here")],
)  # fmt: skip
def test_an_ablation_of_what_is_not_there_is_refused(workplace, capsys, options, words):
    arguments = ["ablate", "data", "--factors", "skip", "loss", "--output", "none", *FLAGS]
    assert main([*arguments, *options]) == 1
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (workplace / "none").exists()


def test_options_that_change_ours_are_in_its_description(workplace):
    flags = [*FLAGS[2:], "--epochs", "1", "--skip", "concat", "--output", "described"]
    assert main(["compare", "data", "--models", "CCCC", ONE, *flags]) == 0
    table = json.loads((workplace / "described" / "table.json").read_text())
    changed = [model["what"].endswith("; its skips: concat") for model in table["models"]]
    assert changed == [True, False]
