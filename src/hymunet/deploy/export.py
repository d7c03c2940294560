"""`hymunet export`: a model as a file that other runtimes read, as a page, or as a folder for MONAI
or the Hugging Face Hub."""

import json as json_library
import shlex
from pathlib import Path

from rich.console import Console

from hymunet.console import say
from hymunet.deploy.onnx_export import Exported, write_file, write_page
from hymunet.deploy.precision import PRECISIONS
from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.wording import memory_text

FORMATS = ("onnx", "torch", "web", "bundle", "hub")
# folders that hold the model file as it is: nothing is traced, so nothing to be compared
FOLDERS = ("bundle", "hub")
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}


def export(
    model: str | Path,
    *,
    format: str = "onnx",
    output: Path | None = None,
    precision: str = "float32",
    check: Path | None = None,
    images: int | None = None,
    most_loss: float = 0.01,
    portable: bool = False,
    onnxruntime_web: Path | None = None,
    json: bool = False,
) -> Exported:
    """Writes a model for elsewhere: an ONNX file, a program of torch, a web page, a MONAI bundle, a
    folder for the Hugging Face Hub.

    A model of 8-bit pictures takes `image`, decoded pixels (batch, height, width, channels) uint8
    of any size, turned upright, and gives `probability` (batch, structures, height, width) float32
    and `mask` (batch, height, width) uint8 at that size: resizing, normalisation, activation and
    threshold are part of the file. A model of volumes, of windows or of other intensities takes
    what its network sees, (batch, channels, ...) float32, and gives probabilities; `hymunet predict
    --runtime onnx` does the rest. Post-processing, such as keeping the largest part, is not in the
    file. What it says of itself is JSON under the key `hymunet` of its metadata.

    The file is run and compared with the model before it is kept: where masks differ in more than
    0.01 % of the pixels, or fewer bits cost more Dice than --most-loss, nothing is written. Bundles
    and folders of the Hub hold the model file as it is, and are run by this package.

    Args:
        model: A model file, a run folder, or the name of a model that comes with the package.
        format: onnx; torch: a program of torch.export (.pt2), which calls the fast scan of this
            package (`import hymunet.scan` before loading it); web: a folder with a page that
            runs the ONNX file in the browser, from which no picture is sent anywhere. It is opened
            by a double-click on its index.html, or served by any static server; bundle: a folder
            that `python -m monai.bundle run` runs; or hub: config.json, model.safetensors and a
            card, as the Hugging Face Hub wants them (`hf upload OWNER/NAME FOLDER`).
        output: The file, or the folder; default: beside the model under its name (of a packaged
            model and one of the Hub: in the present folder), where `predict --runtime onnx` finds
            it. A folder must be new, empty, or one that the same format was exported to before.
        precision: How weights are stored: float32, float16 (half the file) or int8 (a quarter of
            it); computing stays float32, so they are smaller, not faster. For onnx and web.
        check: Data set on which the file is compared with the model and the reference masks; of
            its split the parts that are held out. Default: drawn images, where the masks of both
            are compared.
        images: On how many images; default: 100 of --check, or 16 drawn ones (4 volumes).
        most_loss: Largest fall of the mean Dice that float16 and int8 may cost; without --check, of
            the Dice between both masks from 1.
        portable: For torch: write the scan in torch's own operators; the program then loads without
            this package, and is many times slower.
        onnxruntime_web: For web: folder of the npm package onnxruntime-web, where it cannot be
            fetched by npm; kept in the user's cache afterwards.
        json: Print what the file says of itself.

    Raises:
        HyMUNetError: If the model, an option or the place cannot be used, or the file disagrees.
    """
    from hymunet.inference.onnx_runtime import onnx_beside
    from hymunet.network.model_file import find_model

    _check_options(format, precision, check, images, portable)
    console = Console(stderr=True)
    source = find_model(model)
    beside = onnx_beside(source)
    default = (
        beside.with_suffix(SUFFIX[format])
        if format in SUFFIX
        else beside.with_name(f"{beside.stem}-{format}")
    )
    path = Path(output) if output else default
    if format in FOLDERS:
        done = _folder(source, path, format, console)
    elif format == "web":
        done = write_page(
            source, path, precision, check, images, most_loss, onnxruntime_web, console
        )
    else:
        if path.suffix != SUFFIX[format]:
            raise HyMUNetError(
                f"a file of format {format} ends in {SUFFIX[format]}, but --output is {path}"
            )
        done = write_file(
            source, path, format, precision, check, images, most_loss, portable, console
        )
        say(
            console,
            f"{path}: {memory_text(path.stat().st_size)}, weights in {precision}, input "
            f"{done.metadata['input']}",
        )
        if format == "torch":
            first = "import torch; " if portable else "import torch, hymunet.scan; "
            say(console, f"to load it: {first}torch.export.load({str(path)!r}).module()")
    if json:
        print(json_library.dumps(done.metadata, indent=2))
    return done


def _folder(source: Path, folder: Path, format: str, console: Console) -> Exported:
    """A folder with the model file in it."""
    if format == "bundle":
        from hymunet.deploy.bundle import run_command, write_bundle

        metadata = write_bundle(source, folder)
        say(console, f"{folder} is written; to run it: {run_command(folder)}")
    else:
        from hymunet.deploy.hub import save_pretrained
        from hymunet.network.model_file import read_info

        metadata = read_info(save_pretrained(source, folder))
        command = shlex.join(("hf", "upload", "OWNER/NAME", str(folder)))
        say(console, f"{folder} is written; to share it: {command}")
    return Exported(folder, metadata)


def _check_options(
    format: str, precision: str, check: Path | None, images: int | None, portable: bool
) -> None:
    if format not in FORMATS:
        raise HyMUNetError(f"there is no format {format!r}; expected {', '.join(FORMATS)}")
    if precision not in PRECISIONS:
        raise HyMUNetError(f"there is no precision {precision!r}; expected {', '.join(PRECISIONS)}")
    if precision != "float32" and format not in ("onnx", "web"):
        raise HyMUNetError(f"--precision {precision} is not for --format {format}; leave it out")
    if format != "torch" and portable:
        raise HyMUNetError("--portable is for --format torch; leave it out")
    if images is not None and images < 1:
        raise HyMUNetError(f"--images must be 1 or more, not {images}")
    if format in FOLDERS and (check is not None or images is not None):
        raise HyMUNetError(
            f"--format {format} holds the model file as it is, so there is nothing to compare; "
            "leave --check and --images out"
        )
    if format in ("onnx", "web"):
        require("export", "ONNX export", "onnx", "onnxscript", "onnxruntime")
    if format == "bundle":
        require("bundle", "a MONAI bundle", "monai", "ignite", "fire")
