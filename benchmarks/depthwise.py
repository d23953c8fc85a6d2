"""What our backward pass of depthwise convolutions gains: `python benchmarks/depthwise.py`.

A step, forward and backward, of a batch of 32, with torch's pass and with ours in turn; medians over the rounds. bf16 is
measured where the processor has it. Prints a table and writes a JSON file.
"""

import argparse
import time
from contextlib import nullcontext
from statistics import median

import torch
from common import RESULTS, describe_machine, write_results
from torch import nn
from torch.nn import functional

from histo_mlflow.console import format_table, say
from histo_mlflow.learning.depthwise import FastDepthwise
from histo_mlflow.models.backbones import find_backbone

_BATCH, _N_CLASSES = 32, 9


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--backbones", default="torchvision:efficientnet_b3 lite0", help="as `histo train --backbone`")
    parser.add_argument("--sizes", default="32 48 64 96", help="edge lengths of tiles in pixels")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--name", default="depthwise", help="name of the file in benchmarks/results")
    asked = parser.parse_args()
    machine = describe_machine("cpu")
    rows = []
    for backbone in asked.backbones.split():
        for size_px in map(int, asked.sizes.split()):
            for is_bf16 in (False, True) if machine["has_avx512_bf16"] else (False,):
                seconds = _measure(find_backbone(backbone).build(_N_CLASSES, size_px), size_px, asked.rounds, is_bf16=is_bf16)
                ratios = sorted(torchs / ours for torchs, ours in zip(*seconds, strict=True))
                row = {"backbone": backbone, "size_px": size_px, "precision": "bf16" if is_bf16 else "fp32"}
                rows.append(row | {"torch": _BATCH / median(seconds[0]), "ours": _BATCH / median(seconds[1]), "ratios": ratios})
                say(f"{backbone}, {size_px} px, {row['precision']}: {median(ratios):.2f} times")
    write_results(RESULTS / f"{asked.name}.json", {"machine": machine, "rounds": asked.rounds, "steps": rows})
    table = [
        [each["backbone"], str(each["size_px"]), each["precision"], f"{each['torch']:.0f}", f"{each['ours']:.0f}",
         f"{median(each['ratios']):.2f} ({min(each['ratios']):.2f} to {max(each['ratios']):.2f})"]
        for each in rows
    ]  # fmt: skip
    say(format_table(["backbone", "px", "precision", "torch, tiles/s", "ours", "ours / torch"], table))


def _measure(network: nn.Module, size_px: int, rounds: int, *, is_bf16: bool) -> tuple[list[float], list[float]]:
    """Return the processor time of a step in each round, with torch's pass and with ours; the first round warms up."""
    network = network.train().to(memory_format=torch.channels_last)
    tiles = torch.randn(_BATCH, 3, size_px, size_px).to(memory_format=torch.channels_last)
    labels = torch.arange(_BATCH) % _N_CLASSES
    seconds: tuple[list[float], list[float]] = ([], [])
    for round_ in range(rounds + 1):
        for kept, is_ours in zip(seconds, (False, True), strict=True):
            started = time.process_time()
            with torch.autocast("cpu", torch.bfloat16, enabled=is_bf16), FastDepthwise() if is_ours else nullcontext():
                loss = functional.cross_entropy(network(tiles).float(), labels)
            loss.backward()
            network.zero_grad()
            if round_:
                kept.append(time.process_time() - started)
    return seconds


if __name__ == "__main__":
    main()
