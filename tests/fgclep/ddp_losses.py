"""One process of a data-parallel step: `python ddp_losses.py RANK WORLD FOLDER`.

Reads its rows of the batch from FOLDER/batch.pt, and writes the loss and the averaged gradients of every case to
FOLDER/rank<RANK>.pt.
"""

import gc
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fgclep.losses_distributed import global_clep_loss, global_soft_label_loss


class TwoTowers(nn.Module):
    """A linear tower for each side, scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.ecg, self.text = nn.Linear(6, 4), nn.Linear(5, 4)
        self.log_scale, self.bias = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.tensor(-2.0))

    def forward(self, ecg: Tensor, text: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return F.normalize(self.ecg(ecg), dim=1), F.normalize(self.text(text), dim=1), self.log_scale, self.bias


def main(rank: int, world: int, folder: Path) -> None:
    store = dist.FileStore(str(folder / "store"), world)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timedelta(seconds=120))
    batch = torch.load(folder / "batch.pt", weights_only=True)
    mine = slice(*batch["bounds"][rank : rank + 2])
    results = [_step(batch, mine, case) for case in batch["cases"]]
    refused = ""
    try:
        no_row = batch["ecg"][:0] if rank == 1 else batch["ecg"]
        global_soft_label_loss(no_row, no_row, torch.tensor(1.5), torch.tensor(-2.0))
    except ValueError as error:
        refused = str(error)
    torch.save({"results": results, "refused": refused}, folder / f"rank{rank}.pt")
    gc.collect()  # a wrapped model is a cycle that holds the group
    dist.barrier()
    dist.destroy_process_group()


def _step(batch: dict[str, Any], mine: slice, case: dict[str, Any]) -> dict[str, Any]:
    """Return loss and gradients of a case; nothing that holds the process group may outlive it."""
    model = TwoTowers()
    parallel = DistributedDataParallel(model)  # averages as long as it lives
    ecg, text, log_scale, bias = parallel(batch["ecg"][mine], batch["text"][mine])
    if case["soft"]:
        loss = global_soft_label_loss(ecg, text, log_scale, bias, rows=3)
    else:
        loss = global_clep_loss(ecg, text, batch["groups"][mine], log_scale, bias, *case["options"], rows=3)
    loss.backward()
    gradients = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    return {"loss": loss.detach().clone(), "gradients": gradients}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
