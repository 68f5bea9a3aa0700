"""FuxiCTR 2.3.10: its layers chained as its model zoo chains them, its Ray Data loader, its training step. Run by another Python.

python fuxictr_train.py FOLDER dnn|dcn_v2 STEPS THREADS. Its zoo embeds numeric features too, as a vector each.
"""

import json
import sys
import time
from collections import OrderedDict
from pathlib import Path

import pyarrow.parquet as pq
import ray
import torch
from fuxictr.features import FeatureMap
from fuxictr.pytorch.dataloaders import RankDataLoader
from fuxictr.pytorch.layers import CrossNetV2, FeatureEmbedding, MLP_Block
from fuxictr.pytorch.models import BaseModel
from torch import nn

DIM, BATCH, HIDDEN, CROSS_LAYERS, WARM = 16, 4096, [400, 400, 400], 3, 5


class Model(BaseModel):
    def __init__(self, features: FeatureMap, kind: str, folder: Path):
        super().__init__(features, kind, monitor="AUC", metrics=["AUC"], verbose=0, model_root=str(folder))
        width = features.num_fields * DIM
        self.embedding = FeatureEmbedding(features, DIM)
        self.cross = CrossNetV2(width, CROSS_LAYERS) if kind == "dcn_v2" else None
        self.mlp = MLP_Block(width, HIDDEN, output_dim=None if self.cross else 1)
        self.fc = nn.Linear(width + HIDDEN[-1], 1) if self.cross else None
        self.compile("adam", "binary_crossentropy", 1e-3)
        self.reset_parameters()

    def forward(self, inputs):
        x = self.embedding(self.get_inputs(inputs)).flatten(start_dim=1)
        y = self.fc(torch.cat([self.cross(x), self.mlp(x)], dim=-1)) if self.cross else self.mlp(x)
        return {"y_pred": self.output_activation(y)}


def feature_map(folder: Path) -> FeatureMap:
    sizes = json.loads((folder / "sizes.json").read_text())
    columns = pq.read_schema(next(iter(sorted(folder.glob("*.parquet"))))).names
    names = [name for name in columns if name not in sizes and name != "label"]
    features = FeatureMap("bench", str(folder))
    features.features = OrderedDict({name: {"type": "categorical", "source": "", "vocab_size": rows} for name, rows in sizes.items()})
    features.features.update({name: {"type": "numeric", "source": ""} for name in names})
    features.labels, features.num_fields, features.default_emb_dim = ["label"], len(features.features), DIM
    features.set_column_index()
    return features


def main(folder: Path, kind: str, steps: int, threads: int) -> float:
    torch.set_num_threads(threads)
    ray.init("local", num_cpus=max(threads, 2), include_dashboard=False, log_to_driver=False, logging_level="error")
    features = feature_map(folder)
    model = Model(features, kind, folder)
    loader, _ = RankDataLoader(features, "train", str(folder), batch_size=BATCH, shuffle=True, data_format="parquet")
    model._max_gradient_norm = 10.0
    model.train()
    for number, batch in enumerate(loader):
        if number == WARM:
            started = time.perf_counter()
        model.train_step(batch).item()
        if number == WARM + steps - 1:
            break
    return steps * BATCH / (time.perf_counter() - started)


if __name__ == "__main__":
    print(json.dumps({"samples_per_second": main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))}))
    sys.stdout.flush()
