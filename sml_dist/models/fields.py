"""What a model knows of its input, how many fields, how wide, how many numeric values; and the forms in which it takes them."""

import torch
from torch import Tensor, nn

from sml_dist.nn.linear import product_type
from sml_dist.spec import InputError, spec


@spec
class SequenceShape:
    """A behaviour sequence of `length` positions, whose ids are those of the field `target`, counted from 0."""

    target: int
    length: int


@spec
class FieldShape:
    """`fields` embeddings of `dim` numbers each, and `dense` numeric values; `labels` to be predicted from them.

    Each position of each of the `sequences` is one of the fields: they are the last ones, the newest of a sequence first, and
    zeros where a row has no such position (see `present`).
    """

    fields: int
    dim: int
    dense: int
    sequences: tuple[SequenceShape, ...] = ()
    labels: int = 1

    @property
    def width(self) -> int:
        return self.fields * self.dim + self.dense

    def without_weight(self) -> "FieldShape":
        """The shape that `split_weight` leaves."""
        if self.dim < 2:
            raise InputError(f"embedding.dim {self.dim}: the last number of an id is its first-order weight here; give 2 or more")
        return FieldShape(fields=self.fields, dim=self.dim - 1, dense=self.dense)


def check_pairs(model: str, fields: int) -> None:
    """For models that read products of pairs of fields alone. Raises InputError where there is no pair."""
    if fields < 2:
        way_out = "add one to its schema, or name a model that reads fields by themselves, such as dnn"
        raise InputError(f"model {model} reads products of two fields, and the dataset has one field; {way_out}")


def concat(x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
    """(B, F, D) and (B, N) -> (B, F * D + N), no copy where N = 0, in the type of the products that it goes into: turned
    here once, not for each product, and their gradients back."""
    parts = [part.to(product_type(part)) for part in (x_BFD.flatten(1), dense_BN)]
    return torch.cat(parts, dim=1) if dense_BN.shape[1] else parts[0]


def present(x_BLD: Tensor) -> Tensor:
    """Which positions of a sequence a row has, bool (B, L): what is not there was looked up as zeros, and no row of a table is."""
    return (x_BLD != 0).any(dim=2)


def split_weight(x_BFD: Tensor) -> tuple[Tensor, Tensor]:
    """(B, F, D) -> the embeddings, (B, F, D - 1), and the first-order weights, (B, F): the last number of an id is its weight.

    So one lookup fetches both, and a table is as wide as `embedding.dim` says in every model (FBGEMM wants multiples of 4,
    which D + 1 would not be). What they share besides is the row's one state under rowwise Adagrad: there an id's weight steps
    by the mean square of all its numbers' gradients, not by its own.
    """
    return x_BFD[..., :-1], x_BFD[..., -1]


class NumericFields(nn.Module):
    """Each numeric value as one more field, e_j = x_j v_j: (B, F, D), (B, N) -> (B, F + N, D), whose shape is `shape`.

    For models that relate fields to each other (factorisation machines, arXiv:1810.11921); those that read one
    flat vector take the values as they are (`concat`).
    """

    def __init__(self, shape: FieldShape):
        super().__init__()
        self.shape = FieldShape(fields=shape.fields + shape.dense, dim=shape.dim, dense=0)
        # Started as the tables are by default: the products of pairs of wide v_j would saturate the first logits.
        self.weight = nn.Parameter(0.01 * torch.randn(shape.dense, shape.dim)) if shape.dense else None

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        return x_BFD if self.weight is None else torch.cat([x_BFD, dense_BN[:, :, None] * self.weight], dim=1)


class WeightedFields(nn.Module):
    """Every field's embedding, (B, F + N, D), whose shape is `shape`, and first-order weight, (B, F + N); from (B, F, D + 1), (B, N).

    A numeric value's v_j has a weight as its last number too: it adds w_j x_j.
    """

    def __init__(self, shape: FieldShape):
        super().__init__()
        self.numeric = NumericFields(shape)
        self.shape = self.numeric.shape.without_weight()

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> tuple[Tensor, Tensor]:
        return split_weight(self.numeric(x_BFD, dense_BN))
