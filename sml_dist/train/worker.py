"""What one Ray Train worker does, from the configuration to the summary: every room of the way of a row is listed here."""

import os
import time
from typing import Any

import ray.train
import torch
import torch.distributed as dist

from sml_dist.config.run import RunConfig, dump, parse
from sml_dist.data.dataset import Manifest, fingerprint, read_manifest
from sml_dist.data.stream import Source, Stream
from sml_dist.embeddings.batch import Collator
from sml_dist.embeddings.sharding import placements, plan_text
from sml_dist.spec import InputError, to_dict
from sml_dist.train import checkpoint
from sml_dist.train.build import make_task, training_plan
from sml_dist.train.evaluate import Evaluation
from sml_dist.train.loop import Progress, Trainer
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.report import RunFolder
from sml_dist.train.resume import resume, state
from sml_dist.train.schedule import Schedule
from sml_dist.train.sharded import shard


def run(raw: dict[str, Any]) -> dict[str, Any]:
    """Trains, evaluates, commits. Returns the summary, or {"input_error": line}: what the user can mend is not retried.

    An error of one worker breaks the others' collectives, so Ray restarts the group; error.json ends that at once.
    """
    config = parse(raw)
    folder = RunFolder(config.run.folder)
    if earlier := folder.read_json("error.json"):
        return earlier
    try:
        return train(config)
    except InputError as error:
        folder.write_json("error.json", {"input_error": str(error)})
        return {"input_error": str(error)}


def train(config: RunConfig) -> dict[str, Any]:
    """The whole of a run on this worker; the summary is the same on every worker."""
    started, context, device = time.monotonic(), ray.train.get_context(), pick_device(config.train.device)
    rank, workers, local_workers = context.get_world_rank(), context.get_world_size(), context.get_local_world_size()
    torch.set_num_threads(config.train.threads or max(1, (os.cpu_count() or 1) // local_workers))
    folder = RunFolder(config.run.folder)
    store = checkpoint.Checkpoints(folder.checkpoints, config.train.keep_checkpoints)

    # data
    manifest, dataset = read_manifest(config.data.path), fingerprint(config.data.path)
    plan, collate = training_plan(manifest, config), Collator(manifest)
    source = Source.of(config.data.path, manifest, "train")
    stream = Stream(source, plan, rank, workers, config.train.epochs, config.data.reader_cpus, config.data.prefetch_windows)
    valid = evaluation(config, manifest, stream, "valid", times=config.train.most_evaluations(plan.steps))

    # model
    task = make_task(manifest, config, device)
    model, sharding = shard(task, manifest, config.embedding, device, local_workers, config.train.seed)
    placed = placements(sharding, manifest, config.embedding.dim)
    optimizers = Optimizers(model, config.train, config.embedding)
    steps = config.train.most_steps(plan.steps)

    # training
    progress = resume(store, model, optimizers, config, dataset)
    if rank == 0:
        folder.begin(dump(config), plan_text(placed), progress.step)

    def commit(progress: Progress) -> None:
        about = {"config": to_dict(config), "dataset": dataset, "workers": workers, "plan": [vars(table) for table in placed]}
        store.save(progress.step, state(model, optimizers), about | {"progress": progress.as_dict()}, best=progress.best_step)

    def log(**values: Any) -> None:
        if rank == 0:
            folder.log(values, total_steps=steps, epochs=config.train.epochs)

    trainer = Trainer(
        config=config.train,
        model=model,
        optimizers=optimizers,
        schedule=Schedule(config.train, steps),
        collate=collate,
        device=device,
        steps_per_epoch=plan.steps,
        evaluate=lambda: valid.run(model, collate, device),
        commit=commit,
        log=log,
    )
    if not progress.finished(config.train):
        progress = trainer.run(stream.batches(progress.cursor), progress)

    # the best weights, and what they are worth
    best = store.at(progress.best_step)
    if progress.best_step != progress.step:
        checkpoint.load(best, {"model": model.state_dict()})
    metrics = {"valid": progress.best_metrics}
    if "test" in manifest.splits and manifest.splits["test"].rows:
        metrics["test"] = evaluation(config, manifest, stream, "test", times=1).run(model, collate, device)
    summary = {
        "model": config.model.name,
        "sml": config.model.sml.enabled,
        "workers": workers,
        "device": device.type,
        "precision": "bf16" if task.bf16 else "fp32",
        "epochs": progress.epoch + progress.batch / plan.steps,
        "steps": progress.step,
        "rows_seen": progress.epoch * plan.rows + min(progress.batch * plan.batch_size, plan.rows),
        **trainer.meter.totals(),
        "restarts": progress.restarts,
        "seconds": round(time.monotonic() - started, 2),
        "checkpoint": str(best.path),
        "run": str(folder.path),
        **metrics,
        "best": {split: to_dict(value) for split, value in manifest.best.items()},
    }
    if rank == 0:
        folder.write_json("summary.json", summary)
    dist.barrier()
    return summary


def evaluation(config: RunConfig, manifest: Manifest, stream: Stream, split: str, times: int) -> Evaluation:
    return Evaluation(stream.of(Source.of(config.data.path, manifest, split)), config.train.eval_batch_size, times)


def pick_device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return ray.train.torch.get_device() if device == "cuda" else torch.device("cpu")
