"""A run folder is whole, repeats, resumes bit for bit, and refuses what is not its own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from hymunet.data.phantoms import write_phantoms
from hymunet.data.splits import PARTS, load_split
from hymunet.errors import HyMUNetError
from hymunet.inference.predictor import Predictor
from hymunet.network.model_file import read_info
from hymunet.training.cost import Pace
from hymunet.training.fit import fit
from hymunet.training.options import TrainOptions
from hymunet.training.recorder import Recorder
from hymunet.training.run_folder import METRIC_COLUMNS

# drop path, so that the resumed run has to draw the same random numbers as well
OPTIONS = TrainOptions(
    image_size=32, epochs=3, batch_size=4, drop_path=0.3, workers=0, device="cpu", seed=1
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_phantoms(tmp_path_factory.mktemp("data") / "phantoms", 16, size=(40, 48))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    os.environ["HYMUNET_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["HYMUNET_CACHE"]


@pytest.fixture(scope="module")
def uninterrupted(data, cache, tmp_path_factory):
    output = tmp_path_factory.mktemp("runs") / "whole"
    fit(data, output, OPTIONS, console=Console(quiet=True))
    return output


def run_quietly(data, output, options=OPTIONS, **places):
    console = Console(record=True, file=open(os.devnull, "w"), width=200)  # noqa: SIM115
    finished = fit(data, output, options, console=console, **places)
    return finished, console.export_text()


def rows_of(output):
    with open(output / "metrics.csv", newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "seconds"}
            for row in csv.DictReader(file)
        ]


def assert_same_run(one, two):
    assert rows_of(one) == rows_of(two)
    first = load_file(one / "best.safetensors")
    second = load_file(two / "best.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_folder_holds_all_that_is_promised(uninterrupted, data):
    for name in ("config.yaml", "split.json", "provenance.json", "last.ckpt", "previous.ckpt"):
        assert (uninterrupted / name).is_file(), name
    assert not list(uninterrupted.glob(".*partial*"))
    assert [int(row["epoch"]) for row in rows_of(uninterrupted)] == [1, 2, 3]
    assert (uninterrupted / "metrics.csv").read_text().splitlines()[0] == ",".join(METRIC_COLUMNS)
    config = yaml.safe_load((uninterrupted / "config.yaml").read_text())
    assert config["seed"] == 1
    assert Path(config["data"]) == data.resolve()
    provenance = json.loads((uninterrupted / "provenance.json").read_text())
    assert provenance["finished"] is True
    assert provenance["split"] == {"train": 12, "val": 2, "test": 2}
    info = read_info(uninterrupted / "best.safetensors")
    assert {part: len(hashes) for part, hashes in info["cases"].items()} == provenance["split"]
    assert info["training"]["contrast_median"] > 0
    assert info["preprocess"]["image_size"] == [32, 32]


def test_the_shipped_model_predicts(uninterrupted, data):
    image = sorted((data / "images").iterdir())[0]
    prediction = Predictor(uninterrupted)(image)
    assert prediction.mask.shape == (40, 48)


def test_a_seed_repeats_a_run(uninterrupted, data, cache, tmp_path):
    run_quietly(data, tmp_path / "again")
    assert_same_run(uninterrupted, tmp_path / "again")
    other, _ = run_quietly(data, tmp_path / "other", replace(OPTIONS, seed=2, epochs=1))
    assert rows_of(other.folder.path)[0] != rows_of(uninterrupted)[0]


def test_config_alone_repeats_a_run(uninterrupted, cache, tmp_path):
    values = yaml.safe_load((uninterrupted / "config.yaml").read_text())
    data = Path(values.pop("data"))
    del values["output"]
    run_quietly(data, tmp_path / "again", TrainOptions(**values))
    assert_same_run(uninterrupted, tmp_path / "again")


def test_epochs_of_fewer_steps_than_a_pass_resume_alike(data, cache, tmp_path, monkeypatch):
    short = replace(OPTIONS, steps_per_epoch=2)  # of the three that 12 cases make
    run_quietly(data, tmp_path / "whole", short)
    rows = rows_of(tmp_path / "whole")
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    assert float(rows[-1]["lr"]) < float(rows[0]["lr"]) * 1e-3  # the schedule is of those six
    save = Recorder._save_checkpoint

    def stop_after_it(self, trainer):
        save(self, trainer)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "_save_checkpoint", stop_after_it)
        with pytest.raises(KeyboardInterrupt):
            run_quietly(data, tmp_path / "cut", short)
    run_quietly(data, tmp_path / "cut", OPTIONS)  # what is left open is as it was
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_budget_shortens_epochs_where_few_would_fit(data, cache, tmp_path, monkeypatch):
    pace = Pace(step=3.0, look=1.0)  # as of a large network: 10 s a pass
    monkeypatch.setattr("hymunet.training.limits.pace_of", lambda *given: pace)
    options = replace(OPTIONS, epochs=None, budget="45s")
    finished, said = run_quietly(data, tmp_path / "run", options)
    assert (
        "epochs: 6 (each of 2 steps, where a pass over the cases has 3: an epoch takes 7.0 s"
        in (said)
    )
    assert finished.epochs == 6
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (config["epochs"], config["steps_per_epoch"]) == (6, 2)
    _, said = run_quietly(data, tmp_path / "run", options)
    assert "is finished already" in said


COMMAND = [
    *("--image-size", "32", "--epochs", "12", "--batch-size", "4", "--drop-path", "0.3"),
    *("--workers", "0", "--device", "cpu", "--seed", "1"),
]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for one process")
def test_ctrl_c_leaves_a_whole_checkpoint_that_resumes_bit_for_bit(data, cache, tmp_path):
    # long enough to be still training when the signal comes
    options = replace(OPTIONS, epochs=12)
    run_quietly(data, tmp_path / "whole", options)
    output = tmp_path / "stopped"
    command = [sys.executable, "-m", "hymunet.cli", "train", str(data), "--output", str(output)]
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [*command, *COMMAND],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        # a shell starts background jobs with SIGINT ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (output / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130, stderr.decode()
    assert b"the same command goes on where it stopped" in stderr
    assert b"Traceback" not in stderr
    done = len(rows_of(output))
    assert done < 12, "the training was over before it could be interrupted"
    torch.load(output / "last.ckpt", weights_only=True)
    _, said = run_quietly(data, output, options)
    assert "resuming from" in said
    assert_same_run(tmp_path / "whole", output)


def test_a_torn_checkpoint_falls_back_to_the_one_before(uninterrupted, data, cache, tmp_path):
    output = tmp_path / "torn"
    copy_run(uninterrupted, output)
    whole = (output / "last.ckpt").read_bytes()
    (output / "last.ckpt").write_bytes(whole[: len(whole) // 2])
    _, said = run_quietly(data, output)
    assert "last.ckpt cannot be read" in said
    assert "going on from the checkpoint before it" in said
    assert_same_run(uninterrupted, output)


def test_without_any_whole_checkpoint_it_says_so(uninterrupted, data, cache, tmp_path):
    output = tmp_path / "lost"
    copy_run(uninterrupted, output)
    for name in ("last.ckpt", "previous.ckpt"):
        (output / name).write_bytes(b"torn")
    with pytest.raises(HyMUNetError, match=r"no checkpoint of .* is whole"):
        run_quietly(data, output)


def copy_run(source, output):
    """A copy of a run as it was before it was marked as finished."""
    output.mkdir()
    for path in source.iterdir():
        (output / path.name).write_bytes(path.read_bytes())
    provenance = json.loads((output / "provenance.json").read_text())
    (output / "provenance.json").write_text(json.dumps(provenance | {"finished": False}))


def test_a_finished_run_is_left_alone(uninterrupted, data, cache):
    before = (uninterrupted / "best.safetensors").read_bytes()
    finished, said = run_quietly(data, uninterrupted)
    assert "finished already" in said
    assert finished.epochs == 3
    assert (uninterrupted / "best.safetensors").read_bytes() == before


def test_other_settings_on_the_same_folder_are_refused(uninterrupted, data, cache):
    words = r"made by other settings: seed is 1 there and 9 now; epochs is 3 there and 4 now"
    with pytest.raises(HyMUNetError, match=words):
        run_quietly(data, uninterrupted, replace(OPTIONS, epochs=4, seed=9))


def test_a_folder_that_holds_something_else_is_refused(data, cache, tmp_path):
    (tmp_path / "thesis.tex").write_text("do not touch")
    with pytest.raises(HyMUNetError, match=r"not empty and holds no run \(thesis.tex\)"):
        run_quietly(data, tmp_path)


def test_an_output_that_is_a_file_is_refused(data, cache, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(HyMUNetError, match="cannot write into the folder"):
        run_quietly(data, tmp_path / "taken")


def test_early_stopping_waits_for_patience(data, cache, tmp_path):
    # a learning rate that cannot improve anything
    options = replace(OPTIONS, learning_rate=1e-12, epochs=6, patience=2, ema_decay=0.0)
    finished, _ = run_quietly(data, tmp_path / "stop", options)
    assert finished.epochs == finished.best_epoch + 2 < 6


def test_select_last_keeps_the_last_weights(data, cache, tmp_path):
    finished, _ = run_quietly(data, tmp_path / "last", replace(OPTIONS, select="last"))
    info = read_info(finished.folder.best)
    assert info["metrics"]["val"]["epoch"] == 3


def test_without_a_split_file_near_duplicates_stay_together(cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 10, size=(40, 48), seed=3)
    (source / "split.csv").unlink()
    for folder in ("images", "masks"):
        for path in list((source / folder).iterdir()):  # every picture twice
            (source / folder / f"copy-{path.name}").write_bytes(path.read_bytes())
    finished, _ = run_quietly(source, tmp_path / "run", replace(OPTIONS, epochs=1))
    split = load_split(finished.folder.split)
    parts = {id_: part for part in ("train", "val", "test") for id_ in getattr(split, part)}
    assert len(parts) == 20
    for id_ in parts:
        assert parts[id_] == parts[id_.removeprefix("copy-")]


def test_too_few_cases_for_a_split_say_how_many_are_needed(cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 4, size=(40, 48))
    (source / "split.csv").unlink()
    for folder in ("images", "masks"):
        for path in sorted((source / folder).iterdir())[2:]:
            path.unlink()
    with pytest.raises(HyMUNetError, match="at least 3"):
        run_quietly(source, tmp_path / "run")


def test_every_broken_case_is_named_before_training(data, cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    images = sorted((source / "images").iterdir())
    images[1].write_bytes(images[1].read_bytes()[:200])
    images[4].write_bytes(b"no picture at all")
    with pytest.raises(HyMUNetError, match="cannot be trained on as it is") as caught:
        run_quietly(source, tmp_path / "run")
    assert images[1].stem in str(caught.value)
    assert images[4].stem in str(caught.value)


def test_a_case_that_has_gone_since_the_split_is_named(uninterrupted, cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    options = replace(OPTIONS, epochs=1)
    run_quietly(source, tmp_path / "run", options)
    provenance = json.loads((tmp_path / "run" / "provenance.json").read_text())
    (tmp_path / "run" / "provenance.json").write_text(json.dumps(provenance | {"finished": False}))
    gone = sorted((source / "images").iterdir())[0]
    (source / "masks" / gone.name).unlink()
    gone.unlink()
    (source / "split.csv").unlink()
    with pytest.raises(HyMUNetError, match=r"1 case of .*split.json is no longer in the data"):
        run_quietly(source, tmp_path / "run", options)


def test_asking_for_a_gpu_that_is_not_there_is_refused(data, cache, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(HyMUNetError, match="no CUDA device"):
        run_quietly(data, tmp_path / "run", replace(OPTIONS, device="cuda"))


def test_pictures_in_arbitrary_units_are_normalised_by_their_own_statistics(cache, tmp_path):
    import numpy as np
    from PIL import Image

    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    for path in list((source / "images").iterdir()):
        grey = (
            np.asarray(Image.open(path).convert("L"), np.float32) * 16.0
        )  # 12-bit counts, as float
        Image.fromarray(grey).save(path.with_suffix(".tif"))
        path.unlink()
    finished, _ = run_quietly(source, tmp_path / "run", replace(OPTIONS, epochs=1))
    assert read_info(finished.folder.best)["preprocess"]["normalisation"] == "image"


def test_volumes_of_different_sizes_train_through_the_same_door(cache, tmp_path):
    import nibabel
    import numpy as np

    from hymunet.data.phantoms import draw_volume

    sizes = [(17, 20, 18), (16, 16, 16), (20, 17, 16), (16, 18, 17), (18, 16, 20), (16, 17, 18)]
    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    for i, size in enumerate(sizes):
        pixels, labels = draw_volume(i, size, channels=1, num_labels=3)
        for folder, array in (("images", pixels[0]), ("masks", labels)):
            volume = nibabel.Nifti1Image(array.transpose(2, 1, 0), np.diag([1.0, 1.0, 2.0, 1.0]))
            nibabel.save(volume, tmp_path / "data" / folder / f"case{i}.nii.gz")
    options = replace(OPTIONS, image_size=None, patch_size=(16, 16, 16), epochs=1, batch_size=2)
    finished, _ = run_quietly(tmp_path / "data", tmp_path / "run", options)
    prediction = Predictor(finished.folder.best)(tmp_path / "data" / "images" / "case0.nii.gz")
    assert prediction.mask.shape == sizes[0]
    assert prediction.spacing_mm == pytest.approx((2.0, 1.0, 1.0))


def test_data_that_are_refused_leave_the_folder_free_for_the_corrected_command(cache, tmp_path):
    import numpy as np
    from PIL import Image

    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    for path in sorted((source / "masks").iterdir()):
        mask = np.array(Image.open(path)) // 255
        mask[:4, :4] = 2  # a second structure in the corner
        Image.fromarray(mask).save(path)
    with pytest.raises(HyMUNetError, match=r"beyond the 1 structure (.|\n)*--structures 2"):
        run_quietly(source, tmp_path / "run", replace(OPTIONS, epochs=1, structures=1))
    run_quietly(source, tmp_path / "run", replace(OPTIONS, epochs=1))
    assert read_info(tmp_path / "run" / "best.safetensors")["architecture"]["num_classes"] == 3


def test_too_few_steps_are_warned_of(data, cache, tmp_path):
    _, said = run_quietly(data, tmp_path / "run", replace(OPTIONS, epochs=1))
    assert "3 optimisation steps in all are too few" in said


def test_a_diverged_epoch_is_not_kept(data, cache, tmp_path):
    options = replace(OPTIONS, learning_rate=1e30, weight_decay=0.0)
    with pytest.raises(HyMUNetError, match="lower --learning-rate"):
        run_quietly(data, tmp_path / "run", options)
    assert not (tmp_path / "run" / "best.safetensors").exists()
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_named_folders_are_part_of_the_settings(cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    (source / "images").rename(source / "photos")
    (source / "masks").rename(source / "outlines")
    options = replace(OPTIONS, epochs=1)
    folders = {"images": Path("photos"), "masks": Path("outlines")}
    fit(source, tmp_path / "run", options, **folders, console=Console(quiet=True))
    values = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (values["images"], values["masks"]) == ("photos", "outlines")
    (source / "others").symlink_to(source / "outlines")
    folders["masks"] = Path("others")
    with pytest.raises(HyMUNetError, match="masks is 'outlines' there and 'others' now"):
        fit(source, tmp_path / "run", options, **folders, console=Console(quiet=True))


def test_pictures_with_and_without_a_scale_are_not_mixed(cache, tmp_path):
    import numpy as np
    from PIL import Image

    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    path = sorted((source / "images").iterdir())[3]
    Image.fromarray(np.full((40, 48), 1000.0, np.float32)).save(path.with_suffix(".tif"))
    path.unlink()
    with pytest.raises(HyMUNetError, match=rf"different kinds: .*1 2-D float \({path.stem}\)"):
        run_quietly(source, tmp_path / "run")


def test_structures_that_occur_in_no_mask_are_refused(cache, tmp_path):
    import numpy as np
    from PIL import Image

    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    for path in (source / "masks").iterdir():
        Image.fromarray(np.array(Image.open(path)) // 255).save(path)
    with pytest.raises(HyMUNetError, match=r"class 2 \(value 2\) occurs in no mask"):
        run_quietly(source, tmp_path / "run", replace(OPTIONS, epochs=1, structures=2))


def test_new_cases_under_an_old_run_are_mentioned(cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 8, size=(40, 48))
    options = replace(OPTIONS, epochs=1)
    run_quietly(source, tmp_path / "run", options)
    for folder in ("images", "masks"):
        path = sorted((source / folder).iterdir())[0]
        (source / folder / "newcomer.png").write_bytes(path.read_bytes())
    with open(source / "split.csv", "a") as file:
        file.write("newcomer,train\n")
    _, said = run_quietly(source, tmp_path / "run", options)
    assert "1 case in no part of its split and not used" in said


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [("config.yaml", "", "no mapping"), ("provenance.json", "{", "is damaged")],
)
def test_damaged_bookkeeping_is_named(uninterrupted, data, cache, tmp_path, name, content, words):
    copy_run(uninterrupted, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content)
    with pytest.raises(HyMUNetError, match=words):
        run_quietly(data, tmp_path / "run")


def test_batches_of_one_that_batch_norm_cannot_use_are_refused(data, cache, tmp_path):
    with pytest.raises(HyMUNetError, match="raise --batch-size or --image-size"):
        run_quietly(data, tmp_path / "run", replace(OPTIONS, image_size=16, batch_size=1))
    run_quietly(data, tmp_path / "run", replace(OPTIONS, epochs=1))  # the folder is still free


def test_a_test_part_of_the_data_stays_and_val_is_drawn_from_the_rest(cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 12, size=(40, 48))
    ids = sorted(path.stem for path in (source / "images").iterdir())
    rows = [f"{id_},{'test' if i % 3 == 0 else 'train'}" for i, id_ in enumerate(ids)]
    (source / "split.csv").write_text("\n".join(["case,split", *rows]) + "\n")
    _, said = run_quietly(source, tmp_path / "run", replace(OPTIONS, epochs=1))
    split = load_split(tmp_path / "run" / "split.json")
    assert split.test == tuple(ids[::3])
    assert (len(split.val), len(split.train)) == (1, 7)
    assert sorted((*split.train, *split.val, *split.test)) == ids
    assert "the 4 test cases as given; train and val drawn from the others" in said


def test_a_split_file_may_name_train_and_test_only(cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 12, size=(40, 48))
    ids = sorted(path.stem for path in (source / "images").iterdir())
    table = tmp_path / "parts.csv"
    rows = [f"{id_},{'test' if i % 4 == 0 else 'train'}" for i, id_ in enumerate(ids[1:])]
    table.write_text("\n".join(["case,split", *rows]) + "\n")
    options = replace(OPTIONS, epochs=1)
    _, said = run_quietly(source, tmp_path / "run", options, split_file=table)
    split = load_split(tmp_path / "run" / "split.json")
    assert split.test == tuple(ids[1::4])
    assert (len(split.val), len(split.train)) == (1, 7)
    assert sorted((*split.train, *split.val, *split.test)) == ids[1:]
    assert "the 3 test cases as given; train and val drawn from the others" in said
    assert f"1 case in no part of it and not used: {ids[0]}" in said
    # a part that nobody can train on is refused, whatever else there is
    table.write_text(f"case,split\n{ids[0]},val\n{ids[1]},test\n")
    with pytest.raises(HyMUNetError, match=r"parts\.csv gives no case to train"):
        run_quietly(source, tmp_path / "other", options, split_file=table)


def test_the_shares_of_a_drawn_split_can_be_chosen(cache, tmp_path):
    source = write_phantoms(tmp_path / "drawn", 10, size=(40, 48))
    (source / "split.csv").unlink()
    options = replace(OPTIONS, epochs=1, val_share=0.2, test_share=0.4)
    finished, _ = run_quietly(source, tmp_path / "run", options)
    assert [len(getattr(finished.split, part)) for part in PARTS] == [4, 2, 4]
    finished, _ = run_quietly(source, tmp_path / "none", replace(options, test_share=0.0))
    assert finished.split.test == ()
