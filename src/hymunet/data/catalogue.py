"""What `hymunet download` fetches: official addresses, published digests, licences, citations."""

from dataclasses import dataclass, replace
from typing import Literal

from hymunet.errors import HyMUNetError

Task = Literal[
    "Task01_BrainTumour",
    "Task02_Heart",
    "Task03_Liver",
    "Task04_Hippocampus",
    "Task05_Prostate",
    "Task06_Lung",
    "Task07_Pancreas",
    "Task08_HepaticVessel",
    "Task09_Spleen",
    "Task10_Colon",
]

_DECATHLON = "https://msd-for-monai.s3-us-west-2.amazonaws.com"
# as MONAI, whose bucket this is, publishes them: monai.apps.DecathlonDataset.md5
_DECATHLON_MD5: dict[str, str] = {
    "Task01_BrainTumour": "240a19d752f0d9e9101544901065d872",
    "Task02_Heart": "06ee59366e1e5124267b774dbd654057",
    "Task03_Liver": "a90ec6c4aa7f6a3d087205e23d4e6397",
    "Task04_Hippocampus": "9d24dba78a72977dbd1d2e110310f31b",
    "Task05_Prostate": "35138f08b1efaef89d7424d2bcc928db",
    "Task06_Lung": "8afd997733c7fc0432f71255ba4e52dc",
    "Task07_Pancreas": "4f7080cfca169fa8066d17ce6eb061e4",
    "Task08_HepaticVessel": "641d79e80ec66453921d997fbf12a29c",
    "Task09_Spleen": "410d4a301da4e5b2f6f86ec3ddba524e",
    "Task10_Colon": "bad7a188931dc2f6acf72b08eb6202d0",
}
_ISIC = "https://isic-challenge-data.s3.amazonaws.com/2018"
_ISIC_CASES = {"Training": 2594, "Validation": 100, "Test": 1000}


@dataclass(frozen=True)
class Archive:
    """One file of a data set.

    Args:
        url: Where it is; the last part is its name.
        folder: The folder that it unpacks to.
        md5: The digest that is published for it, in hexadecimal; None where none is.
        whole: Pattern of the files in the unpacked folder and their published number; None where
            the folder's own dataset.json lists its files.
    """

    url: str
    folder: str
    md5: str | None = None
    whole: tuple[str, int] | None = None

    @property
    def name(self) -> str:
        """`ISIC2018_Task1_Test_GroundTruth.zip`."""
        return self.url.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Source:
    """A data set that can be downloaded, and what its use is bound to.

    Args:
        title: What it is.
        licence: Short name of the licence.
        licence_url: Its text.
        citations: What a publication has to cite.
        page: The data set's own page.
        archives: Its files.
    """

    title: str
    licence: str
    licence_url: str
    citations: tuple[str, ...]
    page: str
    archives: tuple[Archive, ...]

    def at(self, mirror: str) -> "Source":
        """The same files, names and digests, below another address."""
        base = mirror.rstrip("/")
        moved = (replace(archive, url=f"{base}/{archive.name}") for archive in self.archives)
        return replace(self, archives=tuple(moved))


def isic2018() -> Source:
    """ISIC 2018 Task 1: images and lesion masks for training, validation and test."""
    archives: list[Archive] = []
    for phase, cases in _ISIC_CASES.items():
        for folder, pattern in (
            (f"ISIC2018_Task1-2_{phase}_Input", "ISIC_*.jpg"),
            (f"ISIC2018_Task1_{phase}_GroundTruth", "ISIC_*.png"),
        ):
            archives.append(Archive(f"{_ISIC}/{folder}.zip", folder, whole=(pattern, cases)))
    return Source(
        title="ISIC 2018 Task 1, dermoscopic images and lesion masks",
        licence="CC BY-NC 4.0",
        licence_url="https://creativecommons.org/licenses/by-nc/4.0/",
        citations=(
            "N. Codella, V. Rotemberg, P. Tschandl et al.: Skin Lesion Analysis Toward Melanoma "
            "Detection 2018: A Challenge Hosted by the International Skin Imaging Collaboration "
            "(ISIC), 2018. https://arxiv.org/abs/1902.03368",
            "P. Tschandl, C. Rosendahl, H. Kittler: The HAM10000 dataset, a large collection of "
            "multi-source dermatoscopic images of common pigmented skin lesions. Scientific Data "
            "5, 180161 (2018). https://doi.org/10.1038/sdata.2018.161",
        ),
        page="https://challenge.isic-archive.com/data/#2018",
        archives=tuple(archives),
    )


def decathlon(task: str | None) -> Source:
    """One task of the Medical Segmentation Decathlon: NIfTI volumes.

    Raises:
        HyMUNetError: If `task` is none of the ten.
    """
    if task not in _DECATHLON_MD5:
        came = "none is given" if task is None else f"there is no {task}"
        raise HyMUNetError(
            f"the Decathlon has ten tasks, and {came}; name one, as in `hymunet download decathlon "
            f"Task04_Hippocampus`: {', '.join(_DECATHLON_MD5)}"
        )
    archive = Archive(f"{_DECATHLON}/{task}.tar", task, md5=_DECATHLON_MD5[task])
    return Source(
        title=f"Medical Segmentation Decathlon, {task}",
        licence="CC BY-SA 4.0",
        licence_url="https://creativecommons.org/licenses/by-sa/4.0/",
        citations=(
            "M. Antonelli, A. Reinke, S. Bakas et al.: The Medical Segmentation Decathlon. Nature "
            "Communications 13, 4128 (2022). https://doi.org/10.1038/s41467-022-30695-9",
        ),
        page="http://medicaldecathlon.com",
        archives=(archive,),
    )
