"""What a head has to know of the layers that it reads."""


class Width(int):
    """How many units a layer hands out, an int like any other; `dropout` is the rate at which training has zeroed them."""

    dropout: float

    def __new__(cls, units: int, dropout: float = 0.0) -> "Width":
        width = super().__new__(cls, units)
        width.dropout = dropout
        return width


def kept(width: int) -> float:
    """The share of a layer's units that dropout leaves; 1 for a plain int."""
    return 1.0 - getattr(width, "dropout", 0.0)
