"""A run's tensors by logical place: tables and their optimiser's state by rows and columns, whatever the sharding plan.

    t_C1.weight, t_C1.sum, t_C1.exp_avg ...   (rows, dim) of a table; each worker holds some rows and columns
    model.PARAMETER, optim.PARAMETER.exp_avg  the dense part, the same on every worker

Rowwise Adagrad keeps one number for a row of a shard: the sum over steps of the mean over the shard's columns of g^2.
It is stored as that number over those columns, and a shard's state is read as the mean over its columns. So between
row_wise, table_wise and data_parallel it carries over bit for bit; column shards joined give exactly the state that the
whole row would have had; a row cut into column shards gives each the state of the whole row, which is not what it
would have had itself. restore names the tables for which that happened.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.distributed as dist
from fbgemm_gpu.split_table_batched_embeddings_ops_training import SplitTableBatchedEmbeddingBagsCodegen
from torch import Tensor, nn
from torchrec.distributed.embeddingbag import ShardedEmbeddingBagCollection
from torchrec.distributed.model_parallel import DistributedModelParallel
from torchrec.distributed.types import ShardedTensor

from sml_dist.train.optimizers import Optimizers

TABLES = "tables.embedding_bags."
# The shape of a table, and (offset, shape) of each of its blocks.
Places = tuple[tuple[int, ...], list[tuple[tuple[int, ...], tuple[int, ...]]]]
COUNTER = "step"  # of torch's optimisers; FBGEMM has none for its Adagrads


@dataclass(frozen=True)
class Piece:
    """A block of a logical tensor: `tensor` holds `shape[i]` entries from `offset[i]` on in each dimension of `whole`.

    A `rowwise` piece holds one number for each of its rows, which stands for all of its columns.
    """

    name: str
    tensor: Tensor
    whole: tuple[int, ...]
    offset: tuple[int, ...]
    shape: tuple[int, ...]
    replicated: bool = False

    @property
    def rowwise(self) -> bool:
        return len(self.shape) == 2 and self.tensor.numel() == self.shape[0]


def weights(model: nn.Module) -> Iterator[Piece]:
    """The weights and buffers of a task on this worker, sharded or plain."""
    for name, value in model.state_dict().items():
        if name.startswith(TABLES):
            yield from _table(f"{_logical(name)}.weight", value, _places(value))
        else:
            yield _whole(name, value)


def pieces(model: DistributedModelParallel, optimizers: Optimizers) -> list[Piece]:
    """Every tensor of this worker; writing into them is loading the run."""
    found = list(weights(model))
    places = {name: _places(value) for name, value in model.state_dict().items() if name.startswith(TABLES)}
    for name, state in optimizers.state().items():
        for key, value in state.items():
            if name not in places:
                found.append(_whole(f"optim.{name}.{key}", value))
            elif key == COUNTER:
                found.append(_whole(f"{_logical(name)}.{key}", value))
            else:
                found += _table(f"{_logical(name)}.{_state_name(key, optimizers.table_optimizer)}", value, places[name])
    return found


def _places(value) -> Places:
    return tuple(value.size()), [(offset, shape) for _, offset, shape in _blocks(value)]


def _table(name: str, value, places: Places) -> Iterator[Piece]:
    """This worker's blocks of a table's weights or optimiser state; the state of a block lies where its weights do."""
    whole, blocks = places
    for (tensor, _, _), (offset, shape) in zip(_blocks(value), blocks, strict=True):
        if tensor is not None:
            yield Piece(name, tensor, whole, offset, shape, not _sharded(value))


def _state_name(key: str, optimizer: str) -> str:
    """Torch's name for a table optimiser's state; FBGEMM calls the first one t_C1.momentum1."""
    name = key.rpartition(".")[2]
    if name == "momentum1":
        return "exp_avg" if optimizer == "adam" else "sum"
    return name


def _blocks(value) -> Iterator[tuple[Tensor | None, tuple[int, ...], tuple[int, ...]]]:
    """(tensor, offset, shape) of every block of a table on any worker, in the plan's order; the tensor where it is this worker's."""
    if not _sharded(value):
        yield value, (0,) * value.dim(), tuple(value.shape)
        return
    mine = {tuple(shard.metadata.shard_offsets): shard.tensor for shard in value.local_shards() if shard.tensor.numel()}
    for block in value.metadata().shards_metadata:
        yield mine.get(tuple(block.shard_offsets)), tuple(block.shard_offsets), tuple(block.shard_sizes)


def _whole(name: str, value: Tensor) -> Piece:
    return Piece(name, value, tuple(value.shape), (0,) * value.dim(), tuple(value.shape), True)


def _sharded(value) -> bool:
    return isinstance(value, ShardedTensor)


def _logical(name: str) -> str:
    """tables.embedding_bags.t_C1.weight -> t_C1"""
    return name[len(TABLES) :].removesuffix(".weight")


def mine(found: list[Piece]) -> list[Piece]:
    """Those that this worker writes, in an order that is always the same: its shards, and on worker 0 what all hold alike."""
    own = (piece for piece in found if dist.get_rank() == 0 or not piece.replicated)
    return sorted(own, key=lambda piece: (piece.name, piece.offset))


@torch.no_grad()
def set_steps(model: DistributedModelParallel, step: int) -> None:
    """FBGEMM's fused optimisers count steps themselves (Adam's bias correction needs them), outside of their state.

    They do so twice, and take the count that is kept, `iter`, for the one that they go by at their first step alone.
    """
    for module in fused(model):
        module.iter.fill_(step)
        module.iter_cpu.fill_(step)


def drop_cached_rows(model: nn.Module) -> None:
    """To be called once weights are loaded: they go into the tables' own memory, and where that is the host's, a GPU's cache still
    holds rows of before, which it would look up, and write back over them later."""
    for module in fused(model):
        module.reset_cache_states()


def fused(model: nn.Module) -> Iterator[SplitTableBatchedEmbeddingBagsCodegen]:
    """FBGEMM's modules, which TorchRec keeps in plain lists: `model.modules()` has none of them. A plain task has none."""
    sharded = (module for module in model.modules() if isinstance(module, ShardedEmbeddingBagCollection))
    for lookup in (lookup for module in sharded for lookup in module._lookups):
        yield from (module for module in lookup.modules() if isinstance(module, SplitTableBatchedEmbeddingBagsCodegen))
