"""One training step, one validation step: the network, its loss, its moving average, as Lightning
sees them."""

from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hymunet.errors import NonFiniteError
from hymunet.inference.sliding_window import sliding_window
from hymunet.network.segmenter import Segmenter
from hymunet.training.losses import LossWeights, encode_labels, hybrid_loss, probabilities
from hymunet.training.optimiser import make_optimiser
from hymunet.training.planning.plan import Settings

# of windows in validation: half as much as in prediction, a fraction of the time
VALIDATION_OVERLAP = 0.25
LOSS_TERMS = ("loss", "cross_entropy", "dice_loss", "boundary")


def _average(decay: float) -> Any:
    """Update of the moving average: decay grows from 0 to `decay`, so that the initial weights are
    forgotten within the first steps; counts (of batch norm) are copied."""

    @torch.no_grad()
    def update(averages: list[Tensor], current: list[Tensor], updates: Tensor | int) -> None:
        warm = min(decay, (1.0 + float(updates)) / (10.0 + float(updates)))
        for average, value in zip(averages, current, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1.0 - warm)
            else:
                average.copy_(value)

    return update


class SegmentationTask(lightning.LightningModule):
    """Trains `network` by the hybrid loss and validates its moving average.

    Validation reports the loss and, with probabilities cut at 0.5 (sigmoid) or by the largest
    (softmax), the per-image mean Dice and IoU over the foreground classes, at the network's
    resolution; under `window` of whole images, whose logits are blended from windows.
    """

    def __init__(self, network: Segmenter, options: Settings, steps_per_epoch: int) -> None:
        super().__init__()
        self.network, self.options = network, options
        self.window = options.patch_size if options.resize == "window" else None
        self.activation = network.config.activation
        self.total_steps = steps_per_epoch * options.epochs
        self.average = AveragedModel(
            network, multi_avg_fn=_average(options.ema_decay), use_buffers=True
        )
        self.weights = LossWeights(
            options.cross_entropy_weight,
            options.dice_weight,
            options.boundary_weight,
            options.class_weights,
        )
        self.epoch_terms: dict[str, list[Tensor]] = {}
        self.validation: list[Tensor] = []

    def averaged_network(self) -> Segmenter:
        """The network that is validated, kept and shipped."""
        network = self.average.module
        assert isinstance(network, Segmenter)
        return network

    def configure_optimizers(self) -> Any:
        options, rate = self.options, self.options.learning_rate
        slower = options.encoder_rate != 1
        optimiser, schedule = make_optimiser(
            self.network,
            rate,
            options.weight_decay,
            self.total_steps,
            options.warmup,
            old=self.network.get_submodule("encoder") if slower else None,
            old_rate=rate * options.encoder_rate if slower else None,
            name=options.optimizer,
        )
        return {
            "optimizer": optimiser,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_train_epoch_start(self) -> None:
        self.network.train()
        self.average.eval()  # never in training mode: its batch statistics are averages too
        self.epoch_terms = {name: [] for name in LOSS_TERMS}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        # drop path draws from torch's generator: seeding by the step makes a resumed run draw alike
        torch.manual_seed((self.options.seed << 32) + self.global_step)

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        image, target, valid = self._inputs(batch)
        outputs = self.network(image)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        terms = hybrid_loss(outputs[0], target, self.activation, self.weights, valid)
        loss = terms["loss"]
        for level, coarser in enumerate(outputs[1:], start=1):  # deep supervision, halved a level
            extra = hybrid_loss(coarser, target, self.activation, self.weights, valid)["loss"]
            loss = loss + extra * 0.5**level
        if not torch.isfinite(loss):
            raise NonFiniteError(self._explain(image, terms))
        for name in LOSS_TERMS:
            self.epoch_terms[name].append(terms[name].detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.update_parameters(self.network)

    def on_validation_epoch_start(self) -> None:
        self.average.eval()
        self.validation = []

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> None:
        image, target, valid = self._inputs(batch)
        if self.window is None:
            logits = self.average(image)
        else:
            logits = sliding_window(self.average, image, self.window, VALIDATION_OVERLAP)
        dice, iou = per_image_overlap(logits, target, self.activation, valid)
        for i in range(len(image)):  # the loss of each case apart: a last batch may be smaller
            one = slice(i, i + 1)
            loss = hybrid_loss(logits[one], target[one], self.activation, self.weights, valid[one])[
                "loss"
            ]
            self.validation.append(torch.stack([loss.float(), dice[i], iou[i]]))

    def epoch_row(self) -> dict[str, float]:
        """Means of this epoch's training terms and of validation, for metrics.csv."""
        row = {
            f"train_{name}": torch.stack(values).mean().item()
            for name, values in self.epoch_terms.items()
        }
        means = torch.stack(self.validation).mean(dim=0).tolist()
        return row | dict(zip(("val_loss", "val_dice", "val_iou"), means, strict=True))

    def _inputs(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        classes = self.network.config.num_classes
        target = encode_labels(batch["label"], classes, self.activation)
        return batch["image"], target, batch["valid"].unsqueeze(1).float()

    def _explain(self, image: Tensor, terms: dict[str, Tensor]) -> str:
        """Runs the batch again and names the first module whose output is not finite."""
        where = "the loss itself"
        if not torch.isfinite(image).all():
            where = "the images of this batch"
        else:
            found: list[str] = []

            def look(name: str) -> Any:
                def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                    tensors = output if isinstance(output, (list, tuple)) else [output]
                    if any(not torch.isfinite(t).all() for t in tensors if torch.is_tensor(t)):
                        found.append(name)

                return hook

            hooks = [
                module.register_forward_hook(look(name))
                for name, module in self.network.named_modules()
                if name
            ]
            with torch.no_grad():
                self.network(image)
            for handle in hooks:
                handle.remove()
            if found:
                where = f"the layer {found[0]}"
        values = ", ".join(f"{name} {value.item():.3g}" for name, value in terms.items())
        return (
            f"training met NaN or infinity at step {self.global_step} in {where} ({values}); "
            "the last checkpoint is from before it: lower --learning-rate, or check the data for "
            "extreme values"
        )


@torch.no_grad()
def per_image_overlap(
    logits: Tensor, target: Tensor, activation: str, valid: Tensor
) -> tuple[Tensor, Tensor]:
    """Dice and IoU of each image, (B,) each: the mean over foreground classes of the cut
    probabilities against the target; 1 where both are empty, 0 where one is."""
    probability = probabilities(logits, activation)
    if activation == "softmax":
        winner = probability.argmax(dim=1, keepdim=True)
        classes = torch.arange(1, logits.shape[1], device=logits.device)
        predicted = winner == classes.view(1, -1, *[1] * (logits.ndim - 2))
        target = target[:, 1:]
    else:
        predicted = probability >= 0.5
    counts = valid > 0
    predicted, truth = (predicted & counts).flatten(2), ((target > 0.5) & counts).flatten(2)
    both = (predicted & truth).sum(-1).float()
    either = (predicted | truth).sum(-1).float()
    empty = either == 0
    iou = torch.where(empty, 1.0, both / either.clamp(min=1))
    dice = torch.where(empty, 1.0, 2 * both / (either + both).clamp(min=1))
    return dice.mean(dim=1), iou.mean(dim=1)
