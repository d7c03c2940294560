"""A run is of the data that it began with: their fingerprints, kept in the run folder."""

import json
from collections.abc import Sequence

from hymunet.data.cache import CaseFacts
from hymunet.data.masks_io import listed
from hymunet.errors import HyMUNetError
from hymunet.files import write_text
from hymunet.training.run_folder import RunFolder
from hymunet.wording import plural


def save_fingerprints(run: RunFolder, facts: Sequence[CaseFacts]) -> None:
    """data.json: id -> fingerprints of image and mask, of every case in a part of the split."""
    content = {fact.id: [fact.sha256, fact.mask_sha256] for fact in facts}
    write_text(run.data, json.dumps(content, indent=1, sort_keys=True) + "\n")


def check_same_data(run: RunFolder, facts: Sequence[CaseFacts]) -> None:
    """Refuses to go on with images or masks that are not those that the run began with.

    Args:
        run: The run; one without data.json, from an earlier version, is not checked.
        facts: Of every case in a part of its split.

    Raises:
        HyMUNetError: Naming the cases that differ.
    """
    if not run.data.exists():
        return
    try:
        known = dict(json.loads(run.data.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise HyMUNetError(
            f"{run.data} is damaged ({error}); delete it, and the same command goes on without "
            "checking that the data are those that the run began with"
        ) from error
    changed = [
        f"{fact.id} ({' and '.join(parts)})"
        for fact in facts
        if (parts := _differing(fact, known.get(fact.id)))
    ]
    if changed:
        raise HyMUNetError(
            f"the data have changed since {run.path} began: the fingerprints of "
            f"{plural(len(changed), 'case')} differ from {run.data.name}: {listed(changed)}. "
            "Bring them back to go on with this run, or start a new one in another --output"
        )


def _differing(fact: CaseFacts, known: list[str] | None) -> list[str]:
    if known is None:  # the split names it, so the run began with it
        return ["not there before"]
    now = (fact.sha256, fact.mask_sha256)
    names = ("image", "mask")
    return [name for name, a, b in zip(names, known, now, strict=True) if a != b]
