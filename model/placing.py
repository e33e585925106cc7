"""Where a model's layers go when no single device holds it.

In comes what may be used of each device, out come the arguments that make accelerate spread the
model: first the GPUs in their order, then the processor's memory, then the disk. Layers that are
not on the device that computes are copied there in each step, which costs most of the speed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Placing:
    """``most``: bytes that may be used of a device (its number, or ``cpu``); empty: what is free.
    ``disk``: folder for the layers that fit nowhere else."""

    disk: Path
    most: Mapping[int | str, int]

    def options(self, device: str) -> dict[str, Any]:
        """For ``from_pretrained``. ``device``: ``cpu``, ``auto``, or one GPU by its number, which
        then is the only one."""
        most = dict(self.most)
        if device == "cpu" and "cpu" not in most:
            from model.memory import available

            most["cpu"] = available()
        if device.startswith("cuda:") and not self.most:
            from model.memory import available

            most = {int(device[5:]): free_on_gpus(device), "cpu": available()}
        return {
            "device_map": "auto",
            "max_memory": most or None,
            "offload_folder": str(self.disk),
        }


def free_on_gpus(device: str) -> int:
    """Bytes free on one GPU (``cuda:N``), or on all (``auto``)."""
    import torch

    if device == "auto":
        numbers = list(range(torch.cuda.device_count()))
    else:
        numbers = [torch.device(device).index or 0]
    return sum(torch.cuda.mem_get_info(number)[0] for number in numbers)


def input_device(model: Any) -> Any:
    """The torch device that token ids must be on: where the embedding computes, which is not
    where its weights are if these are kept elsewhere."""
    embedding = model.get_input_embeddings()
    hook = getattr(embedding, "_hf_hook", None)
    computes_on = getattr(hook, "execution_device", None)
    if computes_on is None:
        return embedding.weight.device
    import torch

    return torch.device(computes_on)
