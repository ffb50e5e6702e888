"""Records per second that the training loader gives against those that a model takes, in one run.

The loader draws shuffled batches from a pack and changes them as training does (`augment`, `crop`, `mix`), in one
process. The model's rate is that of forward and backward passes of the ECG tower on such batches. Usage:

    python benchmarks/loader.py [DATA] [--preset small resnet1d-18] [--records 512] [--batch-size 64] [--seconds 6]

DATA is any data set that `fgclep data scan` recognises, or a pack; without it synthetic ECGs are made and packed. A
preset with a filter (`small`) reads waveforms that were prepared once, the others read the pack's shards in place.
Where loader/model is above 1, the loader is not the bottleneck.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from fgclep.datasets import Dataset, open_for_rate
from fgclep.datasets.pack import Pack
from fgclep.datasets.pack_write import plan_pack, write_pack
from fgclep.datasets.synthetic import write_tree
from fgclep.models.config import ECG_PRESETS, FGCLEPConfig
from fgclep.models.dual_encoder import EcgEncoder
from fgclep.preprocessing import EcgProcessor
from fgclep.training.augment import augment, crop, mix
from fgclep.training.steps import autocast_pays
from fgclep.training.training_set import take
from fgclep.training.waveforms import Waveforms, read_waveforms

MIX = 0.2  # the defaults of `fgclep train coarse`
SHORTEST_CROP = {"mean-max-measures": 0.7}  # by pooling; the other towers take whole ECGs only


def main() -> None:
    """Parse the arguments, prepare the data, and time loader and model by turns for each preset."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--preset", nargs="+", choices=list(ECG_PRESETS), default=["small", "resnet1d-18"])
    parser.add_argument("--records", type=int, default=512, help="synthetic ECGs to make")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=6.0, help="of loading, and of computing, for each preset")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    threads = torch.get_num_threads()
    print(f"batches of {arguments.batch_size}; loader in one process, model on {device} with {threads} threads")
    print(f"{'preset':<14}{'input':>12}{'waveforms':>12}{'loader/s':>12}{'model/s':>12}{'loader/model':>14}")
    with tempfile.TemporaryDirectory() as folder:
        tree = arguments.data or make_tree(Path(folder, "tree"), arguments.records)
        for name in arguments.preset:
            processor = EcgProcessor(**ECG_PRESETS[name]["input"])
            pack = open_pack(tree, Path(folder, "pack"), processor)
            cache = Path(folder, f"cache-{name}")
            waveforms = read_waveforms(pack, processor, cache, 1, lambda line: None).waveforms
            shortest = SHORTEST_CROP.get(ECG_PRESETS[name]["pool"], 1.0)
            draw = Loader(waveforms, processor.fs_hz, arguments.batch_size, shortest)
            step = make_step(name, processor, device)
            loaded, computed = time_both(draw, step, arguments.seconds)
            print(
                f"{name:<14}{f'12 x {processor.n_samples}':>12}{'prepared' if cache.exists() else 'in place':>12}"
                f"{loaded:>12,.0f}{computed:>12,.0f}{loaded / computed:>14.1f}",
                flush=True,
            )


def make_tree(root: Path, records: int) -> Path:
    """Write synthetic ECGs at 500 Hz."""
    write_tree(root, records, seed=1)
    return root


def open_pack(data: Path, out: Path, processor: EcgProcessor) -> Dataset:
    """Return the data as a pack, made once."""
    dataset = open_for_rate(data, processor.fs_hz)
    if isinstance(dataset, Pack):
        return dataset
    out = out.with_name(f"{out.name}-{dataset.fs_hz}")
    write_pack(plan_pack(dataset, out), 0, lambda counts: None)
    return open_for_rate(out, processor.fs_hz)


class Loader:
    """Draws shuffled, changed batches for ever."""

    def __init__(self, waveforms: Waveforms, fs_hz: int, batch_size: int, shortest_crop: float) -> None:
        self.waveforms, self.fs_hz, self.batch_size = waveforms, fs_hz, batch_size
        self.shortest_crop = shortest_crop
        self.rng = np.random.default_rng(0)
        self.order = self.rng.permutation(len(waveforms))

    def __call__(self) -> torch.Tensor:
        """Return a batch as training gives it to the tower, float32 (batch, 12, samples)."""
        if len(self.order) < self.batch_size:
            self.order = self.rng.permutation(max(len(self.waveforms), self.batch_size)) % len(self.waveforms)
        rows, self.order = np.sort(self.order[: self.batch_size]), self.order[self.batch_size :]
        batch = crop(augment(take([self.waveforms], rows), self.fs_hz, self.rng), self.shortest_crop, self.rng)
        return torch.from_numpy(mix(batch, MIX, self.rng)[0])


def make_step(name: str, processor: EcgProcessor, device: torch.device) -> Callable[[torch.Tensor], None]:
    """Return a forward and backward pass of a preset's tower."""
    preset = ECG_PRESETS[name]
    config = FGCLEPConfig(ecg=preset["ecg"], pool=preset["pool"], n_samples=processor.n_samples)
    encoder = EcgEncoder(config).to(device).train()

    def step(batch: torch.Tensor) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast_pays(device)):
            vectors = encoder(batch.to(device))
        vectors.float().square().sum().backward()
        encoder.zero_grad(set_to_none=True)
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


def time_both(draw: Loader, step: Callable[[torch.Tensor], None], seconds: float) -> tuple[float, float]:
    """Return records per second of loading and of computing, by turns, so that a busy machine slows both."""
    step(draw())  # warm up
    loading = computing = 0.0
    loaded = computed = 0
    while min(loading, computing) < seconds:
        start = time.perf_counter()
        while True:  # as many batches as take about as long as one step
            batch = draw()
            loaded += len(batch)
            if loading + time.perf_counter() - start >= computing:
                break
        loading += time.perf_counter() - start
        start = time.perf_counter()
        step(batch)
        computing += time.perf_counter() - start
        computed += len(batch)
    return loaded / loading, computed / computing


if __name__ == "__main__":
    main()
