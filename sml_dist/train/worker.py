"""What one Ray Train worker does, from the configuration to the summary: every room of the way of a row is listed here."""

import functools
import io
import itertools
import os
import time
from typing import Any

import ray.train
import torch
import torch.distributed as dist
from rich.console import Console
from torch import nn

from sml_dist.config.data import DataConfig
from sml_dist.config.run import RunConfig, dump, parse
from sml_dist.data.dataset import Manifest, fingerprint, read_manifest
from sml_dist.data.plan import Plan
from sml_dist.data.stream import Source, Stream
from sml_dist.embeddings.batch import Collator
from sml_dist.embeddings.sharding import placements, render_plan
from sml_dist.embeddings.tables import embedding_tables
from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import build
from sml_dist.spec import InputError, to_dict
from sml_dist.train import checkpoint, evaluate
from sml_dist.train.loop import Progress, Trainer
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.report import RunFolder
from sml_dist.train.schedule import Schedule
from sml_dist.train.sharded import shard
from sml_dist.train.task import CTRTask

# What cannot change between a run and its resumption: the meaning of the tensors, and which rows come next.
FIXED = (
    "model", "data.streams", "data.shuffle", "embedding.dim", "embedding.optimizer", "embedding.sharding",
    "embedding.data_parallel_rows", "train.global_batch_size", "train.seed", "train.optimizer",
)  # fmt: skip


def run(raw: dict[str, Any]) -> dict[str, Any]:
    """Trains, evaluates, commits. Returns the summary, or {"input_error": line}: what the user can mend is not retried."""
    try:
        return train(parse(raw))
    except InputError as error:
        return {"input_error": str(error)}


