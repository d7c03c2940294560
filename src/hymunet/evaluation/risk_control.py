"""What `hymunet calibrate --miss-rate` says and keeps: the threshold, its bound, what it costs, and
what it does not promise."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hymunet.evaluation import tables
from hymunet.evaluation.miss_rates import MissRates
from hymunet.metrics.overlap import Counts, dice, precision
from hymunet.metrics.risk_control import LOSS, cases_needed
from hymunet.wording import plural, some_of

if TYPE_CHECKING:
    from hymunet.inference.predictor import Predictor

FEW = 5  # times the fewest cases; below, a fifth or more of the rate is a margin
SOURCE = "conformal risk control, https://arxiv.org/abs/2208.02814"
MARGINAL = (
    "an average over new cases, and over sets like the one that chose the threshold: not for each "
    "image, not for each subgroup (small, pale, rare), and a single set may lie above it"
)
ASSUMES = (
    "new cases are exchangeable with these: same source, same labelling, one case a patient; "
    "nothing about the model was chosen on these; the mask is p >= threshold at the image's own "
    "size, without clean-up"
)


def miss_rate(counts: Counts) -> float:
    """fn / (tp + fn), the loss that is controlled: 0 without a structure."""
    return counts.fn / counts.target if counts.target else 0.0


_SHOWN = {"miss_rate": miss_rate, "precision": precision, "dice": dice}


def summarise_risk(found: MissRates, rate: float, predictor: "Predictor") -> dict[str, Any]:
    """What `risk_control` of the summary holds.

    Args:
        found: Of `control`.
        rate: The miss rate that was asked for.
        predictor: The model.

    Returns:
        `miss_rate`, `structure`, `threshold`, `n`, `needed`, `without_structure`, `loss`,
        `achieved` and `bound` (see `hymunet.metrics.risk_control.Controlled`); `current` (the
        model's threshold so far); `at_chosen` and `at_half` ({miss_rate, precision, dice} as mean,
        low, high over cases); `change` (the first minus the second, paired); `above` (cases that
        miss more than the rate) and `worst` (the largest miss of one); `marginal`, `assumes`,
        `source`.
    """
    at = {
        name: np.array([[of(counts) for counts in cases] for of in _SHOWN.values()])
        for name, cases in (("at_chosen", found.at_chosen), ("at_half", found.at_half))
    }
    at["change"] = at["at_chosen"] - at["at_half"]
    controlled, missed = found.controlled, at["at_chosen"][0]
    everyone = range(controlled.n)
    return {
        "miss_rate": rate,
        "structure": found.structure,
        "threshold": controlled.threshold,
        "current": predictor.threshold,
        "n": controlled.n,
        "needed": cases_needed(rate),
        "without_structure": controlled.without_structure,
        "loss": LOSS,
        "achieved": controlled.achieved,
        "bound": controlled.bound,
        **{
            name: {
                metric: tables.mean_of(row, everyone)
                for metric, row in zip(_SHOWN, values, strict=True)
            }
            for name, values in at.items()
        },
        "above": int((missed > rate).sum()),
        "worst": float(missed.max()),
        "marginal": MARGINAL,
        "assumes": ASSUMES,
        "source": SOURCE,
    }


def case_rows(found: MissRates) -> list[dict[str, Any]]:
    """A row a case: its pixels of the structure, and miss rate, precision and Dice at both."""
    rows = []
    for case, chosen, half in zip(found.cases, found.at_chosen, found.at_half, strict=True):
        row: dict[str, Any] = {"case": case.id, "group": case.group or case.id}
        row["target_pixels"] = chosen.target
        for counts, ending in ((chosen, ""), (half, "_at_half")):
            row |= {f"{name}{ending}": of(counts) for name, of in _SHOWN.items()}
        rows.append(row)
    return rows


def risk_notes(risk: Mapping[str, Any]) -> list[str]:
    """What a reader has to know of this one."""
    notes = []
    if risk["n"] < FEW * risk["needed"]:
        allowed = max(0.0, (risk["miss_rate"] * (risk["n"] + 1) - 1) / risk["n"])
        notes.append(
            f"{plural(risk['n'], 'case is', 'cases are')} few for {100 * risk['miss_rate']:g} %: "
            f"to be safe, they may miss {allowed:.1%} themselves; more cases give a higher "
            "threshold"
        )
    if empty := risk["without_structure"]:
        share = min(1.0, risk["miss_rate"] * risk["n"] / (risk["n"] - empty))
        notes.append(
            f"{some_of(empty, risk['n'], 'case', ('holds', 'hold'))} no {risk['structure']}, "
            f"counted as missing nothing: in those that hold it up to {share:.1%} may be missed on "
            "average"
        )
    return notes


def file_record(summary: Mapping[str, Any], hashes: Sequence[str]) -> dict[str, Any]:
    """What a model file keeps beside the threshold; without a date, so that equal calibrations
    make equal files."""
    risk, cases = summary["risk_control"], sorted(hashes)
    kept = (
        "miss_rate", "threshold", "structure", "n", "without_structure", "achieved", "bound",
        "loss", "source",
    )  # fmt: skip
    return {name: risk[name] for name in kept} | {
        "data": summary["data"],
        "split": summary["split"],
        "tta": summary["tta"],
        "cases_sha256": hashlib.sha256("\n".join(cases).encode()).hexdigest(),
        "cases": cases,
    }
