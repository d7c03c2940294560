"""Rules on what is segmented, and by how large a network."""

from hymunet.data.label_scheme import unnamed
from hymunet.data.masks_io import listed
from hymunet.data.verify_masks import label_values
from hymunet.training.planning.look import Look


def structures(look: Look) -> tuple[int, str]:
    """Kinds of structure, the background not counted."""
    found, count = label_values(look.dataset, look.everything)
    if look.dataset.label_names is not None:
        names = ", ".join(look.dataset.label_names.values())
        return count, f"the data set names {'it' if count == 1 else 'them'}: {names}"
    return count, f"the masks hold {listed(found)}: {listed(unnamed(count), 4)}"


def activation(look: Look) -> tuple[str, str]:
    """sigmoid for one structure and for nested ones, else softmax."""
    if look["structures"] == 1:
        return "sigmoid", "one structure"
    if is_nested(look):
        assert look.dataset.regions is not None
        return "sigmoid", f"nested regions: {' > '.join(look.dataset.regions)}"
    return "softmax", "structures that exclude each other"


def is_nested(look: Look) -> bool:
    """Whether the data set's regions are nested, and are all that is segmented."""
    return look.dataset.nested and look["structures"] + 1 == look.dataset.num_labels


def preset(look: Look) -> tuple[str | None, str]:
    """Size of the network."""
    if look.origin is not None:
        return None, f"{look.origin.name} brings its architecture along"
    if look.on_gpu:
        return "small", "on a GPU"
    return "tiny", "on a CPU; on ISIC 2018 small is no better for twice the time"


def class_weights(look: Look) -> tuple[None, str]:
    """Weights in the cross-entropy."""
    if look["structures"] == 1:
        return None, "one structure, and the Dice term does not care how large it is"
    if look["resize"] == "window":
        return None, "patches are placed on each structure as often, and Dice weighs them alike"
    return None, "the Dice term weighs structures alike"