def train(config: RunConfig) -> dict[str, Any]:
    """The whole of a run on this worker; the summary is the same on every worker."""
    context, started = ray.train.get_context(), time.monotonic()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = pick_device(config.train.device)
    torch.set_num_threads(config.train.threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    torch.manual_seed(config.train.seed)

    manifest = read_manifest(config.data.path)
    dataset = fingerprint(config.data.path)
    collate = Collator(manifest)
    train_plan = training_plan(manifest, config)
    task = make_task(manifest, config, device)
    model, plan = shard(task, manifest, config.embedding, device, context.get_local_world_size(), config.train.seed)
    optimizers = Optimizers(model, config.train, config.embedding)
    folder = RunFolder(config.run.folder)
    store = checkpoint.Checkpoints(folder.checkpoints, config.train.keep_checkpoints)
    placed = placements(plan, manifest, config.embedding.dim)

    def state() -> dict[str, Any]:
        return {"model": model.state_dict(), "optim": optimizers.state()}

    def commit(progress: Progress) -> None:
        notes = {"dataset": dataset, "config": to_dict(config), "progress": progress.as_dict(), "workers": workers}
        notes["plan"] = [vars(p) for p in placed]
        store.save(progress.step, state(), notes, best=progress.best_step)

    def log(**values: Any) -> None:
        if rank == 0:
            folder.log(time=round(time.time(), 3), **values)
            folder.write_json("progress.json", values | {"total_steps": total, "epochs": config.train.epochs, "updated": time.time()})

    total = min(config.train.max_steps or train_plan.steps * config.train.epochs, train_plan.steps * config.train.epochs)
    progress = Progress()
    if latest := store.latest():
        refuse_other_run(latest, config, dataset)
        optimizers.create_state()
        checkpoint.load(latest, state())
        progress = Progress(**latest.manifest["progress"])
        progress.restarts += 1
    if rank == 0:
        folder.write("config.yaml", dump(config))
        folder.write("plan.txt", plan_text(placed))
        folder.forget_after(progress.step)

    valid = Evaluation(manifest, config.data, config.train.eval_batch_size, "valid", rank, workers, evaluations(config, train_plan))
    trainer = Trainer(
        config=config.train,
        model=model,
        optimizers=optimizers,
        schedule=Schedule(config.train, total),
        collate=collate,
        device=device,
        steps_per_epoch=train_plan.steps,
        evaluate=lambda: valid.run(model, collate, device),
        commit=commit,
        log=log,
    )
    stream = Stream(
        Source.of(config.data.path, manifest, "train"), train_plan, rank, workers, config.train.epochs,
        config.data.reader_cpus, config.data.prefetch_windows,
    )  # fmt: skip
    if not progress.finished(config.train):
        progress = trainer.run(stream.batches(progress.cursor), progress)

    best = store.at(progress.best_step)
    if progress.best_step != progress.step:
        checkpoint.load(best, {"model": model.state_dict()})
    metrics = {"valid": progress.best_metrics}
    if split_rows(manifest, "test"):
        test = Evaluation(manifest, config.data, config.train.eval_batch_size, "test", rank, workers, 1)
        metrics["test"] = test.run(model, collate, device)
    meter = trainer.meter
    summary = {
        "model": config.model.name,
        "sml": config.model.sml.enabled,
        "workers": workers,
        "epochs": progress.epoch + progress.batch / train_plan.steps,
        "steps": progress.step,
        "rows_seen": progress.epoch * train_plan.rows + min(progress.batch * train_plan.batch_size, train_plan.rows),
        "samples_per_second": round(meter.total_rows / max(meter.total_seconds, 1e-9), 1),
        "data_wait_fraction": round(meter.total_wait / max(meter.total_seconds, 1e-9), 4),
        "first_batch_seconds": round(trainer.first_batch_seconds, 2),
        "restarts": progress.restarts,
        "seconds": round(time.monotonic() - started, 2),
        "device": str(device),
        "precision": "bf16" if task.bf16 else "fp32",
        "checkpoint": str(best.path),
        "run": str(folder.path),
        **metrics,
        "best": {split: to_dict(value) for split, value in manifest.best.items()},
    }
    if rank == 0:
        folder.write_json("summary.json", summary)
    dist.barrier()
    return summary


def refuse_other_run(found: checkpoint.Checkpoint, config: RunConfig, dataset: str) -> None:
    """A checkpoint of this name that another configuration or dataset made is not gone on from."""
    was, now = found.manifest["config"], to_dict(config)
    for key in FIXED:
        old, new = (functools.reduce(lambda section, part: section[part], key.split("."), each) for each in (was, now))
        if old != new:
            raise InputError(f"run {config.run.name} was started with {key}={old}, now it is {new}; choose another run.name")
    if found.manifest["dataset"] != dataset:
        raise InputError(f"run {config.run.name} was started on another dataset than {config.data.path} now holds; choose another run.name")


class Evaluation:
    """One split, evaluated again and again through one pipeline that stays open between evaluations."""

    def __init__(self, manifest: Manifest, data: DataConfig, batch_size: int, split: str, rank: int, workers: int, times: int):
        source = Source.of(data.path, manifest, split)
        size = max(1, min(batch_size, sum(source.rows)) // data.streams) * data.streams
        self.plan = Plan(source.rows, data.streams, size, manifest.row_group_rows, seed=0, shuffle=False)
        stream = Stream(source, self.plan, rank, workers, times, data.reader_cpus, prefetch=1)
        self.batches = stream.batches()

    def run(self, model: nn.Module, collate: Collator, device: torch.device) -> dict[str, Any]:
        batches = itertools.islice(self.batches, self.plan.steps)
        return evaluate.evaluate(model, batches, collate, device, self.plan.rows)


def make_task(manifest: Manifest, config: RunConfig, device: torch.device) -> CTRTask:
    """Tables (without memory until they are sharded) and model for a dataset."""
    fields = [field.name for field in (*manifest.single, *manifest.multi)]
    shape = FieldShape(fields=len(fields), dim=config.embedding.dim, dense=len(manifest.dense))
    model = build(config.model, shape).to(device)
    return CTRTask(embedding_tables(manifest, config.embedding), model, fields, config.embedding.dim, bf16=use_bf16(config, device))


def training_plan(manifest: Manifest, config: RunConfig) -> Plan:
    source = Source.of(config.data.path, manifest, "train")
    return Plan(
        source.rows, config.data.streams, config.train.global_batch_size, manifest.row_group_rows, config.train.seed, config.data.shuffle
    )


def split_rows(manifest: Manifest, split: str) -> int:
    return manifest.splits[split].rows if split in manifest.splits else 0


def evaluations(config: RunConfig, plan: Plan) -> int:
    """The most evaluations that a run can ask for."""
    every = config.train.eval_every_steps
    return config.train.epochs * (-(-plan.steps // every) if every else 1) + 1


def pick_device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return ray.train.torch.get_device() if device == "cuda" else torch.device("cpu")


def use_bf16(config: RunConfig, device: torch.device) -> bool:
    """bf16 where asked, or on `auto` where the chip multiplies it natively."""
    if config.train.precision != "auto":
        return config.train.precision == "bf16"
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def plan_text(placed: list[Any]) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(render_plan(placed))
    return console.file.getvalue()
