"""Exported files against `Predictor`: every policy, kind of model and runtime, and the refusals."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from hymunet import Predictor
from hymunet.data.phantoms import draw_lesion, write_phantoms
from hymunet.deploy import parity
from hymunet.deploy.export import export
from hymunet.errors import HyMUNetError
from hymunet.inference.predict import predict

pytestmark = pytest.mark.onnx

POLICIES = {
    "squeeze": {"resize": "squeeze", "image_size": (48, 40)},
    "letterbox": {"resize": "letterbox", "image_size": (40, 64)},
    "native": {"resize": "native", "normalisation": "image"},
}
# (batch, height, width): smaller and larger than the network's input, odd, its very size
PICTURES = [(1, 37, 53), (2, 48, 40), (1, 100, 91), (3, 8, 8), (1, 5, 130)]


def pictures(batch, height, width, channels=3, seed=0):
    drawn = [draw_lesion(seed + i, (height, width)).image for i in range(batch)]
    return np.stack(drawn)[:, :channels]


def run(path, images):
    """Outputs of an ONNX file by name, from (batch, channels, height, width)."""
    session = onnxruntime.InferenceSession(path)
    names = [output.name for output in session.get_outputs()]
    fed = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    return dict(zip(names, session.run(None, {"image": fed}), strict=True))


@pytest.fixture(scope="session")
def exported(save_toy):
    """Model file and ONNX file of a policy, made once."""
    made = {}

    def get(policy):
        if policy not in made:
            model = save_toy(policy, preprocess=POLICIES[policy], classes=["lesion"])
            made[policy] = (model, export(model).path)
        return made[policy]

    return get


@pytest.mark.parametrize(
    "policy", ["squeeze", "letterbox", pytest.param("native", marks=pytest.mark.slow)]
)
def test_pictures_of_any_size_and_number(policy, exported):
    model, path = exported(policy)
    predictor = Predictor(model, postprocess=False)
    for shape in PICTURES:
        images = pictures(*shape)
        got = run(path, images)
        expected = predictor.probability(torch.from_numpy(images)).numpy()
        assert got["probability"].shape == expected.shape
        assert np.abs(got["probability"] - expected).max() < 1e-5
        masks = np.stack([predictor.cut(one) for one in expected])
        assert got["mask"].dtype == np.uint8
        assert set(np.unique(got["mask"])) <= {0, 255}
        # within rounding of the threshold either side is right
        clear = np.abs(expected[:, 0] - 0.5) > 1e-5
        assert np.array_equal(got["mask"][clear], 255 * masks[clear])
        assert 0.1 < masks.mean() < 0.9 or policy != "squeeze"  # both sides are there to be told


def test_what_a_file_says_of_itself(exported):
    model, path = exported("letterbox")
    file = onnx.load(str(path))
    told = json.loads({entry.key: entry.value for entry in file.metadata_props}["hymunet"])
    from hymunet.network.model_file import model_identity

    assert told["model"] == model_identity(model)
    assert told["classes"] == ["lesion"]
    assert (told["activation"], told["threshold"], told["nested"]) == ("sigmoid", 0.5, True)
    assert told["in_channels"] == 3
    assert told["agreement"]["differing"] <= 1e-4 * told["agreement"]["pixels"]
    assert [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim] == [
        "batch", "height", "width", 3,
    ]  # fmt: skip
    assert file.opset_import[0].version >= 18
    # nor paths of the machine that wrote it
    assert b"/src/" not in path.read_bytes()
    assert b"site-packages" not in path.read_bytes()


@pytest.mark.slow
def test_exclusive_classes_in_the_values_of_their_data(save_toy):
    model = save_toy(
        "softmax", num_classes=3, activation="softmax", label_values=[0, 4, 2],
        preprocess=POLICIES["squeeze"],
    )  # fmt: skip
    predictor, path = Predictor(model, postprocess=False), export(model).path
    images = pictures(2, 61, 47)
    got = run(path, images)
    expected = predictor.probability(torch.from_numpy(images)).numpy()
    masks = np.stack([predictor.cut(one) for one in expected])
    assert len(np.unique(masks)) > 1
    assert (got["mask"] == np.array([0, 4, 2], np.uint8)[masks]).mean() > 0.9999


@pytest.mark.slow
def test_nested_structures_at_a_threshold_of_their_own(save_toy):
    model = save_toy("nested", num_classes=2, threshold=0.45, preprocess=POLICIES["native"])
    predictor, path = Predictor(model, postprocess=False), export(model).path
    images = pictures(1, 60, 80)
    masks = predictor.cut(predictor.probability(torch.from_numpy(images)).numpy()[0])
    assert len(np.unique(masks)) > 1
    assert masks.max() == 2
    assert (run(path, images)["mask"][0] == masks).mean() > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float16", "int8"])
def test_fewer_bits_make_a_smaller_file_that_says_what_it_costs(precision, save_toy, monkeypatch):
    from hymunet.deploy import precision as module

    monkeypatch.setattr(module, "HALF_ABOVE", 16)  # else nothing of so small a network is large
    model = save_toy("bits", preprocess=POLICIES["squeeze"])
    full = export(model)
    small = export(model, precision=precision, output=model.with_name("small.onnx"), most_loss=0.2)
    weights = {
        path: sum(len(t.raw_data) for t in onnx.load(str(path)).graph.initializer)
        for path in (full.path, small.path)
    }
    assert weights[small.path] < 0.7 * weights[full.path]
    assert small.metadata["precision"] == precision
    assert 0 < small.agreement.largest < 0.05
    assert small.agreement.loss == pytest.approx(1 - np.mean(small.agreement.same))
    with pytest.raises(HyMUNetError, match=rf"weights in {precision} cost .* nothing was written"):
        export(model, precision=precision, output=model.with_name("none.onnx"), most_loss=-1)
    assert not model.with_name("none.onnx").exists()


def test_a_file_that_disagrees_is_not_written(save_toy, monkeypatch):
    model = save_toy("wrong", preprocess=POLICIES["squeeze"])
    told = parity.compare

    def of_another(predictor, file, samples, data, done):
        network = predictor.members[0].network
        with torch.no_grad():  # the model that the file is compared with, not the one exported
            network.head.logits.bias += 0.3
        return told(predictor, file, samples, data, done)

    monkeypatch.setattr(parity, "compare", of_another)
    with pytest.raises(HyMUNetError, match=r"disagrees with the model.*nothing was written"):
        export(model)
    assert [path.name for path in model.parent.iterdir()] == ["wrong.safetensors"]


@pytest.mark.slow
def test_the_loss_is_measured_on_data(save_toy, tmp_path, capsys):
    data = write_phantoms(tmp_path / "data", 8, (48, 64), val_fraction=0.3, test_fraction=0.3)
    model = save_toy("checked", preprocess=POLICIES["squeeze"])
    done = export(model, check=data, images=3, output=tmp_path / "checked.onnx", json=True)
    assert done.agreement.images == 3
    assert len(done.agreement.model) == 3
    assert done.agreement.loss == pytest.approx(0, abs=1e-4)
    assert json.loads(capsys.readouterr().out)["agreement"]["dice"] == pytest.approx(
        np.mean(done.agreement.model), abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("patch", [(8, 12, 16), None], ids=["windows", "native"])
def test_volumes_are_predicted_by_the_file_as_by_torch(patch, save_toy):
    preprocess = (
        {"resize": "native"} if patch is None else {"resize": "window", "patch_size": patch}
    )
    model = save_toy(
        "volumes", in_channels=2, num_classes=2, activation="softmax", spatial_dims=3,
        preprocess={**preprocess, "normalisation": "image"},
    )  # fmt: skip
    path = export(model).path
    from hymunet.data.phantoms import draw_volume

    volume = draw_volume(3, (13, 22, 18), 2, 2)[0]
    expected, got = Predictor(model)(volume), Predictor(path)(volume)
    assert np.abs(expected.probability - got.probability).max() < 1e-5
    assert (expected.mask == got.mask).mean() > 0.9999
    tta = [Predictor(one, tta=True)(volume).probability for one in (model, path)]
    assert np.abs(tta[0] - tta[1]).max() < 1e-5


def test_a_program_of_torch_has_the_same_interface(save_toy):
    model = save_toy("program", preprocess=POLICIES["squeeze"])
    path = export(model, format="torch").path
    told = {"hymunet.json": ""}
    program = torch.export.load(path, extra_files=told).module()
    assert json.loads(told["hymunet.json"])["interface"] == "picture"
    predictor = Predictor(model, postprocess=False)
    for shape in PICTURES[:3]:
        images = torch.from_numpy(pictures(*shape))
        probability, mask = program(images.permute(0, 2, 3, 1).contiguous())
        expected = predictor.probability(images)
        torch.testing.assert_close(probability, expected, rtol=0, atol=1e-6)
        assert ((mask == 255) == (expected[:, 0] >= 0.5)).float().mean() > 0.9999


def test_predict_writes_the_same_files(exported, tmp_path):
    from PIL import Image

    model, path = exported("letterbox")
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(37, 53), (64, 40)]):
        picture = draw_lesion(i, size).image.transpose(1, 2, 0)
        Image.fromarray(picture).save(tmp_path / "in" / f"{i}.png")
    ways = {"torch": (model, None), "beside": (model, "onnx"), "onnx": (path, None)}
    for name, (of, runtime) in ways.items():
        report = predict(
            str(tmp_path / "in"), model=[of], runtime=runtime, output=tmp_path / name,
            overlay=True, probability=True,
        )  # fmt: skip
        assert report.exit_code == 0
    names = sorted(p.name for p in (tmp_path / "torch").iterdir())
    for other in ("beside", "onnx"):
        assert sorted(p.name for p in (tmp_path / other).iterdir()) == names
        for name in ("0.png", "1.png", "0_overlay.png"):
            one, two = (np.asarray(Image.open(tmp_path / d / name)) for d in ("torch", other))
            assert (one == two).mean() > 0.9999
    several = Predictor([model, path])  # a mean over runtimes
    image = draw_lesion(0, (37, 53)).image
    assert np.abs(several(image).probability - Predictor(model)(image).probability).max() < 1e-5


def test_refusals(exported, save_toy, tmp_path):
    _, path = exported("squeeze")
    image = draw_lesion(0, (37, 53)).image
    with pytest.raises(HyMUNetError, match=r"pictures of 8 bits.*--runtime torch"):
        Predictor(path)(image.astype(np.uint16))
    with pytest.raises(HyMUNetError, match="test-time augmentation needs --runtime torch"):
        Predictor(path, tta=True)(image)
    with pytest.raises(HyMUNetError, match="which torch does not run"):
        Predictor(path, runtime="torch")
    with pytest.raises(HyMUNetError, match="no runtime 'tensorrt'; expected torch or onnx"):
        Predictor(path, runtime="tensorrt")
    other = save_toy("other", preprocess=POLICIES["squeeze"], threshold=0.3)
    with pytest.raises(HyMUNetError, match=r"no ONNX file .*hymunet export .*--format onnx"):
        Predictor(other, runtime="onnx")
    other.with_suffix(".onnx").write_bytes(path.read_bytes())
    with pytest.raises(HyMUNetError, match="other weights, another threshold"):
        Predictor(other, runtime="onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(HyMUNetError, match=r"cannot load .*broken.onnx"):
        Predictor(broken)
    file = onnx.load(str(path))
    del file.metadata_props[:]
    onnx.save(file, str(broken))
    with pytest.raises(HyMUNetError, match="no 'hymunet' metadata"):
        Predictor(broken)
    from hymunet.network.model_file import read_info

    with pytest.raises(HyMUNetError, match="is an ONNX file"):
        read_info(path)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"format": "tflite"}, "no format 'tflite'; expected onnx, torch, web, bundle, hub"),
        ({"precision": "int4"}, "no precision 'int4'; expected float32, float16, int8"),
        ({"format": "torch", "precision": "int8"}, "is not for --format torch"),
        ({"portable": True}, "is for --format torch"),
        ({"images": 0}, "1 or more, not 0"),
        ({"output": "model.pt2"}, r"ends in .onnx, but --output is model.pt2"),
    ],
)
def test_options_are_checked_before_the_work(options, words, exported):
    if "output" in options:
        from pathlib import Path

        options = {"output": Path(options["output"])}
    with pytest.raises(HyMUNetError, match=words):
        export(exported("squeeze")[0], **options)
