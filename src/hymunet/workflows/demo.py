"""`hymunet demo`: the whole way on drawn lesions, offline, in minutes on a laptop."""

import csv
import time
from pathlib import Path

from hymunet.training.options import TrainOptions
from hymunet.workflows.train import TrainResult, train

COUNT, DRAWN_SIZE, IMAGE_SIZE = 800, (144, 192), 96


def demo(
    output: Path = Path("hymunet-demo"),
    *,
    cases: int = COUNT,
    epochs: int = 8,
    seed: int = 0,
) -> TrainResult:
    """Draws lesions, trains the tiny network on them, evaluates, predicts, and names the report.

    Needs no data, no network and no GPU. The drawn lesions have exact masks, so the figures are
    true; they say that the software works, nothing about patients. The same command resumes.

    Args:
        output: Folder for the drawn images, the run and the predictions.
        cases: How many lesions are drawn; 70 % train, 15 % validate, 15 % are held out.
        epochs: Passes over the training cases.
        seed: Of the drawings and the training.
    """
    from rich.console import Console

    from hymunet.console import say
    from hymunet.data.phantoms import write_phantoms
    from hymunet.errors import HyMUNetError
    from hymunet.files import make_folder
    from hymunet.inference.predict import predict

    options = TrainOptions(
        preset="tiny",
        image_size=IMAGE_SIZE,
        epochs=epochs,
        batch_size=8,
        learning_rate=2e-3,
        augment=False,  # for scarce images; these are drawn, as many as one likes
        seed=seed,
    )
    started = time.monotonic()
    console = Console(stderr=True)
    output = Path(output)
    data, run = output / "data", output / "run"
    make_folder(output)
    if not (data / "split.csv").exists():
        say(console, f"drawing {cases} lesions with exact masks into {data}")
        write_phantoms(data, cases, size=DRAWN_SIZE, seed=seed)
    elif len(read_rows(data)) != cases:
        raise HyMUNetError(
            f"{data} holds {len(read_rows(data))} drawn lesions, {cases} are asked for; choose "
            "another --output, or give --cases as before"
        )
    result = train(data, output=run, options=options)
    held_out = _held_out(data)[:6]
    predict(*map(str, held_out), model=result.model, output=output / "predictions", overlay=True)
    console.print(
        f"\n[bold]held-out Dice {result.dice:.3f}[/] (per-image mean), "
        f"{(time.monotonic() - started) / 60:.1f} minutes in all",
        highlight=False,
    )
    say(console, f"open {result.report}", "bold")
    say(
        console,
        "\nNow with your own images (a folder with images/ and masks/, names that match):\n"
        "  hymunet train MY_DATA\n"
        "  hymunet evaluate runs/MY_DATA-seed0 OTHER_DATA --output report/\n"
        "  hymunet predict PHOTOS/ --model runs/MY_DATA-seed0 --output masks/ --overlay",
    )
    return result


def read_rows(data: Path) -> list[dict[str, str]]:
    """The rows of the drawn images' split.csv: case, split."""
    with open(data / "split.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _held_out(data: Path) -> list[Path]:
    names = [row["case"] for row in read_rows(data) if row["split"] == "test"]
    return [data / "images" / f"{name}.png" for name in names]
