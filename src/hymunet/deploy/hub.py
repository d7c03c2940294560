"""A model as a folder of the Hugging Face Hub, with its card, and on the Hub itself.

config.json          sizes of the network, as `HyMUNet(**config)` takes them
model.safetensors    a model file: weights, preprocessing, classes, threshold, cases seen
README.md            the model's card, with the Hub's own entries before it
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hymunet.deploy.own_folder import make_own_folder
from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.files import write_bytes, write_text
from hymunet.network.hub import CONFIG, WEIGHTS, hub_address, is_bare_id, model_name
from hymunet.network.hymunet import HyMUNet
from hymunet.network.model_file import find_model, read_info, save_model, weights_digest

# what stays true of a loaded network when its weights have been trained further; its scores,
# threshold and promises do not
_STAYS = (
    "preprocess",
    "classes",
    "label_values",
    "cases",
    "domain",
    "licence",
    "licence_url",
    "sources",
    "not_a_medical_device",
)
# licences that the Hub knows by name, of those that weights are usually under
_HUB_LICENCES = {
    "apache-2.0",
    "mit",
    "bsd-3-clause",
    "cc0-1.0",
    *(f"cc-by{kind}-4.0" for kind in ("", "-sa", "-nc", "-nc-sa", "-nc-nd", "-nd")),
}


def save_pretrained(
    model: HyMUNet | str | Path, save_directory: str | Path, info: dict[str, Any] | None = None
) -> Path:
    """Writes `config.json`, `model.safetensors` and `README.md`, the model's card.

    `HyMUNet.from_pretrained`, `Predictor` and each command take the folder as a model.

    Args:
        model: A model file, a run folder or the name of a packaged model, whose file is copied as
            it is; or a network.
        save_directory: The folder; made when missing, one saved before is replaced.
        info: Metadata of a network, as `save_model` takes them. None: those of the model that it
            was loaded from (`HyMUNet.from_pretrained`); where its weights have changed since, only
            what still holds, such as licence, preprocessing and cases seen.

    Returns:
        The folder.

    Raises:
        HyMUNetError: If the model cannot be used, the folder not be written or holds something else
            than a saved model, or a model file is given with other metadata.
    """
    folder = Path(save_directory)
    return _save(model, folder, info, folder.resolve().name)


def _save(
    model: HyMUNet | str | Path, folder: Path, info: dict[str, Any] | None, name: str
) -> Path:
    """`save_pretrained`, a network called `name` in its card."""
    if isinstance(model, HyMUNet):
        make_own_folder(folder, "hub")
        save_model(folder / WEIGHTS, model, _info_of(model) if info is None else info)
    else:
        if info is not None:
            raise HyMUNetError(
                "a model file holds its own metadata; give info with a network only, or change the "
                "file's by hymunet.network.model_file.replace_info"
            )
        source = find_model(model)
        name, content = model_name(source), source.read_bytes()
        read_info(source)
        make_own_folder(folder, "hub")
        write_bytes(folder / WEIGHTS, content)
    # from here on the folder says of itself what the file says
    (folder / CONFIG).unlink(missing_ok=True)
    stored = read_info(folder / WEIGHTS)
    write_text(folder / CONFIG, json.dumps(stored["architecture"], indent=2) + "\n")
    write_text(folder / "README.md", hub_card(name, stored, (folder / WEIGHTS).stat().st_size))
    return folder


def push_to_hub(
    model: HyMUNet | str | Path,
    repo_id: str,
    info: dict[str, Any] | None = None,
    *,
    private: bool | None = None,
    token: str | bool | None = None,
    revision: str | None = None,
    commit_message: str = "Upload a HyM-UNet model",
    create_pr: bool = False,
) -> str:
    """Uploads what `save_pretrained` writes to a repository of the Hugging Face Hub, which is made
    when it is missing.

    Args:
        model: As in `save_pretrained`.
        repo_id: `owner/name`, also as `hf://owner/name`.
        info: As in `save_pretrained`.
        private: Whether a new repository can be read by its owner only; None: as the owner's
            settings say.
        token: None: the one that `hf auth login` has kept.
        revision: Branch to upload to; None: the main one.
        commit_message: Of the upload.
        create_pr: Propose the upload instead.

    Returns:
        The address of the commit.

    Raises:
        HyMUNetError: If huggingface_hub is missing, the model cannot be used, `repo_id` is no name
            of a repository, or the Hub cannot be reached or refuses.
    """
    require("hub", "uploading to the Hugging Face Hub", "huggingface_hub")
    from huggingface_hub import HfApi

    import hymunet

    repo_id = _repository(repo_id)
    api = HfApi(token=token, library_name="hymunet", library_version=hymunet.__version__)
    with TemporaryDirectory() as temporary:
        folder = _save(model, Path(temporary), info, repo_id.split("/")[1])
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            done = api.upload_folder(
                repo_id=repo_id,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message,
                create_pr=create_pr,
            )
        # which library it speaks HTTP by, and so the types of its errors, changes with its versions
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise HyMUNetError(
                f"the model was not uploaded to {repo_id} of the Hugging Face Hub ({reason:.300}); "
                "log in (hf auth login) with a token that may write there, with a network"
            ) from error
    return str(done.commit_url)


def _repository(repo_id: str) -> str:
    """`owner/name` of what names a repository to upload to."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    found, revision = hub_address(repo_id) or (repo_id, None)
    if revision is not None:
        raise HyMUNetError(
            f"{repo_id} names a revision; give {found}, and the branch as revision={revision!r}"
        )
    reason = "" if is_bare_id(found) else "it has not two parts of letters, digits, '.', '_', '-'"
    try:
        validate_repo_id(found)
    except HFValidationError as error:
        reason = str(error)
    if reason:
        raise HyMUNetError(
            f"{repo_id} is no repository of the Hugging Face Hub ({reason}); expected OWNER/NAME"
        )
    return found


