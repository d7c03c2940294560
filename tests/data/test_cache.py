"""The cache: decoded once, never stale, never half an entry, every broken case named."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from safetensors import safe_open
from safetensors.torch import save

from hymunet.data.cache import CaseCache, default_cache_folder
from hymunet.data.case import Case
from hymunet.data.case_hash import case_hash
from hymunet.data.preprocess import Preprocess, PreprocessConfig
from hymunet.errors import HyMUNetError


def picture(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Pillow.fromarray(array).save(path)
    return path


def make_case(folder: Path, number: int = 0, size=(30, 41)) -> Case:
    """A picture of noise with a mask whose area depends on `number`."""
    image = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, np.uint8)
    mask[: 3 + number % 20] = 255
    return Case(
        f"case_{number:02d}",
        (picture(folder / "images" / f"{number}.png", image),),
        picture(folder / "masks" / f"{number}.png", mask),
    )


def make_cache(folder: Path, image_size=(16, 24), resize="squeeze", **options) -> CaseCache:
    config = PreprocessConfig(image_size, resize, multiple=8)
    return CaseCache(Preprocess(config), **{"in_channels": 3, "num_labels": 2, **options},
                     folder=folder)  # fmt: skip


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def put(path: Path, content: bytes) -> None:
    """Replaces a file: writing into it would pull the memory from under tensors that map it."""
    path.unlink()
    path.write_bytes(content)


def rewrite(entry: Path, value: int) -> None:
    """Puts an image of one value into an entry, whose facts stay."""
    with safe_open(entry, framework="pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        facts = file.metadata()["facts"]
    tensors["image"].fill_(value)
    put(entry, save(tensors, {"facts": facts}))


# --- what an entry holds ----------------------------------------------------------------------


def test_facts_are_those_of_the_decoded_files(tmp_path):
    case = make_case(tmp_path, 4)
    seen = []
    (facts,) = make_cache(tmp_path / "cache").prepare([case], lambda: seen.append(1))
    pixels = np.asarray(Pillow.open(case.channels[0])).transpose(2, 0, 1)
    assert facts.id == "case_04"
    assert facts.size == (30, 41)
    assert facts.foreground == pytest.approx(7 / 30)
    assert facts.notes == ("values 0 and 255 read as 0 and 1",)
    assert facts.sha256 == case_hash(pixels)
    # the fingerprint spelled out: it stands in model files, so it must never change
    expected = hashlib.sha256(b"|u1 (3, 30, 41) " + pixels.tobytes()).hexdigest()
    assert facts.sha256 == expected
    assert seen == [1]


def test_entries_are_the_resized_case(tmp_path):
    case = make_case(tmp_path)
    pixels = torch.from_numpy(np.asarray(Pillow.open(case.channels[0])).transpose(2, 0, 1).copy())
    cache = make_cache(tmp_path / "cache")
    cached = cache.load(case)
    assert cached.image.dtype == cached.label.dtype == cached.valid.dtype == torch.uint8
    exact = cache.preprocess.resize(pixels[None].float())[0]
    torch.testing.assert_close(cached.image.float(), exact, atol=0.5001, rtol=0)
    mask = torch.zeros(1, 30, 41, dtype=torch.uint8)
    mask[:, :3] = 1
    assert torch.equal(cached.label, cache.preprocess.resize_labels(mask, 2)[0])
    assert torch.equal(cached.valid, torch.ones(16, 24, dtype=torch.uint8))
    native = make_cache(tmp_path / "cache", None, "native").load(case)
    assert torch.equal(native.image, pixels)
    assert torch.equal(native.label, mask[0])


def test_the_valid_area_is_kept_and_never_taken_for_the_label(tmp_path):
    case = make_case(tmp_path)
    area = np.zeros((30, 41), np.uint8)
    area[:, 20:] = 255
    case = replace(case, valid=picture(tmp_path / "valid.png", area))
    cache = make_cache(tmp_path / "cache", None, "native")
    cached = cache.load(case)
    np.testing.assert_array_equal(cached.valid.numpy(), area // 255)
    assert cached.label[:3].all()
    without = cache.load(replace(case, valid=None))
    assert without.valid.all()
    # the same files in other roles are another case
    swapped = cache.load(replace(case, label=case.valid, valid=case.label))
    assert torch.equal(swapped.valid, cached.label)
    with pytest.raises(HyMUNetError, match=r"has no mask"):
        cache.load(replace(case, label=None, valid=case.label))


def test_values_of_16_bit_and_float_images_are_not_rounded(tmp_path):
    case = make_case(tmp_path)
    grey = np.random.default_rng(0).integers(0, 65536, (30, 41), dtype=np.uint16)
    case = replace(case, channels=(picture(tmp_path / "grey.png", grey),))
    cached = make_cache(tmp_path / "cache", None, "native", in_channels=1).load(case)
    assert cached.image.dtype == torch.float32
    np.testing.assert_allclose(cached.image[0].numpy() * 65535, grey, rtol=1e-6)
    values = np.random.default_rng(0).normal(0, 500, (6, 5, 4)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 3, (6, 5, 4), dtype=np.uint8)
    for name, array in (("volume", values), ("labels", labels)):
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii.gz")
    case = Case("v", (tmp_path / "volume.nii.gz",), tmp_path / "labels.nii.gz")
    cache = make_cache(tmp_path / "cache", None, "native", in_channels=1, num_labels=3)
    cached = cache.load(case)
    np.testing.assert_array_equal(cached.image[0].numpy(), values.T)
    np.testing.assert_array_equal(cached.label.numpy(), labels.T)
    assert cache.facts(case).size == (4, 5, 6)


# --- once, and never stale --------------------------------------------------------------------


def test_a_second_time_nothing_is_decoded(tmp_path):
    cases = [make_case(tmp_path, n) for n in range(3)]
    first = make_cache(tmp_path / "cache").prepare(cases)
    assert [fact.id for fact in first] == [case.id for case in cases]
    files = entries(tmp_path / "cache")
    assert len(files) == 3
    assert all(path.suffix == ".safetensors" for path in files)
    for path in files:
        rewrite(path, 77)
    again = make_cache(tmp_path / "cache")
    assert again.prepare(cases) == first  # facts stand in the entries
    for case in cases:
        assert (again.load(case).image == 77).all()  # so no file was decoded
    assert entries(tmp_path / "cache") == files


@pytest.mark.parametrize("which", ["image", "mask", "time only"])
def test_a_changed_file_is_read_again(tmp_path, which):
    case = make_case(tmp_path)
    cache = make_cache(tmp_path / "cache", None, "native")
    before, facts = cache.load(case), cache.facts(case)
    for path in entries(tmp_path / "cache"):
        rewrite(path, 77)
    path = case.label if which == "mask" else case.channels[0]
    status = path.stat()
    if which == "image":
        picture(path, np.full((30, 41, 3), 9, np.uint8))
    elif which == "mask":
        picture(path, np.full((30, 41), 255, np.uint8))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000))
    after, new_facts = cache.load(case), cache.facts(case)
    assert len(entries(tmp_path / "cache")) == 2
    assert (after.image == 9).all() if which == "image" else torch.equal(after.image, before.image)
    assert after.label.all() == (which == "mask")
    assert (new_facts.sha256 != facts.sha256) == (which == "image")
    assert (new_facts.foreground == 1.0) == (which == "mask")


def test_settings_do_not_mix(tmp_path):
    case = make_case(tmp_path)
    for number, (options, size) in enumerate(
        [
            ({"image_size": (16, 24)}, (3, 16, 24)),
            ({"image_size": (24, 16)}, (3, 24, 16)),
            ({"image_size": (16, 24), "resize": "letterbox"}, (3, 16, 22)),
            ({"image_size": None, "resize": "native"}, (3, 30, 41)),
            ({"image_size": (16, 24), "in_channels": 1}, (1, 16, 24)),
        ],
        1,
    ):
        cache = make_cache(tmp_path / "cache", **options)
        assert tuple(cache.load(case).image.shape) == size
        assert tuple(cache.load(case).label.shape) == size[1:]
        assert len(entries(tmp_path / "cache")) == number
    # a mask of 0 and 255 has no third class, even if an entry for two classes lies there
    with pytest.raises(HyMUNetError, match=r"expected 0 to 2 for 3 classes"):
        make_cache(tmp_path / "cache", num_labels=3).load(case)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.999])
@pytest.mark.parametrize("first", ["facts", "load"])
def test_an_entry_cut_short_is_made_again(tmp_path, first, share):
    case = make_case(tmp_path)
    cache = make_cache(tmp_path / "cache")
    facts, cached = cache.facts(case), cache.load(case)
    (path,) = entries(tmp_path / "cache")
    whole = path.read_bytes()
    put(path, whole[: int(share * len(whole))])
    getattr(cache, first)(case)
    assert path.read_bytes() == whole
    assert cache.facts(case) == facts
    assert torch.equal(cache.load(case).image, cached.image)


def test_an_entry_of_something_else_is_made_again(tmp_path):
    case = make_case(tmp_path)
    cache = make_cache(tmp_path / "cache")
    facts = cache.facts(case)
    (path,) = entries(tmp_path / "cache")
    for metadata in (None, {"other": "x"}, {"facts": "{"}, {"facts": "[]"}):
        put(path, save({"other": torch.zeros(3)}, metadata))
        assert cache.facts(case) == facts
        put(path, save({"other": torch.zeros(3)}, metadata))
        assert cache.load(case).image.shape == (3, 16, 24)


# --- what goes wrong --------------------------------------------------------------------------


def test_all_broken_cases_are_named_with_their_reasons(tmp_path):
    cases = [make_case(tmp_path, n) for n in range(15)]
    for n in range(12):
        image, mask = cases[n].channels[0], cases[n].label
        if n % 4 == 0:
            image.write_bytes(image.read_bytes()[:200])
        elif n % 4 == 1:
            picture(mask, np.zeros((30, 40), np.uint8))
        elif n % 4 == 2:
            picture(mask, np.full((30, 41), 7, np.uint8))
        else:
            image.unlink()
    seen = []
    with pytest.raises(HyMUNetError) as caught:
        make_cache(tmp_path / "cache").prepare(cases, lambda: seen.append(1))
    lines = str(caught.value).split("\n")
    assert lines[0] == "12 of 15 cases cannot be used:"
    assert [line.split(":")[0] for line in lines[1:11]] == [f"  case_{n:02d}" for n in range(10)]
    assert lines[11:] == ["  and 2 more"]
    reasons = (
        "png is broken or cut short",
        "has (30, 40); expected the same",
        "holds 1 values (7)",
        "it was there when the data were listed",
    )
    for n, line in enumerate(lines[1:11]):
        assert reasons[n % 4] in line
    assert len(seen) == 15
    # the others are prepared, and nothing half-written lies about
    assert len(entries(tmp_path / "cache")) == 3
    assert len(make_cache(tmp_path / "cache").prepare(cases[12:])) == 3


def test_few_broken_cases_end_the_list(tmp_path):
    cases = [make_case(tmp_path, n) for n in range(3)]
    cases[1].channels[0].write_bytes(b"")
    with pytest.raises(HyMUNetError, match=r"^1 of 3 .*:\n  case_01: .*1.png is empty[^\n]*$"):
        make_cache(tmp_path / "cache").prepare(cases)


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(HyMUNetError, match=r"cannot be kept in .*file.*set HYMUNET_CACHE"):
        make_cache(tmp_path / "file" / "cache")
    cache = make_cache(tmp_path / "cache")
    for number in range(256):  # where the entry's folder would be
        (tmp_path / "cache" / f"{number:02x}").touch()
    with pytest.raises(HyMUNetError, match=r"case_00: the cache .*set HYMUNET_CACHE"):
        cache.prepare([make_case(tmp_path)])


# --- where it lies ----------------------------------------------------------------------------


def test_the_environment_says_where(tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    assert default_cache_folder() == tmp_path / "own"
    monkeypatch.setenv("HYMUNET_CACHE", "~/mine")
    assert default_cache_folder() == tmp_path / "home" / "mine"
    for unset in ("", None):
        monkeypatch.setenv("HYMUNET_CACHE", "")
        if unset is None:
            monkeypatch.delenv("HYMUNET_CACHE")
        assert default_cache_folder() == tmp_path / "xdg" / "hymunet"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache_folder() == tmp_path / "home" / ".cache" / "hymunet"
    monkeypatch.setenv("HYMUNET_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(HyMUNetError, match=r"no home folder.*set HYMUNET_CACHE"):
        default_cache_folder()


def test_the_cache_lies_there(tmp_path, monkeypatch):
    monkeypatch.setenv("HYMUNET_CACHE", str(tmp_path / "a" / "b"))
    case = make_case(tmp_path)
    make_cache(None).prepare([case])
    assert len(entries(tmp_path / "a" / "b")) == 1


def test_another_reading_of_the_same_mask_is_another_entry(tmp_path):
    case = make_case(tmp_path)
    stored = np.zeros((30, 41), np.uint8)
    stored[:10], stored[20:] = 1, 2
    case = replace(case, label=picture(tmp_path / "stored.png", stored))
    cache = make_cache(tmp_path / "cache", None, "native", num_labels=3)
    turned = replace(case, label_map=((0, 0), (1, 2), (2, 1)))
    half = replace(case, ignore_label=2)
    np.testing.assert_array_equal(cache.load(case).label.numpy(), stored)
    np.testing.assert_array_equal(cache.load(turned).label.numpy(), np.array([0, 2, 1])[stored])
    cached = cache.load(half)
    np.testing.assert_array_equal(cached.label.numpy(), stored * (stored < 2))
    np.testing.assert_array_equal(cached.valid.numpy(), stored < 2)
    other = cache.load(replace(half, ignore_label=1)).label
    np.testing.assert_array_equal(other.numpy(), stored * (stored > 1))
    other = cache.load(replace(turned, label_map=((0, 0), (1, 1), (2, 1)))).label
    np.testing.assert_array_equal(other.numpy(), stored > 0)
    assert len(entries(tmp_path / "cache")) == 5
    cache.facts(replace(turned))
    assert len(entries(tmp_path / "cache")) == 5
