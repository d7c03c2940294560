"""How ISIC 2018 is divided: ours, and those of the papers that one compares with."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from hymunet.data.splits import Split, make_split, split_from_table
from hymunet.errors import HyMUNetError

ProtocolName = Literal["shipped", "dev", "paper", "vm-unet"]
DEV_SHARE = 0.15  # of the training part


@dataclass(frozen=True)
class Protocol:
    """Which cases teach, choose and judge.

    Args:
        name: What users call it.
        about: One sentence for the table's caption.
        judged: The part whose scores are the result.
        select: Whether the epoch is the best one on the validation part, or the last.
    """

    name: ProtocolName
    about: str
    judged: Literal["val", "test"]
    select: Literal["best", "last"]


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "shipped",
            "trained on the training part of the data's split, judged on its validation part, "
            "which chose nothing: neither epoch, recipe nor threshold",
            "val",
            "last",
        ),
        Protocol(
            "dev",
            f"trained on {1 - DEV_SHARE:.0%} of the training part, judged on the other "
            f"{DEV_SHARE:.0%} (near-duplicates on one side), where the recipe was chosen",
            "val",
            "last",
        ),
        Protocol(
            "paper",
            "7:1:2 at random by seed, near-duplicates not kept together, the best epoch chosen on "
            "the tenth, judged on the two tenths",
            "test",
            "best",
        ),
        Protocol(
            "vm-unet",
            "7:3 at random by seed, near-duplicates not kept together, judged on the three tenths, "
            "which chose nothing; its papers print pooled values",
            "val",
            "last",
        ),
    )
}


def protocol_split(
    protocol: str,
    ids: Sequence[str],
    look_at: Callable[[Sequence[str]], tuple[Sequence[str], Sequence[float]]],
    given: Mapping[str, str] | None,
    seed: int,
) -> Split:
    """The split that `protocol` asks for.

    Args:
        protocol: A name of `PROTOCOLS`.
        ids: Case ids.
        look_at: Reads the cases of these ids and gives, in their order, the group of each, which
            near-duplicates share, and its lesion area as a fraction of the frame. Called where a
            grouped split is drawn, for the cases that it is drawn from.
        given: The data's own split, id -> train, val or test; None: it has none.
        seed: Of what is drawn; the split of `shipped` and `dev` is always drawn with 0.

    Raises:
        HyMUNetError: If there are too few cases, or the given split has no training or no
            validation cases.
    """
    if protocol == "paper":
        return make_split(ids, None, None, (0.7, 0.1, 0.2), seed)
    if protocol == "vm-unet":
        return make_split(ids, None, None, (0.7, 0.3, 0.0), seed)
    # one fixed split, whatever the seed: the recipe was chosen on it
    if given is None:
        whole = make_split(ids, *look_at(ids), (0.8, 0.2, 0.0), seed=0)
    else:
        whole = split_from_table(ids, given)
        for part in ("train", "val"):
            if not getattr(whole, part):
                raise HyMUNetError(
                    f"the data's own split gives no case to {part}; expected both train and val, "
                    "on which the published recipe was found and its figures were made"
                )
    if protocol == "shipped":
        return whole
    drawn = make_split(whole.train, *look_at(whole.train), (1 - DEV_SHARE, DEV_SHARE, 0.0), seed=0)
    # the data's own held-out cases stay in no part: they are not even read
    return replace(drawn, notes=(*whole.notes, *drawn.notes))
