"""Models of the Hugging Face Hub, and the folder that its conventions ask for: `config.json` and
`model.safetensors`.

Commands take a model of the Hub by the address `hf://owner/name`, also with `@revision`; a bare
`owner/name`, which a path may be as well, only `HyMUNet.from_pretrained` takes.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.network.folds import BEST

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
# a Path makes one slash of two, and on Windows a backslash
_ADDRESS = re.compile(rf"hf:/{{1,2}}(?P<id>{_NAME}/{_NAME})(@(?P<revision>[^@]+))?")
_BARE = re.compile(rf"{_NAME}/{_NAME}")


def hub_address(model: str | Path) -> tuple[str, str | None] | None:
    """(`owner/name`, revision or None) of `hf://owner/name@revision`; None where `model` is no
    address of the Hub."""
    text = str(model).replace("\\", "/")
    found = _ADDRESS.fullmatch(text)
    if found is None:
        if re.match(r"hf:/", text):
            raise HyMUNetError(
                f"{model} is no model of the Hugging Face Hub; expected hf://owner/name, or "
                "hf://owner/name@revision"
            )
        return None
    return found["id"], found["revision"]


def is_bare_id(model: str | Path) -> bool:
    """Whether `model` could be `owner/name` of the Hub; a relative path could be as well."""
    return isinstance(model, str) and _BARE.fullmatch(model) is not None


@cache
def fetched(
    repo_id: str,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    force_download: bool = False,
) -> Path:
    """The folder with `config.json` and `model.safetensors` of a model of the Hub, in the cache of
    huggingface_hub; no other file is fetched.

    Without a network, and under HF_HUB_OFFLINE=1, what lies in that cache is taken. In one process
    the same answer is given again, so that a command never works with two states of a model.

    Args:
        repo_id: `owner/name`.
        revision: Branch, tag or commit; None: the main branch.
        cache_dir: Another cache than huggingface_hub's own.
        token: For private models; None: the one that `hf auth login` has kept.
        local_files_only: Ask no server.
        force_download: Fetch anew what is in the cache.

    Raises:
        HyMUNetError: If huggingface_hub is missing, or there is no such model there or here.
    """
    purpose = f"{repo_id}, which is no file or folder here and so one of the Hugging Face Hub,"
    require("hub", purpose, "huggingface_hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    at = f" at revision {revision}" if revision else ""
    try:
        folder = snapshot_download(
            repo_id,
            revision=revision,
            cache_dir=cache_dir,
            token=token,
            local_files_only=local_files_only,
            force_download=force_download,
            allow_patterns=[CONFIG, WEIGHTS],
        )
    except RepositoryNotFoundError as error:
        raise HyMUNetError(
            f"the Hugging Face Hub has no model {repo_id} that you may read; check the name, or "
            "log in for a private one: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise HyMUNetError(
            f"the model {repo_id} of the Hugging Face Hub has no revision {revision}; leave it out "
            "for the main branch"
        ) from error
    except LocalEntryNotFoundError as error:
        raise HyMUNetError(
            f"the model {repo_id}{at} is not in the local cache of the Hugging Face Hub, and the "
            "Hub cannot be reached (no network, or HF_HUB_OFFLINE is set); fetch it once with a "
            f"network (hf download {repo_id}), or give a local folder with {WEIGHTS} in it"
        ) from error
    # which library it speaks HTTP by, and so the types of its errors, changes with its versions
    except Exception as error:
        raise HyMUNetError(
            f"the model {repo_id}{at} could not be fetched from the Hugging Face Hub "
            f"({_first_line(error)}); try again, or give a local folder with {WEIGHTS} in it"
        ) from error
    if not (Path(folder) / WEIGHTS).is_file():
        raise HyMUNetError(
            f"{repo_id}{at} of the Hugging Face Hub holds no {WEIGHTS}; expected a model that "
            "push_to_hub() has written"
        )
    return Path(folder)


def model_name(path: Path) -> str:
    """What a model file is called: by its own name, or by that of its folder where all files are
    called alike; of the Hub by the name there."""
    if path.name not in (BEST, WEIGHTS):
        return path.name.removesuffix(".safetensors")
    folder = path.parent if path.parent.name else path.resolve().parent
    cached = folder.parent.parent.name.split("--") if in_hub_cache(path) else [folder.name]
    return cached[-1]


def in_hub_cache(path: Path) -> bool:
    """Whether a file lies in a cache of huggingface_hub, where nothing else may be written:
    `models--owner--name/snapshots/COMMIT/FILE`."""
    folder = path.parent
    return folder.parent.name == "snapshots" and folder.parent.parent.name.startswith("models--")


def config_of_folder(weights: Path) -> dict[str, Any] | None:
    """The architecture in the `config.json` beside a `model.safetensors`; None without one.

    Raises:
        HyMUNetError: If it is damaged or not a JSON object.
    """
    config = weights.with_name(CONFIG)
    if weights.name != WEIGHTS or not config.is_file():
        return None
    try:
        return dict(json.loads(config.read_text(encoding="utf-8")))
    # JSON that is nested deeper than Python reads is a RecursionError
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise HyMUNetError(
            f"{config} cannot be read ({_first_line(error)}), it is damaged; expected a JSON "
            "object of the sizes of a HyMUNet, as save_pretrained() writes it"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{(str(error).splitlines() or [type(error).__name__])[0]:.300}"
