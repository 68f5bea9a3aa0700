"""What one Ray Train worker does, from the configuration to the summary: every room of the way of a row is listed here."""

import contextlib
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
from sml_dist.spec import InputError, RunError, to_dict
from sml_dist.train.build import make_task
from sml_dist.train.checkpoint import Checkpoints, agree
from sml_dist.train.evaluate import Evaluation
from sml_dist.train.finite import Diverged
from sml_dist.train.ledger import Ledger, new_attempt
from sml_dist.train.loop import Progress, Trainer
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.report import RunFolder
from sml_dist.train.resume import load_weights, restore
from sml_dist.train.rows import training_plan
from sml_dist.train.schedule import Schedule
from sml_dist.train.sharded import average_batch_statistics, shard
from sml_dist.train.state import pieces
from sml_dist.train.storage import Storage
from sml_dist.train.warm import warm_start
from sml_dist.train.watchdog import Watchdog


def run(raw: dict[str, Any]) -> dict[str, Any]:
    """Trains, evaluates, commits. Returns the summary, or {"input_error" or "run_error": line}: what is not to be retried.

    An error of one worker breaks the others' collectives, so Ray restarts the group; error.json ends that at once.
    """
    config = parse(raw)
    folder = RunFolder(config.run.folder)
    if earlier := folder.read_json("error.json"):
        return earlier
    try:
        return train(config)
    except (InputError, RunError) as error:
        found = {"input_error" if isinstance(error, InputError) else "run_error": str(error)}
        with contextlib.suppress(OSError):  # such as a full disk, which the error then tells of
            folder.write_json("error.json", found)
        return found


def train(config: RunConfig) -> dict[str, Any]:
    """The whole of a run on this worker; the summary is the same on every worker."""
    started, context, device = time.monotonic(), ray.train.get_context(), pick_device(config.train.device)
    rank, workers, local_workers = context.get_world_rank(), context.get_world_size(), context.get_local_world_size()
    torch.set_num_threads(config.train.threads or max(1, (os.cpu_count() or 1) // local_workers))
    folder = RunFolder(config.run.folder)
    watchdog = Watchdog(folder.path / "stacks", rank, config.train.step_timeout_s)
    ledger = Ledger(folder.path / "ledger", rank) if config.train.record_rows else None
    store = Checkpoints(Storage(folder.checkpoints), config.train.keep_checkpoints, ledger.flush if ledger else lambda: None)

    # data
    manifest, dataset = read_manifest(config.data.path), fingerprint(config.data.path)
    plan, collate = training_plan(manifest, config), Collator(manifest)
    source = Source.of(config.data.path, manifest, "train")
    reading = (config.train.epochs, config.data.reader_cpus, config.data.prefetch_windows, config.train.record_rows)
    stream = Stream(source, plan, rank, workers, *reading)
    valid = evaluation(config, manifest, stream, "valid", times=config.train.most_evaluations(plan.steps))

    # model
    task = make_task(manifest, config, device)
    model, sharding = shard(task, manifest, config.embedding, device, local_workers, config.train.seed)
    placed = placements(sharding, manifest, config.embedding.dim)
    optimizers = Optimizers(model, config.train, config.embedding)
    steps = config.train.most_steps(plan.steps)

    # training
    def log(**values: Any) -> None:
        if rank == 0:
            folder.log(**values, total_steps=steps, epochs=config.train.epochs)

    def commit(progress: Progress) -> None:
        average_batch_statistics(model)
        about = {"config": to_dict(config), "dataset": dataset, "workers": workers, "plan": [vars(table) for table in placed]}
        store.save(progress.step, pieces(model, optimizers), about | {"progress": progress.as_dict()}, best=progress.best_step)
        if written := store.take_written():
            log(event="checkpoint", **written)

    def begin(progress: Progress) -> Progress:
        """What follows is an attempt of its own."""
        attempt = agree(new_attempt())
        progress.history.append((attempt, progress.step, workers))
        if ledger:
            ledger.begin(attempt)
        return progress

    def go_on() -> Progress | None:
        """From the newest checkpoint, if there is one."""
        with contextlib.suppress(Diverged):
            store.wait()
        progress, inexact = restore(store, model, optimizers, config, dataset)
        if inexact:
            log(event="resharded", step=progress.step, tables=", ".join(inexact))
        return progress and begin(progress)

    progress = go_on()
    if rank == 0:
        folder.begin(dump(config), plan_text(placed), progress.step if progress else 0)
    if progress:
        progress.restarts += 1
        log(event="resumed", step=progress.step, epoch=progress.epoch, workers=workers)
    else:
        progress = begin(Progress())
        if config.run.warm_start:
            log(event="warm start", step=0, text=warm_start(config, model, optimizers, manifest))

    trainer = Trainer(
        config=config.train,
        model=model,
        optimizers=optimizers,
        schedule=Schedule(config.train, steps),
        collate=collate,
        device=device,
        steps_per_epoch=plan.steps,
        evaluate=lambda: valid.run(model, collate, device, watchdog.beat),
        commit=commit,
        restore=go_on,
        settle=store.wait,
        log=log,
        ledger=ledger,
        beat=watchdog.beat,
    )
    progress = trainer.run(stream.batches, progress)

    # the best weights, and what they are worth
    best = store.at(progress.best_step)
    if progress.best_step != progress.step:
        load_weights(best, model, optimizers)
    metrics = {"valid": progress.best_metrics}
    if "test" in manifest.splits and manifest.splits["test"].rows:
        metrics["test"] = evaluation(config, manifest, stream, "test", times=1).run(model, collate, device, watchdog.beat)
    summary = {
        "model": config.model.name,
        "sml": "sml" in vars(config.model) and config.model.sml.enabled,  # LR and FM have no layer to skip
        "workers": workers,
        "device": device.type,
        "precision": "bf16" if task.bf16 else "fp32",
        "epochs": progress.epoch + progress.batch / plan.steps,
        "steps": progress.step,
        "rows_seen": progress.epoch * plan.rows + min(progress.batch * plan.batch_size, plan.rows),
        **trainer.meter.totals(),
        "restarts": progress.restarts,
        "skipped_steps": progress.skipped,
        "rollbacks": progress.rollbacks,
        "seconds": round(time.monotonic() - started, 2),
        "checkpoint": best.path,
        "run": str(folder.path),
        **metrics,
        "best": {split: to_dict(value) for split, value in manifest.best.items()},
    }
    if rank == 0:
        folder.write_json("summary.json", summary)
    dist.barrier()
    watchdog.close()
    return summary


def evaluation(config: RunConfig, manifest: Manifest, stream: Stream, split: str, times: int) -> Evaluation:
    return Evaluation(stream.of(Source.of(config.data.path, manifest, split)), config.train.eval_batch_size, times)


def pick_device(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return ray.train.torch.get_device() if device == "cuda" else torch.device("cpu")
