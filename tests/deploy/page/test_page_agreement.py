"""A trained model in the browser and in `hymunet predict`: the same masks, also of photographs."""

import numpy as np
import pytest
from PIL import Image

from hymunet.inference.predict import predict
from tests.deploy.page.conftest import needs_export, write_phantom

pytestmark = [pytest.mark.browser, pytest.mark.onnx, pytest.mark.slow]
MODEL = "isic2018-tiny"


@pytest.fixture(scope="module")
def trained(runtime, tmp_path_factory):
    needs_export()
    from hymunet.deploy.export import export

    folder = tmp_path_factory.mktemp("trained")
    return export(MODEL, format="web", output=folder, onnxruntime_web=runtime).path


def both(browser, trained, tmp_path, files):
    """Masks of the browser's downloads and of `hymunet predict`, (height, width) 0 and 255."""
    browser.forget_downloads()
    browser.open(trained.as_uri())
    browser.segment(*files)
    predict(*map(str, files), model=[MODEL], output=tmp_path / "masks")
    for i, file in enumerate(files):
        browser.run("hymunet.app.choose(hymunet.app.items[arguments[0]])", i)
        browser.click("save-mask")
        ours = np.asarray(Image.open(tmp_path / "masks" / f"{file.stem}.png"))
        yield np.asarray(Image.open(browser.saved(f"{file.stem}_mask.png"))), ours
    assert browser.console() == []


def report(kind, pairs):
    shares = [(theirs == ours).mean() for theirs, ours in pairs]
    print(f"{kind}: equal pixels, lowest of {len(shares)} pictures {min(shares):.5%}")
    return min(shares)


def test_pngs_of_any_size_get_the_same_mask(browser, trained, tmp_path):
    sizes = [(96, 128), (450, 600), (768, 1024), (101, 77), (128, 128)]
    files = [write_phantom(tmp_path / f"p{i}.png", i, size) for i, size in enumerate(sizes)]
    pairs = list(both(browser, trained, tmp_path, files))
    assert any((ours > 0).any() for _, ours in pairs)
    assert report("PNG", pairs) >= 0.999


def test_jpegs_get_nearly_the_same_mask(browser, trained, tmp_path):
    """Two decoders may round differently; docs/results.md has the figure."""
    files = [
        write_phantom(tmp_path / f"j{i}.jpg", i, (450, 600), quality=quality, subsampling=sampling)
        for i, (quality, sampling) in enumerate([(95, 0), (90, 2), (75, 2), (50, 2)])
    ]
    assert report("JPEG", list(both(browser, trained, tmp_path, files))) >= 0.995


def test_photographs_are_upright_in_both(browser, trained, tmp_path):
    files = []
    for orientation in (1, 3, 6, 8, 5):
        exif = Image.Exif()
        exif[0x0112] = orientation
        files.append(write_phantom(tmp_path / f"e{orientation}.jpg", 8, (300, 400), exif=exif))
    pairs = list(both(browser, trained, tmp_path, files))
    assert [ours.shape for _, ours in pairs] == [(300, 400), (300, 400), *[(400, 300)] * 3]
    assert all(theirs.shape == ours.shape for theirs, ours in pairs)
    assert report("JPEG turned by EXIF", pairs) >= 0.995
