"""DeepCTR-Torch 0.3.0: its models, its `fit` on arrays in memory, without its penalties. Run by another Python.

python deepctr_train.py FOLDER dnn|dcn_v2 STEPS THREADS
"""

import json
import sys
import time
from pathlib import Path

import pandas as pd
import torch
from deepctr_torch.inputs import DenseFeat, SparseFeat
from deepctr_torch.models import DCN, WDL

DIM, BATCH, HIDDEN, CROSS_LAYERS = 16, 4096, (400, 400, 400), 3


def main(folder: Path, kind: str, steps: int, threads: int) -> float:
    torch.set_num_threads(threads)
    sizes = json.loads((folder / "sizes.json").read_text())
    rows = pd.read_parquet(sorted(folder.glob("*.parquet"))[:2])[: steps * BATCH]
    numeric = [name for name in rows.columns if name not in sizes and name != "label"]
    features = [SparseFeat(name, size, embedding_dim=DIM) for name, size in sizes.items()] + [DenseFeat(name, 1) for name in numeric]
    common = {"dnn_hidden_units": HIDDEN, "l2_reg_linear": 0, "l2_reg_embedding": 0}
    if kind == "dcn_v2":
        model = DCN([], features, cross_num=CROSS_LAYERS, cross_parameterization="matrix", l2_reg_cross=0, **common)
    else:
        model = WDL([], features, **common)
    model.compile("adam", "binary_crossentropy")
    inputs = {name: rows[name].to_numpy() for name in (*sizes, *numeric)}
    steps = len(rows) // BATCH
    started = time.perf_counter()
    model.fit(inputs, rows["label"].to_numpy(), batch_size=BATCH, epochs=1, verbose=0)
    return steps * BATCH / (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps({"samples_per_second": main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))}))
    sys.stdout.flush()
