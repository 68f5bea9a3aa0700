"""FBGEMM's fused rowwise Adagrad by our kernel: the formula, for every shape of lookup, and FBGEMM's own where ours does not serve."""

import pytest
import torch
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from fbgemm_gpu.split_table_batched_embeddings_ops_common import BoundsCheckMode, EmbeddingLocation, PoolingMode
from fbgemm_gpu.split_table_batched_embeddings_ops_training import ComputeDevice, SplitTableBatchedEmbeddingBagsCodegen, WeightDecayMode

from sml_dist.embeddings import rowwise_adagrad
from sml_dist.nn.native import library

pytestmark = pytest.mark.skipif(library(rowwise_adagrad.SOURCE) is None, reason="no C++ compiler: FBGEMM's own kernel does it")

LR, EPS = 0.05, 1e-6
ROWS, FEATURES_OF = (50, 7, 2000), (0, 1, 1, 1, 2)  # the middle table has three features
BATCH = 64


@pytest.fixture(autouse=True)
def taken_over():
    rowwise_adagrad.take_over()


@pytest.fixture
def done(monkeypatch):
    """What the kernel answered, call by call."""
    answers, updated = [], rowwise_adagrad.updated
    monkeypatch.setattr(rowwise_adagrad, "updated", lambda *given: answers.append(updated(*given)) or answers[-1])
    return answers


def make(dims=(16, 16, 16), pooling=PoolingMode.SUM, **options):
    torch.manual_seed(0)
    specs = [(rows, dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for rows, dim in zip(ROWS, dims, strict=True)]
    fused = {"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "learning_rate": LR, "eps": EPS} | options
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        specs, feature_table_map=list(FEATURES_OF), pooling_mode=pooling, bounds_check_mode=BoundsCheckMode.NONE, **fused
    )
    tables.init_embedding_weights_uniform(-1, 1)
    return tables


def lookups(longest, seed, kind=torch.int64):
    """Ids and offsets of bags of up to `longest` ids, some empty; or of one id each."""
    draw = torch.Generator().manual_seed(seed)
    bags = len(FEATURES_OF) * BATCH
    lengths = torch.randint(0, longest + 1, (bags,), generator=draw) if longest > 1 else torch.ones(bags, dtype=torch.int64)
    rows = torch.tensor([ROWS[table] for table in FEATURES_OF]).repeat_interleave(BATCH).repeat_interleave(lengths)
    ids = (torch.rand(len(rows), generator=draw) ** 3 * rows).long()
    return ids.to(kind), torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]).to(kind)


def learn(tables, longest=1, steps=3, kind=torch.int64, id_weights=False):
    """Weights and states after some steps."""
    for step in range(steps):
        ids, offsets = lookups(longest, step, kind)
        weights = torch.linspace(0.5, 1.5, len(ids)) if id_weights else None
        pooled = tables(ids, offsets, weights)
        pooled.backward(torch.randn(pooled.shape, generator=torch.Generator().manual_seed(100 + step)))
    return [w.clone() for w in tables.split_embedding_weights()], [state.clone() for (state,) in tables.split_optimizer_states()]


