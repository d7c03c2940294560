"""The figures of a model card as Markdown: scores, strata, calibration, robustness, failures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hymunet.evaluation.card_numbers import FAILURES
from hymunet.evaluation.formatting import format_value
from hymunet.evaluation.strata import STRATA
from hymunet.metrics.case import METRICS
from hymunet.wording import plural

WEAKEST = 3  # bands of cases, and corruptions, that are named as known failures
FEWEST = 10  # cases of a band that can be called weak


def results(numbers: Mapping[str, Any]) -> Iterator[str]:
    """The sections on what was measured; `numbers` as `card_numbers` made them."""
    evaluations = numbers["evaluations"]
    yield from ("## Results", "")
    if not evaluations:
        yield "Not measured yet."
        return
    yield (
        "Scores lie between 0 and 1; lengths are in pixels of the original image where no other "
        f"unit stands. In brackets: {evaluations[0]['interval']}. Definitions: docs/metrics.md."
    )
    for letter, entry in zip(_letters(evaluations), evaluations, strict=True):
        yield from ("", f"**{letter}**: {label(entry)}.")
        yield from ("", *(f"- {note}" for note in entry["notes"]))
    structures = list(dict.fromkeys(name for entry in evaluations for name in entry["classes"]))
    for structure in structures:
        heading = f"### {structure}: " if len(structures) > 1 else "### "
        yield from ("", f"{heading}Mean over images", "")
        yield from _scores(evaluations, _columns(evaluations, structure, "per_image"))
        yield from ("", f"{heading}Pooled over all pixels", "")
        yield from _scores(evaluations, _columns(evaluations, structure, "pooled"))
        yield from ("", f"{heading}By kind of case ({_letters(evaluations)[0]})", "")
        yield from _strata(evaluations[0], structure)
    if len(structures) > 1:
        yield from ("", "### All structures: Mean over images", "")
        columns = [entry.get("mean_of_classes", {}) for entry in evaluations]
        yield from _scores(evaluations, columns)
    if calibration := numbers.get("calibration"):
        yield from ("", "### Calibration", "", *_calibration(calibration))
    if robustness := numbers.get("robustness"):
        yield from ("", "### Robustness", "", *_robustness(robustness))


def known_failures(numbers: Mapping[str, Any]) -> Iterator[str]:
    """What goes wrong, by the figures: lost cases, weakest kinds of cases, worst pictures."""
    evaluations = numbers["evaluations"]
    if not evaluations:
        yield "Not measured yet."
        return
    for letter, entry in zip(_letters(evaluations), evaluations, strict=True):
        for structure, found in entry["classes"].items():
            counts = [f"{found['failures'][kind]} {words}" for kind, words in FAILURES.items()]
            name = f", {structure}" if len(entry["classes"]) > 1 else ""
            yield f"- {letter}{name}: of {plural(found['n'], 'case')} {', '.join(counts)}."
    first = evaluations[0]
    for structure, found in first["classes"].items():
        bands = [
            (band["dice"]["mean"], f"{stratum.lower()} {name}", band)
            for stratum, name, band in _bands(found)
            if band["n"] >= FEWEST
        ]
        mean = found["per_image"]["dice"]["mean"]
        weak = sorted((entry for entry in bands if entry[0] < mean), key=lambda entry: entry[0])
        for _, name, band in weak[:WEAKEST]:
            of = f"{structure}, " if len(first["classes"]) > 1 else ""
            yield (
                f"- Weaker than the mean of {mean:.4f}: {of}{name}, Dice "
                f"{_cell(band['dice'], 'dice')} ({plural(band['n'], 'case')})."
            )
    if robustness := numbers.get("robustness"):
        yield from _weakest_pictures(robustness)


def label(entry: Mapping[str, Any]) -> str:
    """What was evaluated: data, part, number of cases, test-time augmentation."""
    data, folder = entry["data"], entry.get("folder")
    words = [f"{data} ({folder})" if folder and folder != data else data]
    words.append(f"part {entry['split']}" if entry["split"] else "all cases")
    words.append(f"{plural(entry['n'], 'case')} in {plural(entry['groups'], 'group')}")
    words.append("with test-time augmentation" if entry.get("tta") else "single pass")
    return ", ".join(words)


def _letters(evaluations: Sequence[Any]) -> list[str]:
    return [chr(ord("A") + i) for i in range(len(evaluations))]


def _columns(
    evaluations: Sequence[Mapping[str, Any]], structure: str, key: str
) -> list[Mapping[str, Any]]:
    return [entry["classes"].get(structure, {}).get(key, {}) for entry in evaluations]


def _scores(
    evaluations: Sequence[Mapping[str, Any]], columns: Sequence[Mapping[str, Any]]
) -> Iterator[str]:
    """A row a metric, a column an evaluation; means with intervals, or plain values."""
    yield from _header(["metric", *_letters(evaluations)])
    for metric in METRICS:
        if any(metric in column for column in columns):
            values = [column.get(metric) for column in columns]
            yield _row([_named(metric, evaluations[0]), *(_cell(one, metric) for one in values)])


def _bands(found: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(heading of the stratum, name of the band, its figures) of one structure, in order."""
    for stratum in STRATA:
        bands = found.get("strata", {}).get(stratum.name, {})
        yield from ((stratum.label, name, bands[name]) for name in stratum.bands if name in bands)