def hub_card(name: str, info: Mapping[str, Any], size_bytes: int) -> str:
    """The model's card as the Hub reads it: entries for its search, the card of `hymunet card`, and
    how to load it.

    Args:
        name: Of the model.
        info: Metadata of its file.
        size_bytes: Of its file.
    """
    import yaml

    from hymunet.evaluation.card import model_card

    entries: dict[str, Any] = {
        "library_name": "hymunet",
        "pipeline_tag": "image-segmentation",
        "tags": ["medical", "segmentation", "mamba", "hymunet"],
        **_licence(info),
    }
    use = (
        "## How to use it\n\n"
        '```\npip install "hymunet[hub]"\n'
        "hymunet predict PHOTOS/ --model hf://OWNER/NAME --output masks/\n```\n\n"
        "```python\nfrom hymunet import HyMUNet, Predictor\n\n"
        'Predictor("hf://OWNER/NAME")("photo.jpg").mask  # with its preprocessing and threshold\n'
        'HyMUNet.from_pretrained("OWNER/NAME")  # the network alone\n```\n'
    )
    front = yaml.safe_dump(entries, sort_keys=False, allow_unicode=True)
    return f"---\n{front}---\n\n{model_card(name, info, size_bytes)}\n{use}"


def _licence(info: Mapping[str, Any]) -> dict[str, str]:
    """The Hub's entries for the licence of the weights; none where it is not stated."""
    licence = info.get("licence")
    if not licence:
        return {}
    if licence.lower() in _HUB_LICENCES:
        return {"license": licence.lower()}
    link = {"license_link": info["licence_url"]} if info.get("licence_url") else {}
    return {"license": "other", "license_name": licence, **link}


def _info_of(network: HyMUNet) -> dict[str, Any]:
    """What the file that a network was loaded from says, as far as it is true of it still."""
    if network.loaded is None:
        return {}
    info, digest = network.loaded
    if weights_digest(network) == digest:
        return info
    training = info.get("training") or {}
    origin = {
        "name": "a model that was trained further",
        "sha256": digest,
        "data": training.get("data"),
        "cases": len((info.get("cases") or {}).get("train") or []),
        "licence": info.get("licence"),
    }
    return {name: info[name] for name in _STAYS if name in info} | {"training": {"init": origin}}
