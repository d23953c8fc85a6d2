"""The ways to train and to infer that `throughput.py` compares; each is given the same tiles and says how fast it was.

The peers get their best flags, and less work where their own parts have no equal: timm's tiles are flipped but not turned.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from common import N_CLASSES
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision import transforms
from torchvision.models import efficientnet_b3

from histo_mlflow.learning.compute import Compute, resolve_compute
from histo_mlflow.learning.fit import fit
from histo_mlflow.learning.infer import infer
from histo_mlflow.learning.optimiser import make_optimizer
from histo_mlflow.learning.options import ComputeOptions, FitOptions, Recipe
from histo_mlflow.learning.pooling import use_fast_pooling
from histo_mlflow.learning.reports import EpochReport
from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms
from histo_mlflow.options import build
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tiles.tile_set import TileSet

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)
_LEARNING_RATE = 1e-3
_WEIGHT_DECAY = 0.05
_OUR_EPOCHS = 2  # the first warms up, the second is reported


@dataclass(frozen=True, eq=False)
class Job:
    """What an arm has to do.

    Attributes:
        images: ``(n_tiles, size, size, 3)`` uint8, a memory map; `n_tiles` is a multiple of `batch_size`.
        labels: ``(n_tiles,)`` int64.
        device: As torch names it.
        batch_size: Tiles per step.
        n_warm_up: Tiles of the pass that is not timed, a multiple of `batch_size`.
        n_workers: Processes of a `DataLoader`.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    device: str
    batch_size: int
    n_warm_up: int
    n_workers: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_cuda(self) -> bool:
        """Whether the work is done on a GPU by CUDA."""
        return self.device.startswith("cuda")

    def wait(self) -> None:
        """Return when the device has done what it was asked to."""
        if self.is_cuda:
            torch.cuda.synchronize(self.device)

    def bf16(self) -> AbstractContextManager[object]:
        """Return the context of mixed precision."""
        return torch.autocast("cuda" if self.is_cuda else "cpu", dtype=torch.bfloat16)

    def rate(self, work: Callable[[], object]) -> float:
        """Return tiles per second of `work`, which goes through all tiles."""
        self.wait()
        started = time.perf_counter()
        work()
        self.wait()
        return len(self) / (time.perf_counter() - started)


@dataclass(frozen=True)
class Measured:
    """Tiles per second, and the seconds of a first pass that compiled the network."""

    tiles_per_second: float
    compile_seconds: float | None = None


@dataclass(frozen=True)
class Arm:
    """One way to do the work.

    Attributes:
        run: Does it.
        what: In a few words.
        ours: The arm of ours that it is compared with.
        needs: A package that may be missing.
        is_compiled: Whether it begins with `torch.compile`.
        keeps_memory: Whether it gets our command line's settings of the allocator (`keep_freed_memory`).
    """

    run: Callable[[Job], Measured]
    what: str
    ours: str
    needs: str | None = None
    is_compiled: bool = False
    keeps_memory: bool = True


class WarmUpSampler(Sampler[int]):
    """Positions of all tiles, in random order for training; its first pass ends early, so that it only warms up.

    Workers, caches and kernels then are there when the second pass is timed, within one loader and one trainer.
    """

    def __init__(self, n_tiles: int, n_warm_up: int, *, is_training: bool) -> None:
        self._n_tiles, self._n_warm_up, self._is_training = n_tiles, n_warm_up, is_training
        self._n_passes = 0

    def __len__(self) -> int:
        return self._n_tiles

    def __iter__(self) -> Iterator[int]:
        self._n_passes += 1
        order = torch.randperm(self._n_tiles) if self._is_training else torch.arange(self._n_tiles)
        yield from order[: self._n_warm_up if self._n_passes == 1 else None].tolist()


class PilTiles(Dataset[tuple[Any, int]]):
    """Tiles one by one through PIL and `transform`, as a torch `Dataset` is mostly written."""

    def __init__(self, job: Job, transform: Callable[[Image.Image], Any]) -> None:
        self._images, self._labels, self._transform = job.images, job.labels, transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> tuple[Any, int]:
        return self._transform(Image.fromarray(self._images[position])), int(self._labels[position])


def make_loader(job: Job, transform: Callable[[Image.Image], Any], *, is_training: bool, **options: Any) -> DataLoader[Any]:
    """Return a `DataLoader` whose first pass warms up."""
    return DataLoader(
        PilTiles(job, transform),
        batch_size=job.batch_size,
        sampler=WarmUpSampler(len(job), job.n_warm_up, is_training=is_training),
        num_workers=job.n_workers,
        pin_memory=job.is_cuda,
        persistent_workers=job.n_workers > 0,
        **options,
    )


