"""A model traced into an ONNX file, a program of torch or a web page, and compared with the model
before it is kept."""

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from hymunet.console import counted, say
from hymunet.errors import HyMUNetError
from hymunet.wording import memory_text, plural

if TYPE_CHECKING:
    from hymunet.deploy.onnx_file import OnnxFile
    from hymunet.deploy.parity import Agreement, Sample
    from hymunet.deploy.torch_file import TorchFile
    from hymunet.inference.predictor import Predictor

# entries of a model file that stand in the exported one as they are
_COPIED = ("licence_url", "sources", "domain", "risk_control", "not_a_medical_device")


@dataclass(frozen=True)
class Exported:
    """What `export` wrote.

    Args:
        path: The file, the page, or the folder of a bundle or of the Hub.
        metadata: What it says of itself.
        agreement: With the model, on which images; None of folders that hold the model file itself,
            where nothing was traced.
    """

    path: Path
    metadata: dict[str, Any]
    agreement: "Agreement | None" = None


def write_file(
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


def write_page(
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
    from hymunet.deploy.own_folder import make_own_folder
    from hymunet.deploy.web import write_static_page

    make_own_folder(folder, "web")
    runtime_files(onnxruntime_web)  # what cannot be had is said before half a minute of tracing
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "model.onnx"
        done = write_file(source, path, "onnx", precision, check, images, most_loss, False, console)
        written = write_static_page(path, folder, onnxruntime_web)
    say(
        console,
        f"{folder}: {memory_text(sum(written.values()))}; open {folder / 'index.html'} by a "
        "double-click, or serve the folder: "
        f"{shlex.join(('python', '-m', 'http.server', '--directory', str(folder)))}",
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


def describe(
    source: Path, predictor: "Predictor", precision: str, format: str
) -> tuple[dict[str, Any], list[str]]:
    """What the file says of itself, and what a user has to know of it."""
    from hymunet.deploy.graph import PICTURE, WINDOW, interface_of, mask_values
    from hymunet.machine import versions
    from hymunet.network.hub import model_name
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
    name = source.stem if packaged else model_name(source)
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
