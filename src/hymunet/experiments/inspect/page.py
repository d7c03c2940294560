"""An inspection as one HTML file for people, with its maps in it; needs no network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hymunet.evaluation.formatting import format_interval, format_value
from hymunet.evaluation.page import render, style_sheet
from hymunet.evaluation.provenance import how_made
from hymunet.evaluation.seen import CUT, FORCED, OPTIMISTIC
from hymunet.evaluation.strata import STRATA
from hymunet.evaluation.thumbnails import Thumbnail, thumbnail
from hymunet.experiments.inspect import figures
from hymunet.experiments.inspect.features import principal_components, rms
from hymunet.experiments.inspect.inspector import Inspector
from hymunet.experiments.inspect.observe import observe
from hymunet.experiments.inspect.receptive_field import CentredMean
from hymunet.experiments.inspect.terminal import (
    format_px,
    format_ratio,
    format_ratio_interval,
    level_name,
    memory_of,
    verdict,
)
from hymunet.experiments.inspect.view import Example
from hymunet.files import write_text


def write_page(
    path: Path,
    summary: Mapping[str, Any],
    notes: Sequence[str],
    inspector: Inspector,
    examples: Sequence[Example],
) -> None:
    """Writes the self-contained page.

    Args:
        path: The file to write, normally inspect.html.
        summary: What `inspect.json` holds.
        notes: For people.
        inspector: The maps behind the numbers.
        examples: Cases whose gates are shown, the first one's features too; pictures only (of
            volumes the page has no maps of single cases).

    Raises:
        HyMUNetError: If the file cannot be written.
    """
    filters = {
        "value": format_value,
        "interval": format_interval,
        "px": format_px,
        "ratio": format_ratio,
        "ratio_interval": format_ratio_interval,
        "level": level_name,
    }
    axis, flat = _strata_axis(summary), inspector.config.spatial_dims == 2
    page = render(
        "hymunet.experiments.inspect/page.html.jinja",
        filters,
        style=style_sheet(),
        summary=summary,
        notes=notes,
        warnings=[n for n in notes if n.startswith(FORCED) or OPTIMISTIC in n or CUT in n],
        verdict=verdict(summary["gates"]),
        memory_of=memory_of,
        strata=STRATA,
        axis=axis,
        at=lambda value: None if value is None else 100 * (value - axis[0]) / (axis[1] - axis[0]),
        decibels=figures.DECIBELS,
        fields=_field_maps(summary, inspector),
        influence=_influence_maps(summary, inspector),
        sizes=figures.structures_and_fields(inspector.diameters, summary["fields"]),
        memory=_memory_chart(inspector),
        spectrum=_spectrum_chart(summary, inspector),
        examples=_gates(examples, inspector) if flat else [],
        features=_features_of(examples[0], inspector) if flat and examples else None,
        made=how_made(summary, None)[0]["rows"],
    )
    write_text(path, page)


def _slice(mean: CentredMean) -> np.ndarray:
    """A map for the eye: of a volume, the slice through its centre."""
    return mean.mean if mean.mean.ndim == 2 else mean.mean[mean.centre[0]]


def _field_maps(summary: Mapping[str, Any], inspector: Inspector) -> list[figures.Map]:
    maps = []
    for row, mean in zip(summary["fields"], inspector.fields, strict=True):
        if mean.count:
            numbers = row["images"]
            caption = f"{row['part']}: 50 % within {format_px(numbers['d50'])} px, "
            caption += f"95 % within {format_px(numbers['d95'])} px"
            alt = f"Effective receptive field of {caption}"
            stride = max(row["stride"], inspector.config.stem_stride)
            maps.append(figures.field_map(_slice(mean), alt, caption, stride / 2))
    return maps


def _influence_maps(summary: Mapping[str, Any], inspector: Inspector) -> list[figures.Map]:
    maps = []
    for row in summary["influence"]:
        mean = inspector.influence[int(row["part"].split()[1]) - 1]
        if mean.count:
            caption = (
                f"{row['part']}: {row['own_share'] * 100:.0f} % from the token itself; of the "
            )
            caption += f"rest 50 % within {format_px(row['others_px']['d50'])} px, 95 % within "
            caption += f"{format_px(row['others_px']['d95'])} px"
            alt = f"Influence of all tokens on the middle one, {caption}"
            maps.append(figures.field_map(_slice(mean), alt, caption))
    return maps


def _memory_chart(inspector: Inspector) -> "figures.Chart | None":
    if not inspector.memory or inspector.grid is None:
        return None
    tokens = {}
    for stage in inspector.memory:
        grid = [side // inspector.strides[stage] for side in inspector.grid]
        tokens[stage] = (grid[-1], int(np.prod(grid)))
    return figures.memory_chart(inspector.memory, tokens)


def _spectrum_chart(summary: Mapping[str, Any], inspector: Inspector) -> "figures.Chart | None":
    if inspector.spectrum is None:
        return None
    periods = [row["period_px"] for row in summary["checkerboard"]]
    return figures.spectrum_chart(inspector.spectrum / inspector.spectra, periods)


def _strata_axis(summary: Mapping[str, Any]) -> tuple[float, float]:
    """From the lowest bound of any band, rounded down to a tenth, to 1."""
    if summary["scores"] is None:
        return 0.0, 1.0
    lows = [
        band["dice"]["mean"] if band["dice"]["low"] is None else band["dice"]["low"]
        for entry in summary["scores"]["classes"].values()
        for bands in entry["strata"].values()
        for band in bands.values()
    ]
    return (min(0.9, float(np.floor(min(lows) * 10) / 10)) if lows else 0.0), 1.0


def _picture(example: Example) -> Thumbnail:
    image = example.truth.image
    return thumbnail(image.pixels if image else None, example.truth.labels, example.predicted)


def _gates(examples: Sequence[Example], inspector: Inspector) -> list[dict[str, Any]]:
    """Cases with, at each gated skip, the gate's mean over channels; the colours of a skip are the
    same in all cases."""
    gates = [
        {
            skip.level: skip.gate[0].mean(dim=0).cpu().numpy()
            for skip in observe(inspector.network, example.view.image).skips
            if skip.gate is not None
        }
        for example in examples
    ]
    shown = []
    for example, own in zip(examples, gates, strict=True):
        inside = example.view.inside
        outlines = {"truth": inside.numpy()} if bool(inside.any()) else {}
        maps = []
        for level, gate in own.items():
            low, high = (float(f([f(one[level]) for one in gates])) for f in (np.min, np.max))
            caption = f"skip {level + 1}: {gate.min():.2f} to {gate.max():.2f}, "
            caption += f"colours {low:.2f} to {high:.2f}"
            alt = f"Gate of {example.case} at {caption}, mean over channels"
            maps.append(figures.heat_map(gate, low, high, alt, caption, **outlines))
        shown.append(
            {
                "case": example.case,
                "dice": example.dice,
                "labelled": example.dice is not None,
                "picture": _picture(example),
                "maps": maps,
            }
        )
    return shown


def _features_of(example: Example, inspector: Inspector) -> dict[str, Any]:
    """Encoder and decoder features of a case, a row a scale: energy and principal components."""
    seen = observe(inspector.network, example.view.image)
    decoded = {skip.level: skip.decoded for skip in seen.skips}
    rows = []
    for level, encoded in enumerate(seen.stage_outputs):
        maps = []
        for side, feature in (("encoder", encoded), ("decoder", decoded.get(level))):
            if feature is None:
                continue
            energy = rms(feature).numpy()
            low, high = (float(v) for v in np.percentile(energy, [1, 99]))
            caption = f"{side} {level + 1}, RMS {low:.2g} to {high:.2g}"
            alt = f"Root mean square over channels, {caption}"
            maps.append(figures.heat_map(energy, low, high, alt, caption))
            components, shares = principal_components(feature)
            told = ", ".join(f"{share * 100:.0f}" for share in shares)
            caption = f"{side} {level + 1}, components: {told} %"
            alt = f"First three principal components as red, green and blue, {caption} of variance"
            maps.append(figures.colour_map(components.numpy(), alt, caption))
        rows.append(maps)
    return {"case": example.case, "rows": rows}
