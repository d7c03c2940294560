"""The command line, a line a verb; the function behind it has the help, options and work."""

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import cyclopts

from hymunet import __version__

# verbs are named by import string and imported when called, so that any --help answers at once
VERBS = {
    "demo": (
        "hymunet.workflows.demo:demo",
        "Train, evaluate and predict on drawn lesions, offline.",
    ),
    "download": (
        "hymunet.data.download:download",
        "Fetch a public data set: checked, resumable, licence shown.",
    ),
    "train": ("hymunet.workflows.train:train", "Train on a data set, evaluate, write a report."),
    "verify": (
        "hymunet.workflows.verify:verify",
        "Look at a data set and say what is wrong with it.",
    ),
    "plan": (
        "hymunet.workflows.plan:plan",
        "Say how train would train on a data set, why, how long.",
    ),
    "predict": ("hymunet.inference.predict:predict", "Segment images with a trained model."),
    "export": (
        "hymunet.deploy.export:export",
        "Write a model for elsewhere: ONNX, torch, a web page, MONAI, a hub.",
    ),
    "evaluate": (
        "hymunet.evaluation.evaluate:evaluate",
        "Judge a model, or any tool's masks, against reference masks.",
    ),
    "card": (
        "hymunet.evaluation.card:card",
        "Write a model's card: data, licence, recipe, scores, known failures.",
    ),
    "models": ("hymunet.network.pretrained:models", "List the models that come with the package."),
    "calibrate": (
        "hymunet.evaluation.calibrate:calibrate",
        "Check a model's probabilities, choose its threshold.",
    ),
    "robustness": (
        "hymunet.evaluation.robustness:robustness",
        "Measure what blur, light, hair, turns cost a model.",
    ),
    "inspect": (
        "hymunet.workflows.inspect:inspect",
        "Look inside a model: fields, gates, memory, checkerboards.",
    ),
    "compare": (
        "hymunet.workflows.compare:compare",
        "Train several networks on the same footing, say how surely they differ.",
    ),
    "ablate": (
        "hymunet.workflows.ablate:ablate",
        "Take parts of the network away, one at a time, and measure the effect.",
    ),
    "profile": (
        "hymunet.workflows.profile:profile",
        "Measure cost against image size and depth: is it linear?",
    ),
    "reproduce": (
        "hymunet.workflows.reproduce:reproduce",
        "Repeat published results: raw data to table in one command.",
    ),
    "serve": ("hymunet.deploy.serve:serve", "Serve a model over HTTP: image in, mask out."),
    "info": ("hymunet.network.info:info", "Show what a preset or a model is made of, costs, sees."),
}


def make_app(verb: str | None = None) -> cyclopts.App:
    """The application; `verb`, the one that is called, shows its function's docstring as help and
    the others the line above."""
    app = cyclopts.App(
        name="hymunet",
        help="Medical-image segmentation with convolutions, Visual Mamba and Mamba-Guided Fusion.",
        version=f"hymunet {__version__}",
        help_format="markdown",
        default_parameter=cyclopts.Parameter(negative=()),
        suppress_keyboard_interrupt=False,  # main() says what to do next
    )
    for name, (where, line) in VERBS.items():
        if name == verb:
            app.command(where, name=name)
        else:
            app.command(where, name=name, help=line)
    return app


# what they have done is taken up again
RESUMABLE = [[verb] for verb in ("train", "compare", "ablate", "profile", "download", "reproduce")]


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 only when all went well.

    Errors that a user can mend are printed without a traceback; 130 means interrupted.
    """
    from hymunet.errors import HyMUNetError

    tokens = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):  # a terminal without the letters gets a ? for them
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        tokens, config = _take_config(tokens)
        app = make_app(tokens[0] if tokens else None)
        app.config = (config,) if config else ()
        result = app(tokens, exit_on_error=False, print_error=True, result_action="return_value")
    except HyMUNetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except cyclopts.CycloptsError:
        return 2  # cyclopts has printed what is wrong
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as the shell says of a process that SIGPIPE ends
    except KeyboardInterrupt:
        goes_on = tokens[:1] in RESUMABLE or (tokens[:1] == ["predict"] and "ray" in tokens)
        more = "; the same command goes on where it stopped" if goes_on else ""
        print(f"interrupted{more}", file=sys.stderr)
        return 130
    return getattr(result, "exit_code", 0)


def _take_config(tokens: list[str]) -> tuple[list[str], cyclopts.config.Dict | None]:
    """`train --config FILE`: the file's values stand behind what is typed."""
    if tokens[:1] != ["train"]:
        return tokens, None
    for i, token in enumerate(tokens):
        if token == "--config" and i + 1 < len(tokens):
            path, rest = tokens[i + 1], tokens[:i] + tokens[i + 2 :]
        elif token.startswith("--config="):
            path, rest = token.removeprefix("--config="), tokens[:i] + tokens[i + 1 :]
        else:
            continue
        from hymunet.training.run_config import beneath, read_options

        typed = [word[2:].split("=")[0].replace("-", "_") for word in rest if word[:2] == "--"]
        values = {"train": beneath(read_options(Path(path)), typed)}
        return rest, cyclopts.config.Dict(values, source=path)
    return tokens, None


if __name__ == "__main__":
    sys.exit(main())
