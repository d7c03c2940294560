"""Before a run starts: a look at the data, what is wrong with them, and every setting decided."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from hymunet.console import counted, say
from hymunet.data.cache import default_cache_folder
from hymunet.data.case import Dataset
from hymunet.data.findings import Finding
from hymunet.data.label_scheme import unnamed
from hymunet.data.masks_io import listed
from hymunet.data.splits import Split
from hymunet.data.survey import CaseSurvey, survey
from hymunet.data.verify import verify
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder, write_text
from hymunet.training.initial import origin_of
from hymunet.training.loading import draw_split, test_part
from hymunet.training.options import OPEN, TrainOptions
from hymunet.training.planning.look import Origin
from hymunet.training.planning.plan import Plan, Settings, make_plan, settle
from hymunet.training.run_folder import RunFolder
from hymunet.wording import shortened


@dataclass(frozen=True)
class Decision:
    """What was decided before a run, and from what.

    Args:
        settings: All of them.
        plan: Those that hang on the data, each with its reason.
        findings: What `verify` says of the data, no errors among them.
        rows: What was seen of each case.
        split: Which case is in which part; None: not drawn.
    """

    settings: Settings
    plan: Plan
    findings: tuple[Finding, ...]
    rows: Sequence[CaseSurvey]
    split: Split | None = None

    def but(self, name: str, value: Any, reason: str) -> "Decision":
        """The same with another value for one setting."""
        settings = replace(self.settings, **{name: value})
        return replace(self, settings=settings, plan=self.plan.but(name, value, reason))


def decide(
    dataset: Dataset,
    options: TrainOptions,
    console: Console,
    started: Path = Path(),
    given: Split | None = None,
) -> Decision:
    """Looks at the data, refuses what cannot be trained on, and decides what was left open.

    Args:
        dataset: The cases that are to be used.
        options: What somebody chose.
        console: Where to report.
        started: What `save_start` wrote, where a run is resumed that began with a model.
        given: The split, where there is one; else it is drawn here, before anything is decided, so
            that no case that judges has a say.

    Raises:
        HyMUNetError: If `verify` finds errors, or options and data contradict each other.
    """
    with counted(console, "looking at cases", len(dataset.cases)) as advance:
        rows = survey(dataset, make_folder(default_cache_folder() / "survey"), advance)
    findings = verify(dataset, rows, options.structures)
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        shown = "\n  ".join(_worded(finding) for finding in errors[:10])
        more = f"\n  and {len(errors) - 10} more" if len(errors) > 10 else ""
        raise HyMUNetError(
            f"{dataset.root} cannot be trained on as it is; `hymunet verify` shows it with "
            f"pictures:\n  {shown}{more}"
        )
    for finding in findings:
        if finding.level == "warning":
            say(console, f"warning: {_worded(finding)}", "yellow")
    origin = origin_of(options, started)
    trained = origin.cases if origin is not None else frozenset()
    split = given or draw_split(dataset.cases, rows, options, trained, test_part(dataset))
    return decided(dataset, rows, findings, options, origin, split)


def decided(
    dataset: Dataset,
    rows: Sequence[CaseSurvey],
    findings: Sequence[Finding],
    options: TrainOptions,
    origin: Origin | None = None,
    split: Split | None = None,
) -> Decision:
    """As `decide`, where the data have been looked at and hold no error."""
    teaching = None if split is None else split.train
    plan = make_plan(dataset, rows, options, uses_gpu(options), origin, teaching)
    return Decision(settle(options, plan), plan, tuple(findings), rows, split)


def network_sees(plan: Plan) -> str:
    """In what pieces and of what size the network gets images, in words."""
    if plan["patch_size"] is not None:
        return f"windows of {' x '.join(map(str, plan['patch_size']))}"
    if plan["image_size"] is not None:
        return f"whole pictures at {plan['image_size']} x {plan['image_size']}"
    return "whole pictures at their own size"


def say_choices(plan: Plan, console: Console, but: Sequence[str] = ()) -> None:
    """What the plan chose, a line each, `but` what is still to be measured."""
    for choice in plan.choices:
        known = choice.reason == "as given" or choice.value is None or choice.name in but
        if choice.name in OPEN and not known:
            say(console, f"  {choice.name}: {shown_value(choice.value)} ({choice.reason})")


def uses_gpu(options: TrainOptions) -> bool:
    """Whether a training with these options runs on a GPU here.

    Raises:
        HyMUNetError: If one is asked for and there is none.
    """
    if options.device == "cuda" and not torch.cuda.is_available():
        raise HyMUNetError("there is no CUDA device here; leave --device out to use the CPU")
    return options.device != "cpu" and torch.cuda.is_available()


def save_decision(run: RunFolder, decision: Decision) -> None:
    """plan.json: each choice with its reason, and what `verify` found."""
    content: dict[str, Any] = {
        "plan": decision.plan.to_json(),
        "findings": [asdict(finding) for finding in decision.findings],
    }
    write_text(run.plan, json.dumps(content, indent=1) + "\n")


def class_names(dataset: Dataset, settings: Settings) -> list[str]:
    """Of the structures, class index 1 first."""
    if settings.activation == "sigmoid" and settings.structures > 1 and dataset.regions:
        return list(dataset.regions)
    names = dataset.label_names or {}
    if len(names) == settings.structures:
        return [names[index] for index in sorted(names)]
    return unnamed(settings.structures)


def shown_value(value: object) -> str:
    """A value as it would be typed."""
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)


def _worded(finding: Finding) -> str:
    named = finding.cases and finding.check != "readable"  # its message names the file
    cases = f" [{listed(map(shortened, finding.cases), 3)}]" if named else ""
    return f"{finding.check}: {finding.message}{cases}"