def _strata(evaluation: Mapping[str, Any], structure: str) -> Iterator[str]:
    found = evaluation["classes"].get(structure, {})
    yield from _header(["kind", "cases", "Dice", "IoU"])
    for heading, name, band in _bands(found):
        scores = [_cell(band[metric], metric) for metric in ("dice", "iou")]
        yield _row([f"{heading}: {name}", str(band["n"]), *scores])
    yield ""
    for stratum in STRATA:
        yield f"- {stratum.label}: {stratum.description}."
    if cuts := found.get("cuts"):
        yield f"- Cut at {', '.join(f'{name} {value:.4g}' for name, value in cuts.items())}."


def _calibration(content: Mapping[str, Any]) -> Iterator[str]:
    yield f"{label(content)}. ECE: expected calibration error, 15 bins; both are 0 at best."
    yield from ("", *(f"- {note}" for note in content["notes"]))
    for structure, found in content["probabilities"].items():
        yield from (
            "",
            f"Probabilities of {structure}: ECE {_cell(found['ece'], 'dice')}, Brier score "
            f"{_cell(found['brier'], 'dice')}.",
            "",
        )
        yield from _header(["probability", "pixels", "mean probability", "share that is true"])
        for row in found["reliability"]:
            between = f"{row['low']:.2f} to {row['high']:.2f}"
            shares = [_number(row[key], "dice") for key in ("probability", "frequency")]
            yield _row([between, f"{row['pixels']:,}", *shares])
    if chosen := content.get("threshold"):
        metric = chosen["metric"]
        yield ""
        yield (
            f"Threshold: {chosen['chosen']:g} is best for {METRICS[metric].label} "
            f"({', '.join(f'{METRICS[key].label} {at:g}' for key, at in chosen['best'].items())}); "
            f"the model cut at {chosen['current']:g}. From {chosen['flat'][0]:g} to "
            f"{chosen['flat'][1]:g} the mean is within {chosen['flat_by']} of the best. "
            f"Gain over 0.5: {_change(chosen['gain'])}, on cases that did not choose it "
            f"{_change(chosen['gain_cross_fitted'])}."
        )
        yield ""
        yield from _header(["at", "Dice", "IoU"])
        for at, key in ((0.5, "at_half"), (chosen["chosen"], "at_chosen")):
            yield _row([f"{at:g}", *(_cell(chosen[key][name], name) for name in ("dice", "iou"))])


def _robustness(content: Mapping[str, Any]) -> Iterator[str]:
    clean = content["clean"]
    yield (
        f"{label(content)}; the same pictures untouched: Dice {_cell(clean['dice'], 'dice')}, "
        f"IoU {_cell(clean['iou'], 'iou')}. The change is that within each case; the last column "
        f"counts cases that lost more than {content['fell_by']} of Dice. What each corruption "
        "does: docs/metrics.md."
    )
    yield from ("", *(f"- {note}" for note in content["notes"]), "")
    yield from _header(["pictures", "Dice", "IoU", "change of Dice", "lost"])
    for entry in content["corruptions"]:
        cells = [_cell(entry[measure], measure) for measure in ("dice", "iou")]
        lost = f"{entry['fell']} of {entry['n']}"
        yield _row(
            [f"{entry['kind']}: {entry['corruption']}", *cells, _change(entry["dice_change"]), lost]
        )


def _weakest_pictures(robustness: Mapping[str, Any]) -> Iterator[str]:
    """The corruptions whose loss is certain, the largest first."""
    certain = [
        entry
        for entry in robustness["corruptions"]
        if entry["dice_change"]["high"] is not None and entry["dice_change"]["high"] < 0
    ]
    for entry in sorted(certain, key=lambda entry: entry["dice_change"]["mean"])[:WEAKEST]:
        yield (
            f"- Pictures changed by {entry['kind']} ({entry['corruption']}): change of Dice "
            f"{_change(entry['dice_change'])}, {entry['fell']} of {plural(entry['n'], 'case')} "
            "lost."
        )


def _change(mean: Mapping[str, float | None] | None) -> str:
    """`-0.0312 (-0.0401 to -0.0223)`."""
    if mean is None:
        return "–"
    text = f"{mean['mean']:+.4f}"
    if mean.get("low") is None:
        return text
    return f"{text} ({mean['low']:+.4f} to {mean['high']:+.4f})"


def _named(metric: str, evaluation: Mapping[str, Any]) -> str:
    kind = METRICS[metric].unit
    unit = evaluation.get(f"{kind}_unit") if kind else None
    return METRICS[metric].label + (f", {unit}" if unit else "")


def _cell(mean: Mapping[str, float | None] | float | None, metric: str) -> str:
    """`0.8930 (0.8812 to 0.9046)`; a plain value as it is."""
    if not isinstance(mean, Mapping):
        return _number(mean, metric)
    text = _number(mean["mean"], metric)
    if mean.get("low") is None:
        return text
    return f"{text} ({_number(mean['low'], metric)} to {_number(mean['high'], metric)})"


def _number(value: float | None, metric: str) -> str:
    """Four decimals for ratios: what decides between two models is often the third."""
    if value is not None and METRICS[metric].unit == "":
        return f"{value:.4f}"
    return format_value(value, metric)


def _header(names: Sequence[str]) -> list[str]:
    return [_row(names), "|" + "---|" * len(names)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