def formula(dims, pooling, longest, steps=3, id_weights=False, l2=0.0):
    """The same in float64, by torch's own operations, table by table."""
    weights = [w.double().requires_grad_() for w in make(dims, pooling).split_embedding_weights()]
    states = [torch.zeros(len(w), dtype=torch.float64) for w in weights]
    for step in range(steps):
        ids, offsets = lookups(longest, step)
        shares = torch.linspace(0.5, 1.5, len(ids)).double() if id_weights else torch.ones(len(ids), dtype=torch.float64)
        pooled = []
        for feature, table in enumerate(FEATURES_OF):
            first, last = offsets[feature * BATCH], offsets[(feature + 1) * BATCH]
            bounds = offsets[feature * BATCH : (feature + 1) * BATCH + 1] - first
            bag = torch.repeat_interleave(torch.arange(BATCH), bounds.diff())
            rows = weights[table][ids[first:last]] * shares[first:last, None]
            total = torch.zeros(BATCH, rows.shape[1], dtype=torch.float64).index_add(0, bag, rows)
            pooled.append(total / bounds.diff().clamp(min=1)[:, None] if pooling == PoolingMode.MEAN else total)
        output = torch.cat(pooled, dim=1)
        gradient = torch.randn(output.shape, generator=torch.Generator().manual_seed(100 + step), dtype=torch.float32).double()
        found = torch.autograd.grad(output, weights, gradient)
        with torch.no_grad():
            for table, (weight, state, g) in enumerate(zip(weights, states, found, strict=True)):
                seen = [ids[offsets[f * BATCH] : offsets[(f + 1) * BATCH]] for f, of in enumerate(FEATURES_OF) if of == table]
                seen = torch.cat(seen).unique()
                g[seen] += l2 * weight[seen]
                state += (g * g).mean(dim=1)
                weight -= LR * g / (state.sqrt() + EPS)[:, None]
    return [w.detach() for w in weights], states


def assert_same(found, wanted):
    for ours, theirs in zip(found[0] + found[1], wanted[0] + wanted[1], strict=True):
        torch.testing.assert_close(ours.reshape(theirs.shape).double(), theirs.double(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("dims", [(16, 16, 16), (4, 8, 20), (128, 64, 32)], ids=str)
@pytest.mark.parametrize("longest", [1, 5])
@pytest.mark.parametrize("pooling", [PoolingMode.SUM, PoolingMode.MEAN])
def test_each_row_moves_once_by_the_sum_of_its_gradients(dims, longest, pooling, done):
    assert_same(learn(make(dims, pooling), longest), formula(dims, pooling, longest))
    assert done == [True] * 3


@pytest.mark.parametrize(("longest", "pooling"), [(1, PoolingMode.SUM), (4, PoolingMode.MEAN)])
def test_l2_decays_the_rows_looked_up(longest, pooling, done):
    tables = make(pooling=pooling, weight_decay=0.3, weight_decay_mode=WeightDecayMode.L2)
    assert_same(learn(tables, longest), formula((16, 16, 16), pooling, longest, l2=0.3))
    assert done == [True] * 3


def test_it_is_fbgemms_own_but_for_rounding(monkeypatch, done):
    ours = learn(make(), longest=3)
    monkeypatch.setattr(rowwise_adagrad, "updated", lambda *given: False)
    assert_same(ours, learn(make(), longest=3))
    assert done == [True] * 3


def test_threads_and_the_ids_type_change_no_bit():
    found = []
    for threads, kind in ((1, torch.int64), (2, torch.int64), (5, torch.int32)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        weights, states = learn(make(), longest=3, kind=kind)
        torch.set_num_threads(before)
        found.append(weights + states)
    assert all(torch.equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


def test_ids_with_weights_are_fbgemms(done):
    assert_same(learn(make(), longest=3, id_weights=True), formula((16, 16, 16), PoolingMode.SUM, 3, id_weights=True))
    assert done == [False] * 3


@pytest.mark.parametrize("options", [{"max_norm": 0.5}, {"weight_decay": 0.1, "weight_decay_mode": WeightDecayMode.DECOUPLE}], ids=str)
def test_a_bound_on_rows_norms_and_other_decay_are_fbgemms(options, done):
    learn(make(**options))
    assert done == [False] * 3


def test_a_batch_without_ids_changes_nothing():
    tables = make()
    before = [w.clone() for w in tables.split_embedding_weights()]
    bags = len(FEATURES_OF) * BATCH
    tables(torch.empty(0, dtype=torch.int64), torch.zeros(bags + 1, dtype=torch.int64)).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(before, tables.split_embedding_weights(), strict=True))
