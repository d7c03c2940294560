"""`hymunet export`: a model as a file that other runtimes read, or as a page, checked before it is
kept."""

import json as json_library
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hymunet.console import counted, say
from hymunet.deploy.precision import PRECISIONS
from hymunet.errors import HyMUNetError
from hymunet.extras import require
from hymunet.wording import memory_text, plural

if TYPE_CHECKING:
    from hymunet.deploy.onnx_file import OnnxFile
    from hymunet.deploy.parity import Agreement, Sample
    from hymunet.deploy.torch_file import TorchFile
    from hymunet.inference.predictor import Predictor

FORMATS = ("onnx", "torch", "web")
SUFFIX = {"onnx": ".onnx", "torch": ".pt2"}
# entries of a model file that stand in the exported one as they are
_COPIED = ("licence_url", "sources", "domain", "risk_control", "not_a_medical_device")


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Args:
        path: The file.
        metadata: What it says of itself.
        agreement: With the model, on which images.
    """

    path: Path
    metadata: dict[str, Any]
    agreement: "Agreement"


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
    """Writes a model for use without this package: an ONNX file, a program of torch, a web page.

    A model of 8-bit pictures takes `image`, decoded pixels (batch, height, width, channels) uint8
    of any size, turned upright, and gives `probability` (batch, structures, height, width) float32
    and `mask` (batch, height, width) uint8 at that size: resizing, normalisation, activation and
    threshold are part of the file. A model of volumes, of windows or of other intensities takes
    what its network sees, (batch, channels, ...) float32, and gives probabilities; `hymunet predict
    --runtime onnx` does the rest. Post-processing, such as keeping the largest part, is not in the
    file. What it says of itself is JSON under the key `hymunet` of its metadata.

    The file is run and compared with the model before it is kept: where masks differ in more than
    0.01 % of the pixels, or fewer bits cost more Dice than --most-loss, nothing is written.

    Args:
        model: A model file, a run folder, or the name of a model that comes with the package.
        format: onnx; torch: a program of torch.export (.pt2), which calls the fast scan of this
            package (`import hymunet.scan` before loading it); or web: a folder with a page that
            runs the ONNX file in the browser, from which no picture is sent anywhere. It is opened
            by a double-click on its index.html, or served by any static server.
        output: The file, or the folder of the page; default: beside the model under its name (of a
            packaged model: in the present folder), where `predict --runtime onnx` finds it.
        precision: How weights are stored: float32, float16 (half the file) or int8 (a quarter of
            it); computing stays float32, so they are smaller, not faster. Not for torch.
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

    _check_options(format, precision, images, portable)
    console = Console(stderr=True)
    source = find_model(model)
    beside = onnx_beside(source)
    if format == "web":
        folder = Path(output) if output else beside.with_name(f"{beside.stem}-web")
        done = _page(source, folder, precision, check, images, most_loss, onnxruntime_web, console)
    else:
        path = Path(output) if output else beside.with_suffix(SUFFIX[format])
        if path.suffix != SUFFIX[format]:
            raise HyMUNetError(
                f"a file of format {format} ends in {SUFFIX[format]}, but --output is {path}"
            )
        done = _file(source, path, format, precision, check, images, most_loss, portable, console)
        say(
            console,
            f"{path}: {memory_text(path.stat().st_size)}, weights in {precision}, input "
            f"{done.metadata['input']}",
        )
    if json:
        print(json_library.dumps(done.metadata, indent=2))
    return done


