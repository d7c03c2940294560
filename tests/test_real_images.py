"""On real images, where they are: layouts are recognised, files are read, quirks are found."""

import numpy as np
import pytest

from hymunet.data.case_io import read_case
from hymunet.data.duplicates import hash_images, near_duplicate_groups
from hymunet.data.formats import find_dataset
from hymunet.data.image_io import read_image
from hymunet.data.mask_reading import read_mask

pytestmark = pytest.mark.data


def test_the_isic_2018_folder_is_taken_as_it_is(data_root):
    dataset = find_dataset(data_root / "isic2018")
    assert dataset.name.startswith("ISIC 2018")
    assert len(dataset.cases) == len(dataset.split) == 1997
    assert sorted(dataset.split.values()).count("train") == 1598
    image, mask, valid = read_case(dataset.cases[0], 3, 2)
    assert image.pixels.shape == (3, 256, 256)
    assert set(np.unique(mask.labels)) == {0, 1}
    assert valid is None


def test_near_duplicates_among_the_validation_images_are_found(data_root):
    dataset = find_dataset(data_root / "isic2018")
    known = {"ISIC_0000171", "ISIC_0015124"}  # one lesion photographed once, stored twice
    pair = [case for case in dataset.cases if case.id in known]
    others = [case for case in dataset.cases if case.id not in known][:50]
    groups = near_duplicate_groups(hash_images([case.channels[0] for case in pair + others]))
    assert groups[0] == groups[1]
    assert len(set(groups)) >= 48


def test_nuclei_are_a_folder_of_pairs(data_root):
    dataset = find_dataset(data_root / "nuclei")
    assert len(dataset.cases) == 250
    for case in dataset.cases[:5]:
        image, mask, _ = read_case(case, 3, 2)
        assert image.pixels.shape[1:] == mask.labels.shape


def test_a_hippocampus_volume_keeps_its_spacing(data_root):
    folder = data_root / "Task04_Hippocampus"
    path = sorted(folder.glob("imagesTr/*.nii.gz"))[0]
    image = read_image(path, None)
    mask = read_mask(folder / "labelsTr" / path.name, num_labels=3)
    assert image.pixels.shape[1:] == mask.labels.shape
    assert image.spacing_mm == pytest.approx((1.0, 1.0, 1.0))
    assert set(np.unique(mask.labels)) == {0, 1, 2}


def test_the_hippocampus_of_the_decathlon_says_what_it_holds(data_root):
    dataset = find_dataset(data_root / "Task04_Hippocampus")
    assert dataset.name == "Medical Segmentation Decathlon"
    assert len(dataset.cases) == 200
    assert dataset.channel_names == ("MRI",)
    assert dataset.label_names == {1: "Anterior", 2: "Posterior"}
    for case in dataset.cases[:5]:
        image, mask, _ = read_case(case, 1, dataset.num_labels)
        assert image.pixels.shape == (1, *mask.labels.shape)
        assert set(np.unique(mask.labels)) == {0, 1, 2}


def test_lesions_named_as_in_brats_are_one_structure(data_root):
    dataset = find_dataset(data_root / "ms_lesions")
    assert dataset.name == "BraTS"
    assert [case.id for case in dataset.cases] == ["MSLesion_07", "MSLesion_26"]
    assert dataset.label_names == {1: "lesion"}
    assert dataset.regions is None
    image, mask, _ = read_case(dataset.cases[0], 4, 2)
    assert image.pixels.shape == (4, 182, 218, 182)
    assert set(np.unique(mask.labels)) == {0, 1}
