"""What `train` does with the best weights before it judges them."""

from typing import TYPE_CHECKING

from hymunet.console import say
from hymunet.wording import plural

if TYPE_CHECKING:
    from rich.console import Console

    from hymunet.evaluation.choose_postprocess import PostprocessChoice
    from hymunet.training.fit import FinishedRun
    from hymunet.training.options import TrainOptions


def choose_after_training(
    finished: "FinishedRun", options: "TrainOptions", console: "Console"
) -> "PostprocessChoice | None":
    """Chooses post-processing on the run's validation part, writes it into best.safetensors and
    says what came of it.

    Args:
        finished: The run.
        options: Its settings.
        console: Where to report.

    Returns:
        The choice; None where none is made: it is in the file already, or the last epoch is kept,
        so that the validation part chooses nothing.

    Raises:
        HyMUNetError: As `choose_postprocess`.
    """
    from hymunet.evaluation.choose_postprocess import choose_postprocess
    from hymunet.evaluation.seen import known_cases
    from hymunet.network.model_file import read_info

    info = read_info(finished.folder.best)
    if "postprocess_choice" in info or not finished.split.val:
        return None
    if not known_cases(info).val_chose:
        say(console, "post-processing: none, since validation chooses nothing (--select last)")
        return None
    by_id = {case.id: case for case in finished.dataset.cases}
    choice = choose_postprocess(
        finished.folder.best,
        [by_id[id_] for id_ in finished.split.val],
        data=finished.dataset.name,
        device=None if options.device == "auto" else options.device,
    )
    kept = [row for row in choice.table if row["chosen"]]
    for row in kept:
        say(
            console,
            f"post-processing: {row['structure']}: {row['operation'].replace('_', ' ')}: "
            f"validation Dice {row['dice_before']:.4f} -> {row['dice_after']:.4f}, "
            f"{row['cases_changed']} of {plural(choice.n, 'case')} changed",
        )
    if not kept:
        say(console, "post-processing: none, since nothing surely raises validation Dice")
    return choice
