"""Every claim of the paper as a command, from end to end in a minute or two, on drawn lesions.

The question. The paper says that HyM-UNet is better than pure CNNs, pure Mamba and Transformers,
smaller and faster, that MGF-Skip is why, and that its cost is linear. Each is a command of this
package. Do all of them run on this machine, and what do their tables and pages look like?

The expectation. Four pages. No score in them means anything: networks that have seen two dozen
small pictures twice know nothing. Parameters and times are real.

What to look at. The pages, before the same commands take hours on your own data; each command is
printed as one types it. The script goes on where it stopped.

    python examples/every_claim.py            # a minute or two on two CPU cores
    python examples/every_claim.py --full     # more networks and factors, learning for a while
"""

import shlex
from pathlib import Path

from rich.console import Console

from hymunet import cli
from hymunet.console import run_script, say
from hymunet.data.phantoms import write_phantoms
from hymunet.errors import HyMUNetError
from hymunet.files import make_folder

CASES, MANY_CASES = 40, 200
SMALL = "--preset tiny --image-size 64 --batch-size 8 --epochs 2"
LONGER = "--preset tiny --image-size 64 --batch-size 8 --epochs 20"
QUICK = (  # DATA and OUT stand for the folders
    f"compare DATA --models CCMM CCCC unet-small {SMALL} --output OUT/compare",
    f"ablate DATA --factors skip --seeds 0 {SMALL} --output OUT/ablate",
    "profile --quick --output OUT/profile",
    "inspect OUT/compare/CCMM-seed0 DATA --split test --output OUT/inspect",
)
FULL = (
    f"compare DATA --models CCMM CCCC MMMM CCAA unet-small segresnet swin-unetr {LONGER} "
    "--output OUT/compare",
    f"ablate DATA --factors skip stages directions --seeds 0 1 2 {LONGER} --output OUT/ablate",
    "profile --output OUT/profile",
    "inspect OUT/compare/CCMM-seed0 DATA --split test --output OUT/inspect",
)


def main(*, full: bool = False, output: Path = Path("runs/examples")) -> list[Path]:
    """Draws lesions, then runs compare, ablate, profile and inspect on them.

    Args:
        full: More networks, factors and pictures, and longer training.
        output: Folder that gets the folder `every_claim`, or `every_claim_full`.

    Returns:
        The four pages.

    Raises:
        HyMUNetError: If a command fails.
    """
    console = Console()
    out = make_folder(output / ("every_claim_full" if full else "every_claim"))
    data = out / "lesions"
    if not (data / "split.csv").exists():
        write_phantoms(data, MANY_CASES if full else CASES, size=(96, 96), seed=0)
    for command in FULL if full else QUICK:
        folders = {"DATA": data, "OUT": out}
        words = [
            "/".join(str(folders.get(part, part)) for part in word.split("/"))
            for word in command.split()
        ]
        say(console, f"\n$ hymunet {shlex.join(words)}", "bold")
        code = cli.main(words)
        if code:
            raise HyMUNetError(f"hymunet {words[0]} should end with 0, but ended with {code}")
    pages = [
        out / "compare" / "report.html",
        out / "ablate" / "report.html",
        out / "profile" / "profile.html",
        out / "inspect" / "inspect.html",
    ]
    say(console, "\npages: " + "\n       ".join(map(str, pages)))
    return pages


if __name__ == "__main__":
    run_script(main)
