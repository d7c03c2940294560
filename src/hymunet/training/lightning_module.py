"""One training step, one validation step: the network, its loss, its moving average, as Lightning
sees them."""

import copy
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from hymunet.errors import NonFiniteError
from hymunet.inference.sliding_window import sliding_window
from hymunet.network.segmenter import Segmenter
from hymunet.training.losses import (
    LEAST_WEIGHT,
    LossWeights,
    encode_labels,
    hybrid_loss,
    pixel_weights,
    probabilities,
    weighted,
)
from hymunet.training.optimiser import make_optimiser
from hymunet.training.planning.plan import Settings
from hymunet.training.ranks import ALONE, Ranks

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

    def __init__(
        self, network: Segmenter, options: Settings, steps_per_epoch: int, ranks: Ranks = ALONE
    ) -> None:
        super().__init__()
        self.network, self.options, self.ranks = network, options, ranks
        self.window = options.patch_size if options.resize == "window" else None
        self.activation = network.config.activation
        self.total_steps = steps_per_epoch * options.epochs
        self.average = AveragedModel(
            network, multi_avg_fn=_average(options.ema_decay), use_buffers=True
        )
        self.average.requires_grad_(False)  # or DDP would wait for its gradients
        self.assembled: list[Segmenter] = []  # a list, so that it is no part of the module
        self.weights = LossWeights(
            options.cross_entropy_weight,
            options.dice_weight,
            options.boundary_weight,
            options.class_weights,
        )
        self.epoch_terms: dict[str, list[Tensor]] = {}
        self.validation: list[Tensor] = []
        self.validated: list[int] = []

    def averaged_network(self) -> Segmenter:
        """The network that is validated, kept and shipped. Where it is sliced, all processes must
        ask for it, and the first gets it in one piece."""
        network = self.average.module
        assert isinstance(network, Segmenter)
        if not self.assembled:
            return network
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        weights = get_model_state_dict(network, options=options)
        if self.ranks.first:
            self.assembled[0].load_state_dict(weights)
        return self.assembled[0]

    def configure_model(self) -> None:
        """Slices the network and its average among the processes, under fsdp; alike, so that a
        slice of the average follows the same slice of the network."""
        if self.options.strategy != "fsdp" or self.ranks.size == 1 or self.assembled:
            return
        from torch.distributed.fsdp import fully_shard

        self.assembled.append(copy.deepcopy(self.averaged_network()))
        for network in (self.network, self.average.module):
            fully_shard(network, mesh=self.device_mesh["data_parallel"], reshard_after_forward=True)

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
        # each process its own numbers, the first those of a training by one
        torch.manual_seed(((self.options.seed << 32) + self.global_step) ^ (self.ranks.rank << 48))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        image, target, valid = self._inputs(batch)
        outputs = self.network(image)
        outputs = outputs if isinstance(outputs, list) else [outputs]
        shares = self._shares(target, valid)
        terms = self._terms(outputs[0], target, valid, shares)
        loss = terms["loss"]
        for level, coarser in enumerate(outputs[1:], start=1):  # deep supervision, halved a level
            loss = loss + self._terms(coarser, target, valid, shares)["loss"] * 0.5**level
        if not torch.isfinite(loss):
            raise NonFiniteError(self._explain(image, terms))
        for name in LOSS_TERMS:
            self.epoch_terms[name].append(terms[name].detach())
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.average.update_parameters(self.network)

    def _terms(
        self, logits: Tensor, target: Tensor, valid: Tensor, shares: dict[str, Tensor] | None
    ) -> dict[str, Tensor]:
        terms = hybrid_loss(logits, target, self.activation, self.weights, valid)
        if shares is None:
            return terms
        return weighted({name: terms[name] * shares[name] for name in shares}, self.weights)

    def _shares(self, target: Tensor, valid: Tensor) -> dict[str, Tensor] | None:
        """By what each term of this process's loss is multiplied so that the mean over processes,
        which is what their gradients become, is the term of the whole batch: a mean over unequal
        numbers of pixels or samples is no mean of means."""
        if self.ranks.size == 1:
            return None
        pixels = pixel_weights(target, self.activation, valid, self.weights.classes).sum()
        mine = torch.stack([pixels, pixels.new_tensor(float(len(target)))])
        pixels, samples = mine * self.ranks.size / self.ranks.total(mine).clamp(min=LEAST_WEIGHT)
        return {"cross_entropy": pixels, "dice_loss": samples, "boundary": samples}

    def on_validation_epoch_start(self) -> None:
        self.average.eval()
        self.validation, self.validated = [], []

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
        self.validated += batch["index"].tolist()

    def epoch_row(self) -> dict[str, float]:
        """Means of this epoch's training terms and of validation over all processes, each case
        once, for metrics.csv; all processes must ask for it."""
        terms = torch.stack([torch.stack(values).mean() for values in self.epoch_terms.values()])
        terms = self.ranks.total(terms) / self.ranks.size
        row = {f"train_{name}": term for name, term in zip(LOSS_TERMS, terms.tolist(), strict=True)}
        seen = list(zip(self.validated, torch.stack(self.validation).tolist(), strict=True))
        # by case: what fills up a process's share is counted once, and the order is the same
        # whoever saw what
        cases = dict(pair for part in self.ranks.gather(seen) for pair in part)
        means = torch.tensor([cases[index] for index in sorted(cases)]).mean(dim=0).tolist()
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
        elif self.ranks.size > 1:  # the others do not run theirs again, and norms need all
            where = f"the network or its loss, on process {self.ranks.rank}"
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
