"""`hymunet info`: what a preset or a model file is made of, costs and sees."""

import json as json_library
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from hymunet.network.pretrained import headline_scores, score_text, scored_on
from hymunet.network.promise import described_threshold, postprocess_text


def info(
    model: Path | None = None,
    *,
    preset: Literal["tiny", "small", "base"] = "tiny",
    in_channels: int = 3,
    num_classes: int = 1,
    spatial_dims: Literal[2, 3] = 2,
    stages: str = "CCMM",
    skip: Literal["mgf", "concat", "attention"] = "mgf",
    image_size: int | None = None,
    json: bool = False,
) -> dict[str, Any]:
    """Shows a network: parameters, multiply-adds, receptive field, a row a stage.

    Args:
        model: A model file, a run folder or a packaged model's name (`hymunet models` lists them):
            what it is for and how good it is are shown too, all of its metadata with --json.
            Without it: the preset.
        preset: Size of the network.
        in_channels: Channels of the image.
        num_classes: Output channels.
        spatial_dims: 2 for pictures, 3 for volumes.
        stages: A letter a stage: C convolution, M Visual Mamba, A attention.
        skip: How encoder features reach the decoder.
        image_size: Side of the image for which multiply-adds are counted, rounded up to what the
            network takes; default: the model's own, else 256, and 64 for volumes.
        json: Print JSON instead of a table.

    Raises:
        HyMUNetError: If the model file cannot be used, or sizes or letters are none.
    """
    from hymunet.errors import HyMUNetError
    from hymunet.network.hymunet import PRESETS
    from hymunet.network.model_file import load_model
    from hymunet.network.summary import summarise

    metadata: dict[str, Any] = {}
    if model is not None:
        network, metadata = load_model(model)
    else:
        if preset not in PRESETS:
            raise HyMUNetError(f"preset must be one of {', '.join(PRESETS)}, not {preset!r}")
        network = PRESETS[preset](
            in_channels, num_classes, spatial_dims=spatial_dims, stages=stages, skip=skip
        )
    if image_size is None:
        own = (metadata.get("preprocess") or {}).get("image_size")
        image_size = max(own) if own else 256 if network.config.spatial_dims == 2 else 64
    if image_size < 1:
        raise HyMUNetError(f"image_size must be 1 pixel or more, not {image_size}")
    stride = network.config.stride
    side = -(-image_size // stride) * stride
    summary = summarise(network, (side,) * network.config.spatial_dims)
    shown = {k: v for k, v in metadata.items() if k not in ("cases", "architecture")}
    result = {"summary": asdict(summary), "config": asdict(network.config), "metadata": shown}
    if json:
        print(json_library.dumps(result, indent=2))
    else:
        _print(summary, result, str(model or preset))
    return result


def _print(summary: Any, result: dict[str, Any], name: str) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    size = " x ".join(map(str, summary.image_size))
    table = Table(
        title=f"HyM-UNet {name}: {result['config']['stages']} at {size}",
        title_justify="left",
        box=SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("part", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for heading in ("output", "parameters", "mult-adds", "scan", "sees"):
        table.add_column(heading, justify="right", no_wrap=True)
    for part in summary.parts:
        encoder = part.name == "stem" or part.name.startswith("encoder")
        field = "all" if encoder else ""
        table.add_row(
            part.name,
            part.kind,
            "x".join(map(str, part.shape)),
            f"{part.parameters:,}",
            f"{part.multiply_adds / 1e6:,.0f} M",
            f"{part.scan_updates / 1e6:,.0f} M" if part.scan_updates else "",
            str(part.receptive_field) if part.receptive_field else field,
        )
    table.add_section()
    table.add_row(
        "all", "", "", f"{summary.parameters:,}", f"{summary.multiply_adds / 1e6:,.0f} M",
        f"{summary.scan_updates / 1e6:,.0f} M", "",
    )  # fmt: skip
    console = Console()
    console.print(table)
    console.print(
        "scan: state updates, 5 multiply-adds and 1 exponential each; sees: side in pixels that an "
        "output position depends on; sides must be multiples of "
        f"{result['config']['stem_stride'] * 2 ** (len(result['config']['stages']) - 1)} "
        "(predict pads for you)",
        highlight=False,
    )
    if result["metadata"]:
        facts = Table(box=None, show_header=False, pad_edge=False)
        facts.add_column(no_wrap=True)
        facts.add_column()
        for label, text in _essentials(result["metadata"]):
            facts.add_row(label, Text(text))  # plain: brackets are no markup
        console.print()
        console.print(facts)


def _essentials(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    """What a user of a model has to know of it, as far as its file says it."""
    training = metadata.get("training") or {}
    preprocess = metadata.get("preprocess") or {}
    options = training.get("options") or {}
    size = preprocess.get("image_size")
    shown = {
        "for": metadata.get("domain"),
        "licence": metadata.get("licence") or "not stated: that of its training data applies",
        "use": "research only, not a medical device",
        "finds": ", ".join(metadata.get("classes") or []),
        "trained on": training.get("data"),
        "split": training.get("split_sha256"),
        "recipe": ", ".join(f"{name} {value}" for name, value in options.items()),
        "network sees": f"{' x '.join(map(str, size))} px" if size else None,
        "threshold": described_threshold(metadata),
        "post-processing": postprocess_text(metadata.get("postprocess")),
    }
    rows = [(label, str(value)) for label, value in shown.items() if value not in (None, "")]
    for score in headline_scores(metadata):
        scores = f"per-image Dice {score_text(score, 'dice')}, IoU {score_text(score, 'iou')}"
        rows.append(("scores", f"{score['data']}, {scored_on(score)}: {scores}"))
    return [*rows, ("more", "--json shows all of the metadata")]