def pil_transform(*, is_training: bool) -> transforms.Compose:
    """Return torchvision's transforms for one tile, ending in a normalised float tensor."""
    changes = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip(), transforms.RandomRotation(90)]
    return transforms.Compose([*(changes if is_training else []), transforms.ToTensor(), transforms.Normalize(_MEAN, _STD)])


def timm_loader(job: Job, *, is_training: bool) -> Any:
    """Return what `timm.data.create_loader` builds (`fast_collate`, normalisation on the device) around a sampler of ours."""
    from timm.data.loader import PrefetchLoader, fast_collate

    changes = [transforms.RandomHorizontalFlip(), transforms.RandomVerticalFlip()] if is_training else []
    loader = make_loader(
        job, transforms.Compose([*changes, transforms.PILToTensor()]), is_training=is_training, collate_fn=fast_collate
    )
    return PrefetchLoader(loader, mean=_MEAN, std=_STD, device=torch.device(job.device))


def make_timm_network(job: Job) -> nn.Module:
    """Return timm's EfficientNet-B3 with torchvision's rates of dropout and stochastic depth, in channels_last."""
    import timm

    torch.backends.cudnn.benchmark = True  # as timm's own train.py does
    network = timm.create_model("efficientnet_b3", pretrained=False, num_classes=N_CLASSES, drop_rate=0.3, drop_path_rate=0.2)
    return network.to(job.device, memory_format=torch.channels_last)


def make_our_network(job: Job) -> TileClassifier:
    """Return the network of this project in channels_last, as `fit` puts it."""
    network = TileClassifier(n_classes=N_CLASSES, tile_size_px=job.images.shape[1])
    return network.to(job.device).to(memory_format=torch.channels_last)


def resolve(job: Job, precision: str) -> Compute:
    """Return what this project's option `precision` means for the job."""
    return resolve_compute(ComputeOptions(device=job.device, precision=precision), tile_size_px=job.images.shape[1])


def train_ours(job: Job) -> Measured:
    """Call `fit` with its defaults, augmentation in every epoch."""
    rates: list[float] = []

    def observe(report: EpochReport) -> None:
        rates.append(report.tiles_per_second)

    classes = tuple(f"class {label}" for label in range(N_CLASSES))
    tiles = TileSet(job.images, job.labels, classes, groups=None, source="noise", fingerprint="")
    asked = {"epochs": _OUR_EPOCHS, "aug_cutoff": _OUR_EPOCHS, "batch_size": job.batch_size, "device": job.device}
    split = Split.of(tiles, np.arange(len(job)), np.arange(2))
    fit(make_our_network(job), split, build(Recipe, asked), on_epoch=observe)
    return Measured(rates[-1])


