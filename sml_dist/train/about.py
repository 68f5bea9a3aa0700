"""What a run says of itself once: dataset, fields, plan, software, machine. about.json of its folder."""

import os
import platform
from typing import Any

import torch
from joblib import cpu_count

from sml_dist.data.coverage import coverage
from sml_dist.data.dataset import Manifest
from sml_dist.embeddings.sharding import Placed
from sml_dist.train.code import versions


def about(path: str, manifest: Manifest, fingerprint: str, placed: list[Placed], device: torch.device) -> dict[str, Any]:
    """`fields` is of a sample of the validation rows; see coverage."""
    dataset = {
        "path": path, "name": manifest.name, "sha256": fingerprint, "numeric": len(manifest.dense), "split_rule": manifest.split_rule,
        "rows": {name: split.rows for name, split in manifest.splits.items()},
        "positives": {name: split.positives for name, split in manifest.splits.items()},
        "rejected": manifest.rows_rejected,
    }  # fmt: skip
    return {
        "dataset": dataset,
        "fields": coverage(path, manifest, "valid"),
        "plan": [vars(table) for table in placed],
        "versions": {"python": platform.python_version()} | versions(),
        "machine": machine(device),
    }


def machine(device: torch.device) -> dict[str, Any]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = {"host": platform.node(), "cores": cpu_count(), "memory_gb": round(memory / 1e9, 1)}
    return found | ({"gpu": torch.cuda.get_device_name(device)} if device.type == "cuda" else {})
