"""What a step calls, and which of its weights learn in an epoch; knows nothing of the loop."""

import warnings

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from histo_mlflow.learning.options import FitOptions
from histo_mlflow.learning.ranks import Ranks


class Learner:
    """A network, compiled or wrapped for several processes where that is asked for, that learns by its head alone at first.

    Args:
        network: On its device.
        options: Which epochs are the head's.
        ranks: The processes that share each batch.
        is_compiled: Whether torch.compile is used.
    """

    def __init__(self, network: nn.Module, options: FitOptions, ranks: Ranks, *, is_compiled: bool) -> None:
        self._network, self._options, self._ranks, self._is_compiled = network, options, ranks, is_compiled
        self._called: nn.Module | None = None
        self._is_head_alone = False

    def begin(self, epoch: int) -> nn.Module:
        """Return what a step of `epoch` calls, in the mode in which it learns.

        While the head learns alone, everything else is as in evaluation: no gradient, no dropout, and batch norms that neither
        use nor note what they see.
        """
        is_head_alone = epoch <= self._options.epochs_of_head_alone
        if self._called is None or is_head_alone != self._is_head_alone:
            self._is_head_alone = is_head_alone
            if self._options.epochs_of_head_alone:
                self._network.requires_grad_(not is_head_alone)
                self._network.head.requires_grad_(True)
            self._called = self._wrap()
        self._network.train(not is_head_alone)
        return self._called

    def _wrap(self) -> nn.Module:
        called: nn.Module = self._network
        if self._ranks.size > 1:  # anew for each part of the weights: torch notes when it wraps which of them learn
            with warnings.catch_warnings():
                # torch 2.14 prefers a name that 2.11 does not have.
                warnings.filterwarnings("ignore", message=".*broadcast_buffers.*", category=FutureWarning)
                called = DistributedDataParallel(self._network, broadcast_buffers=False)
        if self._is_compiled:
            called.compile()
        return called