def train_ceiling(job: Job) -> Measured:
    """Repeat the step of `fit` on one batch that lies on the device: no loading, augmentation or bookkeeping."""
    network, compute = make_our_network(job).train(), resolve(job, "auto")
    if job.device == "cpu":
        use_fast_pooling(network)
    tiles, labels = _first_batch(job)
    optimizer = make_optimizer(network, FitOptions())

    def work(n_tiles: int) -> None:
        for _ in range(n_tiles // job.batch_size):
            with compute.learning():
                logits = network(tiles)
            _step(functional.cross_entropy(logits.float(), labels), optimizer)

    work(job.n_warm_up)
    return Measured(job.rate(lambda: work(len(job))))


def train_original(job: Job) -> Measured:
    """Train as the original did: fp32, NCHW, plain AdamW."""
    network = efficientnet_b3(num_classes=N_CLASSES).to(job.device)
    optimizer = torch.optim.AdamW(network.parameters(), lr=_LEARNING_RATE)
    loader = make_loader(job, pil_transform(is_training=True), is_training=True)
    return _train_with_loader(job, network, loader, optimizer, nullcontext(), torch.contiguous_format)


def train_timm(job: Job) -> Measured:
    """Train timm's network from timm's loader with timm's optimiser: channels_last, fused, bf16 where that is faster."""
    from timm.optim import create_optimizer_v2

    network = make_timm_network(job)
    optimizer = create_optimizer_v2(network, "adamw", lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True)
    loader = timm_loader(job, is_training=True)
    return _train_with_loader(job, network, loader, optimizer, resolve(job, "auto").autocast(), torch.channels_last)


def train_lightning(job: Job) -> Measured:
    """Train with a Lightning `Trainer`: channels_last, fused AdamW, bf16-mixed where that is faster."""
    module, trainer = _make_lightning(job, max_epochs=2, is_bf16=resolve(job, "auto").is_bf16)
    loader = make_loader(job, pil_transform(is_training=True), is_training=True)
    trainer.fit(module, loader)
    return Measured(module.tiles_per_second())


def infer_ours(job: Job, *, precision: str) -> Measured:
    """Call `infer`."""
    network, compute = make_our_network(job).eval(), resolve(job, precision)

    def work(n_tiles: int) -> None:
        infer(network, job.images, rows=np.arange(n_tiles), compute=compute, batch_size=job.batch_size)

    work(job.n_warm_up)
    return Measured(job.rate(lambda: work(len(job))))


@torch.inference_mode()
def infer_ceiling(job: Job, *, precision: str) -> Measured:
    """Repeat the forward pass of `infer` on one batch that lies on the device."""
    network, compute = fold_batch_norms(make_our_network(job).eval()), resolve(job, precision)
    tiles, _ = _first_batch(job)

    def work(n_tiles: int) -> None:
        for _ in range(n_tiles // job.batch_size):
            with compute.autocast():
                network(tiles)

    work(job.n_warm_up)
    return Measured(job.rate(lambda: work(len(job))))


def infer_original(job: Job) -> Measured:
    """Infer as the original did: fp32, NCHW, tile by tile through PIL."""
    network = efficientnet_b3(num_classes=N_CLASSES).eval().to(job.device)
    loader = make_loader(job, pil_transform(is_training=False), is_training=False)
    return _infer_with_loader(job, network, loader, nullcontext(), torch.contiguous_format)


def infer_timm(job: Job) -> Measured:
    """Infer with timm's network and loader: bf16, channels_last."""
    network = make_timm_network(job).eval()
    return _infer_with_loader(job, network, timm_loader(job, is_training=False), job.bf16(), torch.channels_last)


def infer_lightning(job: Job) -> Measured:
    """Infer with `Trainer.predict`: bf16-mixed, channels_last."""
    module, trainer = _make_lightning(job, max_epochs=1, is_bf16=True)
    loader = make_loader(job, pil_transform(is_training=False), is_training=False)
    trainer.predict(module, loader)
    trainer.predict(module, loader)
    return Measured(module.tiles_per_second())


def infer_torchvision(job: Job, *, is_bf16: bool, is_compiled: bool) -> Measured:
    """Infer with torchvision's network in channels_last; whole batches are gathered, moved and normalised on the device."""
    network = efficientnet_b3(num_classes=N_CLASSES).eval().to(job.device, memory_format=torch.channels_last)
    mean, std = (torch.tensor(values, device=job.device).view(3, 1, 1) for values in (_MEAN, _STD))
    scale, shift = 1 / (255 * std), -mean / std
    if is_compiled:
        from torch._inductor import config

        config.freezing = True  # folds batch norms and packs weights
    forward = torch.compile(network) if is_compiled else network

    def work(n_tiles: int) -> None:
        logits = []
        for start in range(0, n_tiles, job.batch_size):
            tiles = torch.from_numpy(job.images[start : start + job.batch_size].copy()).to(job.device)
            with job.bf16() if is_bf16 else nullcontext():
                logits.append(forward(tiles.permute(0, 3, 1, 2) * scale + shift).float())
        torch.cat(logits).cpu()

    with torch.no_grad():  # frozen graphs are not made in inference mode
        started = time.perf_counter()
        work(job.batch_size)
        first_seconds = time.perf_counter() - started
        work(job.n_warm_up)
        return Measured(job.rate(lambda: work(len(job))), first_seconds if is_compiled else None)


def _first_batch(job: Job) -> tuple[Tensor, Tensor]:
    chosen = slice(0, job.batch_size)
    return torch.from_numpy(job.images[chosen].copy()).to(job.device), torch.from_numpy(job.labels[chosen]).to(job.device)


def _step(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def _train_with_loader(
    job: Job,
    network: nn.Module,
    loader: Any,
    optimizer: torch.optim.Optimizer,
    precision: AbstractContextManager[object],
    layout: torch.memory_format,
) -> Measured:
    network.train()

    def epoch() -> None:
        for images, labels in loader:
            pixels = images.to(job.device, non_blocking=True).contiguous(memory_format=layout)
            targets = labels.to(job.device, non_blocking=True)
            with precision:
                loss = functional.cross_entropy(network(pixels), targets)
            _step(loss, optimizer)

    epoch()
    return Measured(job.rate(epoch))


@torch.inference_mode()
def _infer_with_loader(
    job: Job, network: nn.Module, loader: Any, precision: AbstractContextManager[object], layout: torch.memory_format
) -> Measured:
    def one_pass() -> None:
        logits = []
        for images, _ in loader:
            pixels = images.to(job.device, non_blocking=True).contiguous(memory_format=layout)
            with precision:
                logits.append(network(pixels).float())
        torch.cat(logits).cpu()

    one_pass()
    return Measured(job.rate(one_pass))


def _make_lightning(job: Job, *, max_epochs: int, is_bf16: bool) -> tuple[Any, Any]:
    """Return a module that measures its own last epoch or prediction, and a trainer."""
    import lightning.pytorch as pl

    class Classifier(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = efficientnet_b3(num_classes=N_CLASSES).to(memory_format=torch.channels_last)
            self.started, self.ended, self.n_seen = 0.0, 0.0, 0

        def forward(self, images: Tensor) -> Tensor:
            self.n_seen += len(images)
            return self.network(images.contiguous(memory_format=torch.channels_last))

        def training_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            images, labels = batch
            return functional.cross_entropy(self(images), labels)

        def predict_step(self, batch: tuple[Tensor, Tensor], _index: int) -> Tensor:
            return self(batch[0]).float().cpu()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY, fused=True)

        def begin(self) -> None:
            job.wait()
            self.started, self.n_seen = time.perf_counter(), 0

        def end(self) -> None:
            job.wait()
            self.ended = time.perf_counter()

        on_train_epoch_start = on_predict_start = begin
        on_train_epoch_end = on_predict_end = end

        def tiles_per_second(self) -> float:
            if self.n_seen != len(job):
                raise RuntimeError(f"Lightning saw {self.n_seen} tiles in its last pass and not {len(job)}")
            return self.n_seen / (self.ended - self.started)

    trainer = pl.Trainer(
        accelerator="gpu" if job.is_cuda else "cpu",
        devices=1,
        precision="bf16-mixed" if is_bf16 else "32-true",
        max_epochs=max_epochs,
        benchmark=True,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    return Classifier(), trainer


TRAINING: dict[str, Arm] = {
    "train/ours": Arm(train_ours, "fit, default options", "train/ours"),
    "train/ceiling": Arm(train_ceiling, "our step on one resident batch", "train/ours"),
    "train/original": Arm(train_original, "PIL, DataLoader, fp32, NCHW", "train/ours", keeps_memory=False),
    "train/original-kept": Arm(train_original, "the same with our settings of the allocator", "train/ours"),
    "train/timm": Arm(train_timm, "timm, its loader, channels_last, our precision", "train/ours", needs="timm"),
    "train/lightning": Arm(train_lightning, "Lightning, channels_last, our precision", "train/ours", needs="lightning"),
}

INFERENCE: dict[str, Arm] = {
    "infer/original-fp32": Arm(infer_original, "PIL, DataLoader, NCHW", "infer/ours-fp32"),
    "infer/timm-bf16": Arm(infer_timm, "timm, its loader, channels_last", "infer/ours-bf16", needs="timm"),
    "infer/lightning-bf16": Arm(infer_lightning, "Lightning, channels_last", "infer/ours-bf16", needs="lightning"),
}
for _precision in ("fp32", "bf16"):
    _is_bf16, _ours = _precision == "bf16", f"infer/ours-{_precision}"
    INFERENCE |= {
        _ours: Arm(partial(infer_ours, precision=_precision), "infer", _ours),
        f"infer/ceiling-{_precision}": Arm(
            partial(infer_ceiling, precision=_precision), "our forward pass on one resident batch", _ours
        ),
        f"infer/eager-{_precision}": Arm(
            partial(infer_torchvision, is_bf16=_is_bf16, is_compiled=False), "torchvision, channels_last, whole batches", _ours
        ),
        f"infer/compiled-{_precision}": Arm(
            partial(infer_torchvision, is_bf16=_is_bf16, is_compiled=True),
            "the same with torch.compile, frozen",
            _ours,
            is_compiled=True,
        ),
    }
INFERENCE = dict(sorted(INFERENCE.items(), key=lambda item: (item[1].ours != "infer/ours-fp32", item[0] != item[1].ours)))

ARMS = {**TRAINING, **INFERENCE}
