"""What a profile says: a row a cell, how costs grow with pixels and depth, where the time goes."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from hymunet.experiments.profile.cells import Record
from hymunet.experiments.profile.exponents import (
    power_law,
    power_steps,
    slope,
    slope_steps,
    verdict,
)
from hymunet.network.summary import SCAN_MULTIPLY_ADDS


def summarise_profile(records: Sequence[Record], conditions: Mapping[str, Any]) -> dict[str, Any]:
    """All that profile.json holds, but for how it was made.

    Returns:
        `conditions`; `cells`, a flat row each, as in profile.csv; `networks`, each with its growth
        over sizes (`time`, `memory`, `arithmetic`, `parts`), over `depth` where several were
        measured, and its `breakdown` at the largest size that was timed.
    """
    names = list(dict.fromkeys(record.cell.network for record in records))
    return {
        "conditions": dict(conditions),
        "cells": [_row(record) for record in records],
        "networks": [
            _network(name, [record for record in records if record.cell.network == name])
            for name in names
        ],
    }


def missing(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line for each cell without a time: not run, out of memory, failed, and why."""
    lines = []
    for row in rows:
        if row["reason"] is not None:
            depth = "" if row["depth"] is None else f", depth {row['depth']}"
            where = f"{row['network']} at {row['size']}{depth}"
            lines.append(f"{where}: {row['status']}: {row['reason']}")
    return lines


def _row(record: Record) -> dict[str, Any]:
    return {
        "network": record.cell.network,
        "stages": record.cell.config["stages"],
        "size": record.cell.side,
        "depth": record.cell.depth,
        "pixels": record.cell.pixels,
        "parameters": record.parameters,
        "multiply_adds": record.multiply_adds,
        "scan_updates": record.scan_updates,
        "scan_multiply_adds": SCAN_MULTIPLY_ADDS * record.scan_updates,
        "scan_exps": record.scan_updates,
        "median_s": statistics.median(record.times_s) if record.times_s else None,
        "fastest_s": min(record.times_s, default=None),
        "slowest_s": max(record.times_s, default=None),
        "rounds": len(record.times_s),
        "peak_bytes": record.peak_bytes,
        "estimated_bytes": record.estimated_bytes,
        "status": record.status,
        "reason": record.reason,
    }


def _network(name: str, records: Sequence[Record]) -> dict[str, Any]:
    by_size = sorted((r for r in records if r.cell.depth is None), key=lambda r: r.cell.side)
    timed = [record for record in by_size if record.times_s]
    weighed = [record for record in by_size if record.peak_bytes]
    counted = [record for record in by_size if record.parts]
    out: dict[str, Any] = {
        "name": name,
        "stages": records[0].cell.config["stages"],
        "parameters": records[0].parameters if counted else None,
        "time": _growth(timed, _rounds(timed)),
        "memory": _growth(weighed, [[float(r.peak_bytes or 0) for r in weighed]], exact=True),
        "arithmetic": _growth(counted, [[float(r.work) for r in counted]], exact=True),
        "parts": _part_growth(timed),
        "breakdown": breakdown(timed[-1]) if timed else None,
        "depth": None,
    }
    deep = sorted((r for r in records if r.cell.depth is not None), key=lambda r: r.cell.depth or 0)
    if len(deep) > 1:
        out["depth"] = _depth(deep)
    return out


def _rounds(records: Sequence[Record]) -> list[list[float]]:
    """The times of each round that all of `records` have."""
    if not records:
        return []
    return [list(times) for times in zip(*(r.times_s for r in records), strict=False)]


def _growth(
    records: Sequence[Record], rounds: Sequence[Sequence[float]], exact: bool = False
) -> dict[str, Any] | None:
    """Exponent of the pixels, over all sizes and between neighbours; None with a single size."""
    if len(records) < 2:
        return None
    pixels = [record.cell.pixels for record in records]
    sides = [record.cell.side for record in records]
    fit, each = power_law(pixels, rounds), power_steps(sides, pixels, rounds)
    return {
        "sizes": sides,
        "exponent": asdict(fit),
        "steps": [asdict(step) for step in each],
        "verdict": verdict(fit, each, exact),
    }


def _part_growth(records: Sequence[Record]) -> dict[str, dict[str, float | None]] | None:
    """The time exponent of each part over all sizes; parts too short to be seen are left out."""
    if len(records) < 2:
        return None
    pixels = [record.cell.pixels for record in records]
    found: dict[str, dict[str, float | None]] = {}
    for part in records[0].stages_s[0]:
        rounds = [
            [record.stages_s[i][part] for record in records]
            for i in range(min(len(record.stages_s) for record in records))
        ]
        if all(value > 0 for values in rounds for value in values):
            found[part] = asdict(power_law(pixels, rounds))
    return found


def breakdown(record: Record) -> dict[str, Any]:
    """Each part's parameters, multiply-adds, scan updates and seconds, for one image size.

    The seconds are those of the one pass whose duration is the median of all: medians of parts
    would not add up to that of the whole.
    """
    passes = sorted(record.stages_s, key=lambda parts: sum(parts.values()))
    median = passes[len(passes) // 2]
    counts = {part["name"]: part for part in record.parts}
    rows = []
    for name, seconds in median.items():
        part = counts.get(name, {})
        row = {"name": name, "kind": part.get("kind", ""), "seconds": seconds}
        for key in ("parameters", "multiply_adds", "scan_updates"):
            row[key] = part.get(key, 0)
        row["work"] = row["multiply_adds"] + SCAN_MULTIPLY_ADDS * row["scan_updates"]
        rows.append(row)
    return {"size": record.cell.side, "seconds": sum(median.values()), "parts": rows}


def _depth(records: Sequence[Record]) -> dict[str, Any]:
    """What a further block in every stage costs: seconds, bytes and multiply-adds, over all depths
    and between neighbours. Where it is linear in the depth, these are alike."""
    timed = [record for record in records if record.times_s]
    weighed = [record for record in records if record.peak_bytes]
    out: dict[str, Any] = {"size": records[0].cell.side, "time": None, "memory": None}
    measured = {
        "time": (timed, _rounds(timed)),
        "memory": (weighed, [[float(r.peak_bytes or 0) for r in weighed]]),
        "parameters": (records, [[float(r.parameters) for r in records]]),
        "arithmetic": (records, [[float(r.work) for r in records]]),
    }
    for name, (those, rounds) in measured.items():
        depths = [record.cell.depth or 0 for record in those]
        if len(those) > 1:
            each = slope_steps(depths, rounds)
            out[name] = {
                "depths": depths,
                "a_block": asdict(slope(depths, rounds)),
                "steps": [asdict(step) for step in each],
            }
    return out
