"""PyTorch eager: the full-size training model, on the GPU with bfloat16 autocast if there is one, else on the CPU."""

from pathlib import Path

import numpy as np
import torch

from edgeseq.devices.runtimes import Runtime, Session
from edgeseq.models import saved
from edgeseq.signature import Signature, Tensors
from edgeseq.train import default_device


class PyTorchSession:
    """A saved model of edgeseq's own."""

    def __init__(self, folder: Path, threads: int):
        torch.set_num_threads(threads)
        self.model = saved.load(folder).to(default_device())
        self.device = default_device()

    @torch.inference_mode()
    def run(self, inputs: Tensors, signature: str = "forward") -> dict[str, np.ndarray]:
        """The model's logits."""
        del signature
        tokens = torch.from_numpy(inputs["tokens"]).long().to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(tokens)
        return {"logits": logits.float().cpu().numpy()}


class PyTorchRuntime(Runtime):
    format = "pytorch"
    verified_by = f"PyTorch {torch.__version__}"

    def load(self, path: Path, signatures: tuple[Signature, ...], *, threads: int) -> Session:
        del signatures
        return PyTorchSession(path, threads)

    def time_ms(self, session: Session, inputs: Tensors, signature: str = "forward") -> float:
        """On a GPU the time between two CUDA events on its stream, copies included."""
        if default_device().type != "cuda":
            return super().time_ms(session, inputs, signature)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch's
        start.record()
        session.run(inputs, signature)
        end.record()
        end.synchronize()
        return start.elapsed_time(end)

    def accelerator(self) -> str | None:
        return torch.cuda.get_device_name() if default_device().type == "cuda" else None

    def peak_accelerator_bytes(self) -> int | None:
        return torch.cuda.max_memory_allocated() if default_device().type == "cuda" else None


RUNTIME = PyTorchRuntime()
