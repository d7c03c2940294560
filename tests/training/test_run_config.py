"""What somebody chose, as flags that say it again."""

import shlex

from hymunet.evaluation.provenance import command_line
from hymunet.training.options import TrainOptions
from hymunet.training.run_config import changed_options


def test_only_what_differs_is_named_and_what_is_switched_off_is_a_flag():
    assert changed_options(TrainOptions()) == {}
    options = TrainOptions(epochs=3, augment=False, patch_size=(8, 16))
    assert changed_options(options) == {"epochs": 3, "no_augment": True, "patch_size": (8, 16)}


def test_a_command_is_typed_as_it_is_read():
    options = {"models": ("CCMM", "my file:net"), "force": True, "tta": False, "limit": None,
               "split_file": "a b.csv", "no_augment": True}  # fmt: skip
    words = shlex.split(command_line("compare", ["my data"], options))
    assert words == [
        "hymunet", "compare", "my data", "--models", "CCMM", "my file:net", "--force",
        "--split-file", "a b.csv", "--no-augment",
    ]  # fmt: skip
