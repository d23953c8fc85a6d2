import threading

import numpy as np
import pytest
import torch

from histo_mlflow.learning.batches import TileSource, batch_rows

CPU = torch.device("cpu")


def test_batches_come_in_order_and_whole() -> None:
    images = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1).repeat(3, axis=3)
    rows = np.random.default_rng(0).permutation(50)
    batches = batch_rows(rows, 8)
    loaded = list(TileSource(images, CPU).load(batches))
    assert [len(tiles) for tiles in loaded] == [8] * 6 + [2]
    assert torch.cat(loaded)[:, 0, 0, 0].tolist() == rows.tolist()


def test_an_error_while_gathering_reaches_the_caller() -> None:
    images = np.zeros((5, 1, 1, 3), dtype=np.uint8)
    with pytest.raises(IndexError):
        list(TileSource(images, CPU).load([np.array([0, 1]), np.array([7])]))


def test_the_gathering_thread_ends_with_a_loop_that_breaks_off() -> None:
    images = np.zeros((100, 1, 1, 3), dtype=np.uint8)
    stream = TileSource(images, CPU).load(batch_rows(np.arange(100), 2))
    next(stream)
    assert _gathering()
    stream.close()
    for thread in _gathering():
        thread.join(timeout=5)
    assert not _gathering()


def _gathering() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("gather-tiles")]


def test_a_last_batch_too_small_for_all_processes_joins_its_neighbour() -> None:
    assert [len(batch) for batch in batch_rows(np.arange(11), 4, smallest=4)] == [4, 7]
    assert [len(batch) for batch in batch_rows(np.arange(3), 4, smallest=4)] == [3]


def test_tiles_that_lie_on_the_device_are_found_by_their_rows() -> None:
    """What a GPU with room gets, here on the CPU."""
    images = np.arange(50, dtype=np.uint8).reshape(50, 1, 1, 1).repeat(3, axis=3)
    rows = np.random.default_rng(1).permutation(50)[:31]
    source = TileSource(images, CPU)
    source._make_resident(rows)
    asked = batch_rows(np.random.default_rng(2).permutation(rows), 8)
    assert torch.cat(list(source.load(asked)))[:, 0, 0, 0].tolist() == np.concatenate(asked).tolist()
