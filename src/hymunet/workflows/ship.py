"""From a finished run to weights in the package: half precision, with data, licence and use named.

For who releases this package: `python -m hymunet.workflows.ship RUN NAME` in a clone. Then
`hymunet evaluate NAME ...` measures what is shipped, and `hymunet card NAME ... --write` puts the
figures into the file and the model card.
"""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hymunet.data.label_scheme import unnamed
from hymunet.data.splits import PARTS, Split, load_split
from hymunet.errors import HyMUNetError
from hymunet.files import replacing
from hymunet.network.pretrained import WEIGHTS

if TYPE_CHECKING:
    from hymunet.network.hymunet import HyMUNet

LARGEST_CHANGE = 2e-3  # of a probability, by rounding weights to half precision
NOT_A_DEVICE = "research use only; not a medical device and not for diagnosis"

# what weights inherit from the data they were trained on, by the data set's name in the model file
DATA_SETS: dict[str, dict[str, Any]] = {
    "ISIC 2018 Task 1": {
        "licence": "CC-BY-NC-4.0",
        "licence_url": "https://creativecommons.org/licenses/by-nc/4.0/legalcode",
        "domain": "dermoscopy of skin lesions, one lesion a picture",
        "classes": ["lesion"],
        "sources": [
            "Codella et al. 2018, Skin Lesion Analysis Toward Melanoma Detection 2018, "
            "https://arxiv.org/abs/1902.03368",
            "Tschandl, Rosendahl and Kittler 2018, The HAM10000 dataset, Scientific Data 5, "
            "https://doi.org/10.1038/sdata.2018.161",
        ],
    }
}


def ship(
    run: Path, name: str, about: dict[str, Any] | None = None, folder: Path | None = None
) -> Path:
    """Writes the best weights of `run` as the packaged model `name`; equal runs give equal bytes.

    Args:
        run: A finished run folder, or a model file.
        name: What users will call it, such as isic2018-small.
        about: Metadata beside or instead of what `DATA_SETS` has for the run's data: `licence`,
            `domain`, `sources` (publications to cite), `reproduce` (a command).
        folder: Where to; None: the package's own folder of weights.

    Returns:
        The file written, with float16 for large tensors (see `save_model`).

    Raises:
        HyMUNetError: If the run is not finished, its licence or domain is not known, the name
            cannot be one, or half precision changes a probability by `LARGEST_CHANGE` or more.
    """
    from hymunet.network.model_file import find_model, load_model, save_model

    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name):
        raise HyMUNetError(
            "the name of a packaged model is made of lower-case letters, digits and single "
            f"hyphens, such as isic2018-small, not {name!r}"
        )
    source = find_model(run)
    network, info = load_model(source)
    if "risk_control" in info:
        raise HyMUNetError(
            f"the threshold of {source} keeps a miss rate with these weights, and shipped ones are "
            "rounded; ship the model without it (`hymunet calibrate --write` sets another "
            "threshold), then calibrate a copy of the shipped file"
        )
    training = info.get("training") or {}
    inherited = DATA_SETS.get(training.get("data", ""), {})
    # no licence and no name for the structure: what says nothing gives way
    silent = (None, unnamed(1))
    info |= {key: value for key, value in inherited.items() if info.get(key) in silent}
    info |= about or {}
    if inherited and info["licence"] != inherited["licence"] and "licence" not in (about or {}):
        raise HyMUNetError(
            f"{source} carries the licence {info['licence']}, its training data "
            f"{inherited['licence']}; say in `about` which licence holds for the weights"
        )
    unknown = [key for key in ("licence", "domain") if not info.get(key)]
    if unknown:
        raise HyMUNetError(
            f"the {' and '.join(unknown)} of {source}, trained on {training.get('data')!r}, "
            "must be named before it is shipped; give them in `about`"
        )
    info["not_a_medical_device"] = NOT_A_DEVICE
    info["training"] = _without_paths(training) | _provenance(source.parent, network)
    if inherited and (source.parent / "split.json").is_file():
        info["cases"] = _by_id(info["cases"], load_split(source.parent / "split.json"))
    info.pop("card", None)  # figures of other weights
    target = (WEIGHTS if folder is None else folder) / f"{name}.safetensors"
    with replacing(target) as temporary:
        save_model(temporary, network, info, half=True)
        _check_rounding(network, load_model(temporary)[0], info)
    return target


def _provenance(folder: Path, network: "HyMUNet") -> dict[str, Any]:
    """Machine, time and size of a training, from its run folder where there is one."""
    facts: dict[str, Any] = {"parameters": sum(p.numel() for p in network.parameters())}
    path = folder / "provenance.json"
    if not path.is_file():
        return facts
    recorded = json.loads(path.read_text(encoding="utf-8"))
    if not recorded.get("finished"):
        raise HyMUNetError(
            f"the run {folder} is not finished; let it end (the same command resumes it), then ship"
        )
    # neither the command nor the data's path: they name folders of the machine it ran on
    names = ("machine", "training_seconds", "epochs", "best_epoch", "split", "versions")
    return facts | {key: recorded[key] for key in names if key in recorded}


def _by_id(cases: dict[str, list[str]], split: Split) -> dict[str, Any]:
    """Fingerprints by case id, which tell the parts apart in copies of any size. Public data sets
    only: elsewhere a file's name may be a patient's."""
    return {part: dict(zip(getattr(split, part), cases[part], strict=True)) for part in PARTS}


def _without_paths(value: Any) -> Any:
    """A training's metadata; options that name files keep the name and lose the folders."""
    if isinstance(value, dict):
        return {key: _without_paths(inner) for key, inner in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).name else value


def _check_rounding(network: "HyMUNet", halved: "HyMUNet", info: dict[str, Any]) -> None:
    """Compares both on drawn lesions (pictures) or on noise (volumes, other channels)."""
    import numpy as np

    from hymunet.data.phantoms import draw_lesion
    from hymunet.inference.predictor import Predictor

    config = network.config
    drawn = config.spatial_dims == 2 and config.in_channels == 3
    noise = np.random.default_rng(0)
    size = (config.in_channels, *(4 * config.stride,) * config.spatial_dims)
    largest = 0.0
    for seed in range(4):
        image = draw_lesion(seed, (192, 256)).image if drawn else noise.random(size, np.float32)
        one, other = (
            Predictor(model, device="cpu", info=info)(image).probability
            for model in (network, halved)
        )
        largest = max(largest, float(np.abs(one - other).max()))
    if not largest < LARGEST_CHANGE:
        raise HyMUNetError(
            f"half precision changes a probability by {largest:.2g}, expected less than "
            f"{LARGEST_CHANGE}; save this model in full precision (save_model)"
        )


def main(run: Path, name: str) -> None:
    """Writes the best weights of RUN into the package as the model NAME."""
    path = ship(run, name)
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    import cyclopts

    try:
        cyclopts.run(main)
    except HyMUNetError as error:
        sys.exit(f"error: {error}")
