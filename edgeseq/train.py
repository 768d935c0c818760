"""Training: one loop for teachers, students and controls, on a GPU with bfloat16 autocast or on the CPU."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, nn

from edgeseq.recipe import Training

Batch = TypeVar("Batch")
Progress = Callable[[int, int, str], None]  # (done, total, what) for whoever watches

REPORT_EVERY = 5  # steps


def silent(done: int, total: int, what: str) -> None:
    """A `Progress` that nobody watches."""
    del done, total, what


def default_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def set_deterministic(seed: int) -> None:
    """Seed torch and have it use deterministic algorithms, so that a repeated run gives the same weights."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Else torch fills fresh memory with NaN, to show uses of what was never written: a fifth of an LSTM's training.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property of the module


def fit(
    model: nn.Module,
    batches: Callable[[], Iterable[Batch]],
    loss: Callable[[Batch], Tensor],
    training: Training,
    *,
    n_batches: int,
    progress: Progress = silent,
) -> None:
    """Minimise `loss` over the model's trainable parameters, in place; `batches` gives an epoch's `n_batches` at each call.

    AdamW (Loshchilov and Hutter 2019), gradients clipped to norm 1, the learning rate rising linearly over the first tenth
    of all steps and falling linearly to zero.
    """
    device = next(model.parameters()).device
    parameters = [p for p in model.parameters() if p.requires_grad]
    rate, total = training.learning_rate, training.epochs * n_batches
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=training.weight_decay, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _warm_up_then_decay(step, total))
    model.train()
    for step, batch in enumerate((b for _ in range(training.epochs) for b in batches()), start=1):
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            value = loss(batch)
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % REPORT_EVERY == 0 or step == total:
            progress(step, total, f"loss {value.item():.3f}")
    model.eval()


def _warm_up_then_decay(step: int, total: int) -> float:
    warm_up = max(1, total // 10)
    return min(1.0, (step + 1) / warm_up) * max(0.0, (total - step) / total)
