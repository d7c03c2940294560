"""Protocols: which cases teach, choose and judge."""

import pytest

from hymunet.data.splits import PARTS
from hymunet.errors import HyMUNetError
from hymunet.workflows.protocols import DEV_SHARE, PROTOCOLS, protocol_split

IDS = [f"case{i:03}" for i in range(200)]
GROUPS = [f"group{i // 2}" for i in range(200)]  # neighbours are near-duplicates of each other
SIZES = [(i % 17) / 20 for i in range(200)]
GIVEN = {id_: "train" if i < 160 else "val" for i, id_ in enumerate(IDS)}


def look_at(ids):
    at = [IDS.index(id_) for id_ in ids]
    return [GROUPS[i] for i in at], [SIZES[i] for i in at]


def parts(protocol, given=GIVEN, seed=0, look_at=look_at):
    split = protocol_split(protocol, IDS, look_at, given, seed)
    return {part: set(getattr(split, part)) for part in PARTS}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("given", [None, GIVEN], ids=["drawn", "given"])
def test_no_case_stands_in_two_parts_and_only_dev_leaves_cases_out(protocol, given):
    found = sorted(id_ for part in parts(protocol, given).values() for id_ in part)
    assert len(found) == len(set(found))
    assert (found == IDS) == (protocol != "dev")


def test_dev_never_sees_the_held_out_part_and_is_drawn_inside_the_training_part():
    whole, dev = parts("shipped"), parts("dev")
    assert dev["train"] | dev["val"] == whole["train"]
    assert not dev["test"]
    assert len(dev["val"]) == pytest.approx(DEV_SHARE * len(whole["train"]), abs=1)


@pytest.mark.parametrize("given", [None, GIVEN], ids=["drawn", "given"])
def test_dev_keeps_near_duplicates_on_one_side(given):
    dev = parts("dev", given)
    sides = {id_: part for part, ids in dev.items() for id_ in ids}
    assert all(sides.get(IDS[i]) == sides.get(IDS[i + 1]) for i in range(0, 200, 2))


@pytest.mark.parametrize("protocol", ["shipped", "dev"])
def test_the_split_the_recipe_was_chosen_on_does_not_hang_on_the_seed(protocol):
    assert parts(protocol, None, seed=0) == parts(protocol, None, seed=7)


@pytest.mark.parametrize(
    ("protocol", "sizes"), [("paper", (140, 20, 40)), ("vm-unet", (140, 60, 0))]
)
def test_protocols_of_the_literature_draw_their_shares_by_seed_whatever_the_data_say(
    protocol, sizes
):
    found = parts(protocol)
    assert tuple(len(found[part]) for part in PARTS) == sizes
    assert found == parts(protocol, None)
    assert found != parts(protocol, seed=1)


@pytest.mark.parametrize("given", [dict.fromkeys(IDS, "train"), dict.fromkeys(IDS, "val")])
def test_a_split_without_training_or_validation_cases_is_refused(given):
    with pytest.raises(HyMUNetError, match="gives no case to"):
        parts("shipped", given)


def test_only_what_a_split_is_drawn_from_by_group_is_read():
    read = []

    def noting(ids):
        read.extend(ids)
        return look_at(ids)

    for protocol in ("shipped", "paper", "vm-unet"):
        parts(protocol, look_at=noting)
    assert read == []
    parts("dev", look_at=noting)
    assert set(read) == parts("shipped")["train"]
