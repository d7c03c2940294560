"""What `config.yaml` of a run holds: places and options by name, read and written."""

import json
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from hymunet.errors import HyMUNetError
from hymunet.training.options import TrainOptions

# what config.yaml holds besides options: arguments of `train` that name files
PLACES = ("data", "output", "images", "masks", "split_file")
# none of them changes what is learnt
FREE_TO_CHANGE = frozenset({"workers", "device", "devices", "num_nodes"})
NETWORK = "network"  # the name of a network that no option describes, see GivenNetwork
_OPTIONS = frozenset(field.name for field in fields(TrainOptions))
# settings that give way together: who gives the one wants nothing of the others that a file says
_ALTERNATIVES = {
    "budget": ("epochs", "steps_per_epoch"),
    "epochs": ("budget",),
    "resize": ("image_size", "patch_size", "spacing_mm"),
    "image_size": ("resize", "patch_size", "spacing_mm"),
    "patch_size": ("resize", "image_size"),
    "preset": ("init", "freeze_encoder", "encoder_rate"),
    "init": ("preset", "skip", "stages"),
}


def run_settings(
    options: TrainOptions,
    data: Path,
    output: Path,
    images: Path | None = None,
    masks: Path | None = None,
    split_file: Path | None = None,
    network: str | None = None,
) -> dict[str, Any]:
    """What defines a run: the data, the run folder and every option that is not None, as plain
    values; files are named so that they are found from anywhere. `network` names what no option
    describes."""
    values: dict[str, Any] = {"data": str(data.resolve()), "output": str(output)}
    if images is not None and masks is not None:
        values |= {"images": str(images), "masks": str(masks)}
    if split_file is not None:
        values["split_file"] = str(split_file.resolve())
    if network is not None:
        values[NETWORK] = network
    for name, value in asdict(options).items():
        if value is not None and name in _OPTIONS:
            values[name] = list(value) if isinstance(value, tuple) else value
    if options.init is not None:
        values["init"] = _place(options.init)
    return values


def _place(model: str) -> str:
    """A file or folder by its absolute path, packaged weights by their name."""
    path = Path(model)
    is_name = len(path.parts) == 1 and path.suffix != ".safetensors" and not path.exists()
    return model if is_name else str(path.resolve())


def plain_settings(
    options: TrainOptions,
    data: Path,
    images: Path | None,
    masks: Path | None,
    split_file: Path | None,
) -> dict[str, Any]:
    """`run_settings` of several runs in one folder, as JSON gives them back: without their own."""
    values = run_settings(options, data, Path(), images, masks, split_file)
    del values["output"]
    return dict(json.loads(json.dumps(values)))


def differing(
    there: Mapping[str, Any],
    now: Mapping[str, Any],
    but: Container[str] = FREE_TO_CHANGE,
    same: Callable[[str, Any, Any], bool] = lambda name, one, other: bool(one == other),
) -> list[str]:
    """The settings that a folder was begun with and those that are asked for now: each that
    differs, in words; what is younger than the folder has its default there.

    Args:
        there: Of the folder.
        now: Asked for.
        but: Names of settings that may differ.
        same: (name, value there, value now) -> whether they agree.
    """
    before, after = with_defaults(dict(there)), with_defaults(dict(now))
    return [
        f"{name} is {before.get(name)!r} there and {after.get(name)!r} now"
        for name in dict.fromkeys((*after, *before))
        if name not in but and not same(name, before.get(name), after.get(name))
    ]


def changed_options(options: TrainOptions) -> dict[str, Any]:
    """What somebody chose, by the names of its flags: options that differ from their defaults,
    `no_augment: True` for one that was switched off."""
    usual = asdict(TrainOptions())
    return {
        f"no_{name}" if value is False else name: value is False or value
        for name, value in asdict(options).items()
        if value != usual[name]
    }


def with_defaults(values: dict[str, Any]) -> dict[str, Any]:
    """The values of a `config.yaml` and, for options that are younger than it, their defaults: a
    new option's default is what was done before there was the option."""
    defaults = {f.name: f.default for f in fields(TrainOptions) if f.default is not None}
    return defaults | values


def config_text(values: dict[str, Any]) -> str:
    """The text of `config.yaml`."""
    if NETWORK in values:
        head = (
            "# a run of a comparison; the command in compare.json of the folder above repeats it\n"
            "# preset, stages and skip are those of our networks: a rival has none of them\n"
        )
        return head + yaml.safe_dump(values, sort_keys=False)
    return "# repeat this run with: hymunet train --config THIS_FILE --output ANOTHER_FOLDER\n" + (
        yaml.safe_dump(values, sort_keys=False)
    )


def beneath(values: dict[str, Any], typed: Iterable[str]) -> dict[str, Any]:
    """What of a `config.yaml` stands behind the settings that are typed beside it: all but those
    settings and what they are the alternative to. A file holds settled values, such as `epochs`
    beside the `budget` that they came from, so that `--budget 10m` must take both out.

    Args:
        values: Of the file.
        typed: Names of settings, as in `TrainOptions`.
    """
    typed = set(typed)
    out = typed | {other for name in typed for other in _ALTERNATIVES.get(name, ())}
    return {name: value for name, value in values.items() if name not in out}


def read_config(path: Path) -> dict[str, Any]:
    """The values of a `config.yaml`: `data`, `output`, other places and option names.

    Raises:
        HyMUNetError: If it is missing, no YAML mapping, or has a name that is no option.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HyMUNetError(f"there is no configuration file {path}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise HyMUNetError(f"{path} is not YAML: {error}") from error
    known = {*PLACES, *_OPTIONS, NETWORK}
    if not isinstance(values, dict) or set(values) - known:
        wrong = sorted(set(values) - known) if isinstance(values, dict) else ["no mapping"]
        raise HyMUNetError(
            f"{path} has entries that are no options of train: {', '.join(map(str, wrong))}; "
            "`hymunet train --help` lists them (with _ for -)"
        )
    return values


def read_options(path: Path) -> dict[str, Any]:
    """As `read_config`, of a run that `hymunet train` can repeat.

    Raises:
        HyMUNetError: As `read_config`, or if the run trained a network that no option describes.
    """
    values = read_config(path)
    if NETWORK in values:
        raise HyMUNetError(
            f"{path} is of the network {values[NETWORK]}, a part of a comparison, which "
            "`hymunet train` cannot build; `hymunet compare` repeats it"
        )
    return values
