"""MONAI bundles: `monai.bundle` runs them, and their masks are `predict`'s, byte for byte."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("ignite", reason="NOT TESTED: MONAI bundles need the extra `bundle`")
pytest.importorskip("fire", reason="NOT TESTED: MONAI bundles need the extra `bundle`")

from monai.bundle import ConfigWorkflow, verify_net_in_out

from hymunet import HyMUNet, pretrained_names
from hymunet.cli import main
from hymunet.data.phantoms import draw_lesion, draw_volume
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.deploy.bundle import inference_config
from hymunet.deploy.export import export
from hymunet.errors import HyMUNetError
from hymunet.inference.predict import predict
from hymunet.network.model_file import read_info, save_model
from hymunet.network.pretrained import pretrained_file

pytestmark = pytest.mark.bundle

NAME = pretrained_names()[-1]
SIZES = {"stages": "CM", "dims": (4, 8), "depths": (1, 1), "d_state": 3}
KINDS = {
    "squeeze": ({}, {"resize": "squeeze", "image_size": (48, 40)}),
    "letterbox, exclusive classes": (
        {"num_classes": 3, "activation": "softmax"},
        {"resize": "letterbox", "image_size": (40, 64)},
    ),
    "native, nested structures": ({"num_classes": 2}, {"normalisation": "image"}),
    "windows": ({}, {"resize": "window", "patch_size": (24, 32)}),
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Drawn lesions of several sizes, one in a folder below, one on its side by EXIF."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "below").mkdir()
    sizes = {"a.png": (60, 80), "b.jpg": (97, 51), "below/c.png": (33, 130)}
    for seed, (name, size) in enumerate(sizes.items()):
        picture = Image.fromarray(draw_lesion(seed, size).image.transpose(1, 2, 0))
        exif = picture.getexif()
        exif[0x0112] = 6 if name.endswith("jpg") else 1
        picture.save(folder / name, exif=exif)
    return folder


def toy(path: Path, sizes: dict, preprocess: dict, in_channels: int = 3, **info) -> Path:
    """An untrained model whose probabilities lie on both sides of what they are cut at."""
    torch.manual_seed(1)
    network = HyMUNet(in_channels, **(SIZES | sizes)).eval()
    with torch.no_grad():
        network.head.logits.weight *= 20
    values = {"mean": (0.5,) * in_channels, "std": (0.25,) * in_channels, "multiple": 4}
    config = PreprocessConfig(**(values | preprocess))
    return save_model(path, network, {"preprocess": Preprocess(config).to_dict(), **info})


def run(bundle: Path, images: Path, output: Path, **override) -> ConfigWorkflow:
    """The bundle, by MONAI, in this process."""
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        logging_file=False,
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(output),
        **override,
    )
    workflow.initialize()
    workflow.run()
    return workflow


def files(folder: Path) -> dict[str, bytes]:
    """Masks by their places."""
    kinds = ("*.png", "*.nii.gz")
    found = sorted(path for kind in kinds for path in folder.rglob(kind))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_monai_runs_a_packaged_model_as_predict_does(pictures, tmp_path):
    bundle = tmp_path / "bundle"
    assert main(["export", NAME, "--format", "bundle", "--output", str(bundle)]) == 0
    command = [sys.executable, "-m", "monai.bundle", "run", "--bundle_root", str(bundle)]
    command += ["--config_file", str(bundle / "configs" / "inference.json")]
    command += ["--dataset_dir", str(pictures), "--output_dir", str(tmp_path / "monai")]
    command += ["--device", "$torch.device('cpu')"]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    predict(str(pictures), model=[NAME], output=tmp_path / "ours", device="cpu")
    ours = files(tmp_path / "ours")
    assert set(ours) == {"a.png", "b.png", "below/c.png"}
    assert files(tmp_path / "monai") == ours
    stored = (bundle / "models" / "model.safetensors").read_bytes()
    assert stored == pretrained_file(NAME).read_bytes()
    assert sorted(path.relative_to(bundle).as_posix() for path in bundle.rglob("*.*")) == [
        "configs/inference.json", "configs/logging.conf", "configs/metadata.json",
        "docs/README.md", "models/model.safetensors",
    ]  # fmt: skip
    assert read_info(NAME)["licence"] in (bundle / "LICENSE").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model(kind, pictures, tmp_path):
    model = toy(tmp_path / "toy.safetensors", *KINDS[kind])
    bundle = export(model, format="bundle", output=tmp_path / "bundle").path
    workflow = run(bundle, pictures, tmp_path / "monai")
    assert workflow.check_properties() == []
    predict(str(pictures), model=[model], output=tmp_path / "ours")
    ours = files(tmp_path / "ours")
    assert files(tmp_path / "monai") == ours
    held = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "ours").rglob("*.png"))]
    assert any(len(np.unique(mask)) > 1 for mask in held)  # else equality would say nothing


def test_volumes(tmp_path):
    nibabel = pytest.importorskip("nibabel", reason="NOT TESTED: needs the extra `volumes`")
    sizes, window = {"spatial_dims": 3, "conv_norm": "group"}, {"patch_size": (16, 16, 16)}
    read = {"resize": "window", "normalisation": "image", **window, "spacing_mm": (2.0, 1.0, 1.0)}
    model = toy(tmp_path / "toy.safetensors", sizes, read, in_channels=1)
    image = draw_volume(0, (20, 24, 18), channels=1)[0][0]
    (tmp_path / "scans").mkdir()
    affine = np.diag([1.5, 0.8, 2.5, 1.0])
    nibabel.save(nibabel.Nifti1Image(image.T, affine), tmp_path / "scans" / "one.nii.gz")
    bundle = export(model, format="bundle", output=tmp_path / "bundle").path
    run(bundle, tmp_path / "scans", tmp_path / "monai")
    predict(str(tmp_path / "scans"), model=[model], output=tmp_path / "ours")
    assert files(tmp_path / "monai") == files(tmp_path / "ours")
    assert set(files(tmp_path / "ours")) == {"one.nii.gz"}
    mask = np.asarray(nibabel.load(tmp_path / "ours" / "one.nii.gz").dataobj)
    assert len(np.unique(mask)) > 1


def test_the_values_post_processing_and_threshold_of_the_model_file(pictures, tmp_path):
    told = {"threshold": 0.45, "label_values": [0, 7], "classes": ["mole"]}
    told["postprocess"] = {"mole": ["keep_largest"]}
    model = toy(tmp_path / "toy.safetensors", *KINDS["squeeze"], **told)
    bundle = export(model, format="bundle", output=tmp_path / "bundle").path
    run(bundle, pictures, tmp_path / "monai")
    predict(str(pictures), model=[model], output=tmp_path / "ours")
    assert files(tmp_path / "monai") == files(tmp_path / "ours")
    run(bundle, pictures, tmp_path / "monai", threshold=0.6)
    predict(str(pictures), model=[model], output=tmp_path / "other", threshold=0.6)
    assert files(tmp_path / "monai") == files(tmp_path / "other") != files(tmp_path / "ours")


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_is_what_the_metadata_say(kind, tmp_path):
    model = toy(tmp_path / "toy.safetensors", *KINDS[kind])
    configs = export(model, format="bundle", output=tmp_path / "bundle").path / "configs"
    verify_net_in_out(
        net_id="network_def",
        meta_file=str(configs / "metadata.json"),
        config_file=str(configs / "inference.json"),
        device="cpu",
    )


def test_metadata_have_what_the_specification_asks_for(tmp_path):
    done = export(NAME, format="bundle", output=tmp_path / "bundle")
    metadata = json.loads((done.path / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata == done.metadata
    text = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task",
            "description", "authors", "copyright")  # fmt: skip
    assert all(isinstance(metadata[name], str) and metadata[name] for name in text)
    assert set(metadata["required_packages_version"]) == {"hymunet", "pytorch-ignite", "fire"}
    assert "CC-BY-NC-4.0" in metadata["copyright"]
    scored = read_info(NAME)["card"]["evaluations"][0]["classes"]["lesion"]["per_image"]
    assert metadata["eval_metrics"]["mean_dice"] == round(scored["dice"]["mean"], 4)
    formats = metadata["network_data_format"]
    side = max(read_info(NAME)["preprocess"]["image_size"])
    assert formats["inputs"]["image"]["spatial_shape"] == [side, side]
    assert formats["outputs"]["pred"]["channel_def"] == {"0": "lesion"}
    for tensor in (formats["inputs"]["image"], formats["outputs"]["pred"]):
        assert {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range"} <= (
            tensor.keys()
        )


def test_no_path_of_this_machine_and_no_pickle_is_in_a_bundle(tmp_path):
    folder = export(NAME, format="bundle", output=tmp_path / "bundle").path
    for path in folder.rglob("*.*"):
        content = path.read_bytes()
        assert str(tmp_path).encode() not in content
        assert content[:1] != b"\x80"
        assert not content.startswith(b"PK")


def test_another_network_than_the_weights_is_refused(pictures, tmp_path):
    model = toy(tmp_path / "toy.safetensors", *KINDS["squeeze"])
    bundle = export(model, format="bundle", output=tmp_path / "bundle").path
    other = inference_config(read_info(model))["network_def"] | {"d_state": 5}
    with pytest.raises(RuntimeError) as error:
        run(bundle, pictures, tmp_path / "monai", network_def=other)
    causes = []
    reason: BaseException | None = error.value
    while reason is not None:
        causes.append(str(reason))
        reason = reason.__cause__
    assert any("do not belong to the architecture" in text for text in causes)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "bundle", "precision": "float16"}, "is not for --format bundle"),
        ({"format": "hub", "images": 3}, "leave --check and --images out"),
        ({"format": "bundle", "check": Path("data")}, "leave --check and --images out"),
        ({"format": "hub", "portable": True}, "is for --format torch"),
    ],
)
def test_options_that_fit_nothing_are_refused(options, words, tmp_path):
    with pytest.raises(HyMUNetError, match=words):
        export(NAME, output=tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_broken_image_does_not_stop_the_others(pictures, tmp_path):
    """By the command of the bundle's own README: all other masks, a last word, exit code 1."""
    model = toy(tmp_path / "toy.safetensors", *KINDS["squeeze"])
    bundle = export(model, format="bundle", output=tmp_path / "my bundle").path
    images = tmp_path / "pictures"
    shutil.copytree(pictures, images)
    (images / "b0.png").write_bytes(b"")
    readme = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    told = next(line for line in readme.splitlines() if line.startswith("python "))
    places = {"PHOTOS": str(images), "masks": str(tmp_path / "monai"), "python": sys.executable}
    command = [places.get(word, word) for word in shlex.split(told)]
    done = subprocess.run(
        command, cwd=bundle, env=os.environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    first, second = done.stderr.splitlines()[-2:]
    assert first == "error: 1 image could not be segmented:"
    assert str(images / "b0.png") in second
    assert predict(str(images), model=[model], output=tmp_path / "ours").exit_code == 1
    assert files(tmp_path / "monai") == files(tmp_path / "ours")
    assert set(files(tmp_path / "ours")) == {"a.png", "b.png", "below/c.png"}


def test_all_images_broken(tmp_path):
    model = toy(tmp_path / "toy.safetensors", *KINDS["squeeze"])
    bundle = export(model, format="bundle", output=tmp_path / "bundle").path
    (tmp_path / "images").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / f"{name}.png").write_bytes(b"no picture")
    workflow = run(bundle, tmp_path / "images", tmp_path / "monai")
    with pytest.raises(SystemExit, match=r"2 images could not(.|\n)*a\.png(.|\n)*b\.png"):
        workflow.finalize()
    assert files(tmp_path / "monai") == {}


def test_the_command_that_is_printed_can_be_pasted(tmp_path, capsys):
    bundle = tmp_path / "my bundle"
    assert main(["export", NAME, "--format", "bundle", "--output", str(bundle)]) == 0
    words = shlex.split(capsys.readouterr().err.partition("to run it: ")[2])
    assert words[words.index("--bundle_root") + 1] == bundle.as_posix()
    config = words[words.index("--config_file") + 1]
    assert Path(config) == bundle / "configs" / "inference.json"
