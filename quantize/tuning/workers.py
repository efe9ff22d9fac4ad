"""Losses and gradients of many samples, computed in as many threads as there are, always with the same result.

Each shard of samples is computed by a single thread, and what the shards give is added in their order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..compute_device import CPU
from ..threads import single_threaded_pool
from .calls import DenoiserCall, join_calls, stack_output, to_float32
from .trainable import TrainableModel, replicate

T = TypeVar("T")


class ShardWorkers:
    """Threads that compute shards, each with a replica of the denoiser. Create it with `open_workers`.

    Gradients come from products in the dtype of large products; errors are computed in float32.
    """

    def __init__(
        self,
        model: TrainableModel,
        pool: ThreadPoolExecutor,
        num_threads: int,
        shard_size: int,
        matmul_dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._model, self._pool, self._num_threads, self._shard_size = model, pool, num_threads, shard_size
        self._matmul_dtype, self._device = matmul_dtype, device
        self._replicas: SimpleQueue[nn.Module] = SimpleQueue()
        for _ in range(num_threads):
            self._replicas.put(replicate(model.module))

    def compute_gradients(
        self, samples: Sequence[DenoiserCall], weights: Sequence[float]
    ) -> tuple[float, dict[str, Tensor]]:
        """Returns the mean loss of samples and its gradients by name.

        Args:
            samples: Calls of one sample each.
            weights: The factor of each step's loss.
        """

        def compute(module: nn.Module, shard: Sequence[DenoiserCall]) -> tuple[float, dict[str, Tensor]]:
            total = 0.0
            for call, steps in join_calls(shard):
                is_mixed = self._matmul_dtype != torch.float32
                with torch.autocast(self._device.type, self._matmul_dtype, enabled=is_mixed):
                    errors = _squared_errors(module, call, self._device)
                loss = (errors * torch.tensor([weights[step] for step in steps], device=self._device)).sum()
                loss = loss / len(samples)
                loss.backward()
                total += float(loss.detach())
            return total, self._model.get_gradients(module)

        loss, gradients = 0.0, dict[str, Tensor]()
        for shard_loss, shard_gradients in self._map_shards(compute, samples):
            loss += shard_loss
            for name, gradient in shard_gradients.items():
                gradients[name] = gradients[name].add_(gradient) if name in gradients else gradient
        return loss, gradients

    def compute_errors(self, samples: Sequence[DenoiserCall]) -> list[float]:
        """Returns the mean squared error of each sample's velocity."""

        @torch.no_grad()
        def compute(module: nn.Module, shard: Sequence[DenoiserCall]) -> list[float]:
            errors = (_squared_errors(module, call, self._device) for call, _ in join_calls(shard))
            return [error for values in errors for error in values.tolist()]

        return [error for errors in self._map_shards(compute, samples) for error in errors]

    def _map_shards(
        self, compute: Callable[[nn.Module, Sequence[DenoiserCall]], T], samples: Sequence[DenoiserCall]
    ) -> Iterator[T]:
        """Yields what is computed of each shard, in order. At most as many wait as there are threads."""

        def run(shard: Sequence[DenoiserCall]) -> T:
            replica = self._replicas.get()
            try:
                return compute(replica, shard)
            finally:
                self._replicas.put(replica)

        pending: deque[Future[T]] = deque()
        for start in range(0, len(samples), self._shard_size):
            pending.append(self._pool.submit(run, samples[start : start + self._shard_size]))
            if len(pending) > self._num_threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()


@contextmanager
def open_workers(
    model: TrainableModel, num_threads: int, shard_size: int, matmul_dtype: torch.dtype, device: torch.device = CPU
) -> Iterator[ShardWorkers]:
    """Starts threads that compute with a model.

    Args:
        model: The denoiser.
        num_threads: Number of threads; the result does not depend on it.
        shard_size: Number of samples that are computed at once; it changes the result in the last bits.
        matmul_dtype: The dtype of large products for gradients: float32, or bfloat16.
        device: Where the model is.
    """
    with single_threaded_pool(num_threads) as pool:
        yield ShardWorkers(model, pool, num_threads, shard_size, matmul_dtype, device)


def _squared_errors(module: nn.Module, call: DenoiserCall, device: torch.device) -> Tensor:
    """Returns the mean squared error of each sample's output, (samples,) float32."""
    output = stack_output(module(**to_float32(call.arguments, device))).float()
    difference = output - call.output.to(device, torch.float32)
    return difference.square().flatten(1).mean(1)