def _file(
    source: Path,
    path: Path,
    format: str,
    precision: str,
    check: Path | None,
    images: int | None,
    most_loss: float,
    portable: bool,
    console: Console,
) -> Exported:
    """One file, compared with the model before it is kept."""
    from hymunet.deploy import parity
    from hymunet.files import make_folder, replacing
    from hymunet.inference.predictor import Predictor

    make_folder(path.parent)
    predictor = Predictor(source, device="cpu", postprocess=False)
    cases: list[Any] | None = None
    data = "drawn"
    if check is not None:
        found, data = parity.read(Path(check), images or 100)
        cases = list(found)
    metadata, notes = describe(source, predictor, precision, format)
    for note in notes:
        say(console, f"note: {note}")
    say(console, f"tracing {metadata['name']}; this takes half a minute")
    built = _build(format, predictor, metadata, portable)
    with replacing(path) as temporary:
        built.save(temporary)
        file = built.predictor(temporary)
        with _samples(predictor, cases, images, console) as (samples, advance):
            agreement = parity.compare(predictor, file, samples, data, advance)
        say(console, agreement.describe())
        refuse_disagreement(agreement, precision, most_loss)
        metadata["agreement"] = agreement.to_dict()
        built.save(temporary)
    return Exported(path, metadata, agreement)


def _page(
    source: Path,
    folder: Path,
    precision: str,
    check: Path | None,
    images: int | None,
    most_loss: float,
    onnxruntime_web: Path | None,
    console: Console,
) -> Exported:
    """A folder with the page, the ONNX file and the browser's runtime."""
    from tempfile import TemporaryDirectory

    from hymunet.deploy.onnxruntime_web import runtime_files
    from hymunet.deploy.web import write_static_page
    from hymunet.files import make_folder

    make_folder(folder)
    runtime_files(onnxruntime_web)  # what cannot be had is said before half a minute of tracing
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.onnx"
        done = _file(source, path, "onnx", precision, check, images, most_loss, False, console)
        written = write_static_page(path, folder, onnxruntime_web)
    say(
        console,
        f"{folder}: {memory_text(sum(written.values()))}; open {folder / 'index.html'} by a "
        f"double-click, or serve the folder: python -m http.server --directory {folder}",
    )
    return replace(done, path=folder / "index.html")


def _build(
    format: str, predictor: "Predictor", metadata: dict[str, Any], portable: bool
) -> "OnnxFile | TorchFile":
    if format == "onnx":
        from hymunet.deploy.onnx_file import OnnxFile

        return OnnxFile(predictor, metadata)
    from hymunet.deploy.torch_file import TorchFile

    return TorchFile(predictor, metadata, portable)


def _check_options(format: str, precision: str, images: int | None, portable: bool) -> None:
    if format not in FORMATS:
        raise HyMUNetError(f"there is no format {format!r}; expected onnx, torch or web")
    if precision not in PRECISIONS:
        raise HyMUNetError(f"there is no precision {precision!r}; expected {', '.join(PRECISIONS)}")
    if format == "torch" and precision != "float32":
        raise HyMUNetError(f"--precision {precision} is not for --format torch; leave it out")
    if format != "torch" and portable:
        raise HyMUNetError("--portable is for --format torch; an ONNX file needs no package anyway")
    if images is not None and images < 1:
        raise HyMUNetError(f"--images must be 1 or more, not {images}")
    if format != "torch":
        require("export", "ONNX export", "onnx", "onnxscript", "onnxruntime")


