"""Addresses, digests and licences are those that the owners publish."""

import ast
import importlib.util
import re
from pathlib import Path
from typing import get_args

import pytest

from hymunet.data.catalogue import Task, decathlon, isic2018
from hymunet.errors import HyMUNetError


def monai_says() -> dict[str, dict[str, str]]:
    """`resource` and `md5` of MONAI's DecathlonDataset, read without importing it."""
    spec = importlib.util.find_spec("monai")
    if spec is None or spec.origin is None:
        pytest.skip("NOT TESTED: the Decathlon's published digests are compared with MONAI's")
    source = (Path(spec.origin).parent / "apps" / "datasets.py").read_text(encoding="utf-8")
    found = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "DecathlonDataset"
    )
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in found.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def test_the_decathlon_is_where_monai_says():
    said = monai_says()
    archives = {task: decathlon(task).archives for task in get_args(Task)}
    assert {task: one.url for task, (one,) in archives.items()} == said["resource"]
    assert {task: one.md5 for task, (one,) in archives.items()} == said["md5"]
    assert {task: one.folder for task, (one,) in archives.items()} == {
        task: task for task in said["md5"]
    }


@pytest.mark.parametrize("task", [None, "Task11_Nose", "task04_hippocampus"])
def test_a_task_that_is_none_of_the_ten(task):
    with pytest.raises(HyMUNetError, match=r"name one, as in .*Task01_BrainTumour, .*Task10_Colon"):
        decathlon(task)


def test_isic_2018_has_six_archives_and_no_published_digest():
    source = isic2018()
    assert [archive.name for archive in source.archives] == [
        "ISIC2018_Task1-2_Training_Input.zip",
        "ISIC2018_Task1_Training_GroundTruth.zip",
        "ISIC2018_Task1-2_Validation_Input.zip",
        "ISIC2018_Task1_Validation_GroundTruth.zip",
        "ISIC2018_Task1-2_Test_Input.zip",
        "ISIC2018_Task1_Test_GroundTruth.zip",
    ]
    assert {archive.md5 for archive in source.archives} == {None}
    base = "https://isic-challenge-data.s3.amazonaws.com/2018/"
    assert all(archive.url == base + archive.name for archive in source.archives)
    assert source.licence == "CC BY-NC 4.0"
    assert [re.search(r"1902\.03368|sdata\.2018\.161", line)[0] for line in source.citations] == [
        "1902.03368",
        "sdata.2018.161",
    ]


def test_everything_comes_encrypted():
    for source in (isic2018(), *(decathlon(task) for task in get_args(Task))):
        assert all(archive.url.startswith("https://") for archive in source.archives)


@pytest.mark.parametrize("mirror", ["http://here/isic", "http://here/isic/"])
def test_a_mirror_has_the_same_names_and_digests(mirror):
    source = decathlon("Task02_Heart")
    (archive,) = source.at(mirror).archives
    assert archive.url == "http://here/isic/Task02_Heart.tar"
    assert archive.md5 == source.archives[0].md5