def describe(
    source: Path, predictor: "Predictor", precision: str, format: str
) -> tuple[dict[str, Any], list[str]]:
    """What the file says of itself, and what a user has to know of it."""
    from hymunet.deploy.graph import PICTURE, WINDOW, interface_of, mask_values
    from hymunet.machine import versions
    from hymunet.network.model_file import model_identity
    from hymunet.network.pretrained import pretrained_file

    config, info, member = predictor.config, predictor.info, predictor.members[0]
    chosen = member.preprocess.config
    interface = interface_of(chosen, config.spatial_dims)
    values, as_stored = mask_values(info, config.num_labels)
    notes = []
    if format == "torch" and interface == PICTURE and chosen.resize != "squeeze":
        interface = WINDOW
        notes.append(
            f"a program of torch cannot pad pictures of any size (resize={chosen.resize!r}): it "
            "takes prepared images, whose sides are multiples of the network's stride; an ONNX "
            "file takes pictures"
        )
    if interface == PICTURE and not as_stored:
        notes.append(
            "masks of the model's data hold values above 255: `mask` holds class indices, and "
            "label_values in the metadata says which is which"
        )
    if info.get("postprocess"):
        notes.append(
            "the model file cleans masks up (largest part, holes), which an ONNX file does not; "
            "`predict` and `serve` do it, since its metadata say how"
        )
    packaged = pretrained_file(source.stem) == source
    axes = "height, width" if config.spatial_dims == 2 else "depth, height, width"
    if interface == PICTURE:
        takes = f"image uint8 (batch, height, width, {config.in_channels}), any size"
    else:
        size = chosen.patch_size
        sides = ", ".join(map(str, size)) if size else f"{axes}: multiples of {chosen.multiple}"
        takes = f"image float32 (batch, {config.in_channels}, {sides})"
    metadata = {name: info[name] for name in _COPIED if name in info}
    training = info.get("training") or {}
    # a run's file is called best.safetensors, whatever the run
    in_run = not packaged and source.stem == "best"
    name = source.resolve().parent.name if in_run else source.stem
    metadata |= {
        "name": name,
        "model": model_identity(source),
        "classes": predictor.classes,
        "activation": config.activation,
        "threshold": predictor.threshold,
        "label_values": info.get("label_values"),
        "mask_values": values if interface == PICTURE else None,
        "nested": config.activation == "sigmoid",
        "postprocess": info.get("postprocess"),
        "licence": info.get("licence"),
        "spacing": chosen.spacing_mm,
        "interface": interface,
        "input": takes,
        "precision": precision,
        "in_channels": config.in_channels,
        "num_classes": config.num_classes,
        "num_labels": config.num_labels,
        "spatial_dims": config.spatial_dims,
        "stride": config.stride,
        "preprocess": member.preprocess.to_dict(),
        "training": {"data": training["data"]} if "data" in training else {},
        "training_cases": len((info.get("cases") or {}).get("train") or []),
        "versions": versions("torch", "onnx", "onnxscript", "onnxruntime"),
    }
    return metadata, notes


@contextmanager
def _samples(
    predictor: "Predictor", cases: list[Any] | None, images: int | None, console: Console
) -> "Iterator[tuple[Iterator[Sample], Callable[[], None]]]":
    """What the file is compared on, and a progress bar to be advanced after each."""
    from hymunet.deploy import parity

    if cases is not None:
        total, samples = len(cases), parity.samples_of(cases, predictor)
    else:
        total = images or parity.DRAWN[predictor.config.spatial_dims]
        samples = parity.drawn(predictor, total)
    with counted(console, f"comparing {plural(total, 'image')}", total) as advance:
        yield samples, advance


def refuse_disagreement(agreement: "Agreement", precision: str, most_loss: float) -> None:
    """Raises where a file must not be used.

    Raises:
        HyMUNetError: If masks of float32 differ in more than 1e-4 of the pixels, or fewer bits cost
            more Dice than `most_loss`.
    """
    from hymunet.deploy.parity import MOST_DIFFERING

    share = agreement.differing / max(1, agreement.pixels)
    if precision == "float32" and share > MOST_DIFFERING:
        raise HyMUNetError(
            f"the exported file disagrees with the model: masks differ in {share:.3%} of the "
            f"pixels ({agreement.data}), at most {MOST_DIFFERING:.2%} was expected; nothing was "
            "written. Try other versions of torch, onnxscript and onnxruntime, and report it"
        )
    if precision != "float32" and agreement.loss > most_loss:
        raise HyMUNetError(
            f"weights in {precision} cost {agreement.loss:.4f} of Dice ({agreement.data}), more "
            f"than {most_loss:g}; nothing was written. Export in float32 or float16, or allow it "
            "by --most-loss"
        )
