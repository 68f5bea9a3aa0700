"""What one worker does, from the configuration to the summary: every stage of a row's way is listed here."""

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import ray.train
import torch
import torch.distributed as dist

from sml_dist.config.run import RunConfig, dump, parse
from sml_dist.data.dataset import Manifest, read_manifest
from sml_dist.data.plan import Cursor, Plan
from sml_dist.data.stream import Source, Stream, windows_ahead
from sml_dist.embeddings.batch import Collator
from sml_dist.embeddings.sharding import plan_text
from sml_dist.spec import InputError, RunError, to_dict
from sml_dist.train.about import about
from sml_dist.train.build import training_task
from sml_dist.train.checkpoints import agree
from sml_dist.train.clock import Clock, TracedClock, tracing
from sml_dist.train.curves import curves
from sml_dist.train.evaluate import Evaluation, Scores
from sml_dist.train.finite import Diverged
from sml_dist.train.gauges import Gauges
from sml_dist.train.keeper import Keeper
from sml_dist.train.logs import log_event, worker_logs
from sml_dist.train.loop import Progress, Stopped, Trainer
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.place import Place
from sml_dist.train.rows import training_plan
from sml_dist.train.run_folder import RunFolder
from sml_dist.train.schedule import Schedule
from sml_dist.train.sharded import shard
from sml_dist.train.watchdog import DONE, Watchdog

# Called with each evaluation once its checkpoint is complete: {"rows" trained on, "step", "epoch", "last", metrics ...}.
# False stops the run.
Report = Callable[[dict[str, Any]], bool]


def run(raw: dict[str, Any], report: Report | None = None) -> dict[str, Any]:
    """Trains, evaluates, saves. Returns the summary, or {"input_error" or "run_error": line}: what is not to be retried,
    or {"stopped": True} where `report` said so.

    With several workers, what is not to be retried is written to error.json and raised: only then does Ray end the others, which wait for
    this worker in a collective. The group that it starts next finds error.json and ends at once.
    """
    config = parse(raw)
    folder = RunFolder(config.run.folder)
    if earlier := folder.read_json("error.json"):
        return earlier
    try:
        place = ray_place(config.train.device)
        with worker_logs(folder.path, config.run.name, place):
            return train_watched(config, place, report=report)
    except Stopped:
        return {"stopped": True}
    except (InputError, RunError) as error:
        found = {"input_error" if isinstance(error, InputError) else "run_error": str(error)}
        with contextlib.suppress(OSError):  # such as a full disk, which the error then tells of
            folder.write_json("error.json", found)
        if ray.train.get_context().get_world_size() > 1:
            raise
        return found


def ray_place(device: str) -> Place:
    """This Ray Train worker's; a GPU is made this thread's current device. `auto` takes one if the workers' group has NCCL
    (process_group.py).

    Raises InputError where torch can use no GPU and is told to.
    """
    context, where = ray.train.get_context(), torch.device("cpu")
    if device == "cuda" and not torch.cuda.is_available():
        way_out = "run `make KIND=gpu setup` there if that is a build for CPUs, or set train.device=cpu"
        raise InputError(f"train.device=cuda: torch {torch.__version__} on {socket.gethostname()} can use no GPU; {way_out}")
    if device == "cuda" or (device == "auto" and "nccl" in dist.get_backend_config()):
        from ray.train.torch import get_device

        where = get_device()
        torch.cuda.set_device(where)
    return Place(context.get_world_rank(), context.get_world_size(), context.get_local_world_size(), where)


def train_watched(config: RunConfig, place: Place, stream_type: type[Stream] = Stream, report: Report | None = None) -> dict[str, Any]:
    """`train` beside a watchdog, which ends with it."""
    stacks = RunFolder(config.run.folder).path / "stacks"
    with contextlib.closing(Watchdog(stacks, place.rank, config.train.step_timeout_s)) as watchdog:
        return train(config, place, stream_type, report, watchdog.beat)


def train(config: RunConfig, place: Place, stream_type: type[Stream], report: Report | None, beat: Callable[..., None]) -> dict[str, Any]:
    """The whole of a run on this worker; the summary is the same on every worker. Raises Stopped where `report` said so."""
    started, folder = time.monotonic(), RunFolder(config.run.folder)
    clock = TracedClock() if config.train.profile_steps else Clock()
    place.set_threads(config.train.threads)

    # data
    manifest = read_manifest(config.data.path, config.data.label)
    plan, collate = training_plan(manifest, config), Collator(manifest)
    source = Source.of(config.data.path, manifest, "train")
    ahead = windows_ahead(config.data.prefetch_windows, source, plan, gpu=place.device.type == "cuda")
    stream = stream_type(
        source,
        plan,
        place.rank,
        place.workers,
        epochs=config.train.epochs,
        reader_cpus=config.data.reader_cpus,
        prefetch=ahead,
        numbered=config.train.record_rows,
        readers=config.data.readers,
    )
    valid = evaluation(config, manifest, stream, "valid", folder, place.device, times=config.train.most_evaluations(plan.steps))

    # model
    task = training_task(manifest, config, place.device)
    model, placed = shard(task, manifest, config, place.device, place.local_workers)
    optimizers = Optimizers(model, config.train, config.embedding)
    steps = config.train.most_steps(plan.steps)

    # training
    gauges = Gauges(config.run.name, manifest.rows_rejected) if place.rank == 0 else None

    def log(**values: Any) -> None:
        if gauges:
            rows_seen = plan.rows_before(Cursor(*divmod(values["step"], plan.steps)))
            values |= {"rows_seen": rows_seen, "total_steps": steps, "epochs": config.train.epochs}
            for listener in (folder.log, gauges.log, log_event):
                listener(**values)

    def hear(progress: Progress, metrics: dict[str, Any]) -> None:
        if report is None:
            return
        keeper.settle()
        reached = {"rows": plan.rows_before(progress.cursor), "step": progress.step, "epoch": progress.epoch}
        reached["last"] = progress.finished(config.train)
        if not agree(report(metrics | reached) if place.rank == 0 else None):
            raise Stopped

    keeper = Keeper(config, manifest, place, model, optimizers, [vars(table) for table in placed], log, beat)
    progress = keeper.start()
    if place.rank == 0:  # not before: a run that cannot go on under this configuration keeps its own
        folder.begin(dump(config), plan_text(placed))
        folder.write_json("about.json", about(config.data.path, manifest, keeper.dataset, placed, place.device))
    trainer = Trainer(
        config=config.train,
        model=model,
        optimizers=optimizers,
        schedule=Schedule(config.train, steps),
        collate=collate,
        device=place.device,
        steps_per_epoch=plan.steps,
        evaluate=lambda: valid.run(model, collate, place.device, beat),
        log=log,
        keeper=keeper,
        beat=beat,
        clock=clock,
        report=hear,
    )
    with tracing(folder.path / "profile", config.train.profile_steps if place.rank == 0 else 0) as trainer.traced:
        progress = trainer.run(stream.batches, progress)

    # the best weights, and what they are worth
    clock.enter("checkpoint")
    checkpoint = keeper.best(progress)
    clock.enter("evaluation")
    metrics = {"valid": progress.best_metrics}
    if "test" in manifest.splits and manifest.splits["test"].rows:
        test = evaluation(config, manifest, stream, "test", folder, place.device, times=1)
        try:
            metrics["test"] = test.run(model, collate, place.device, beat)
        except Diverged as fault:
            raise InputError(f"test rows: {fault}; mend the data") from None
    seconds = round(time.monotonic() - started, 2)
    found = summary(config, place, task.products, plan, progress, manifest) | trainer.meter.totals() | {"seconds": seconds}
    found |= {"seconds_by_phase": clock.seconds(), "checkpoint": checkpoint, "run": str(folder.path), **metrics}
    if place.rank == 0:
        folder.write_json("summary.json", found)
    dist.barrier()
    beat(DONE)
    return found


def evaluation(
    config: RunConfig, manifest: Manifest, stream: Stream, split: str, folder: RunFolder, device: torch.device, times: int
) -> Evaluation:
    """Its curves are kept in the run's folder, unless the disk is full: failing is left to the checkpoints."""

    def keep(scores: Scores) -> None:
        with contextlib.suppress(OSError):
            folder.write_json(f"curves_{split}.json", curves(scores))

    return Evaluation(stream.of(Source.of(config.data.path, manifest, split)), config.train.evaluated_together(device.type), times, keep)


def summary(config: RunConfig, place: Place, products: str, plan: Plan, progress: Progress, manifest: Manifest) -> dict[str, Any]:
    """What a run did, without its metrics and times."""
    return {
        "model": config.model.name,
        "sml": "sml" in vars(config.model) and config.model.sml.enabled,  # LR and FM have no layer to skip
        "workers": place.workers,
        "device": place.device.type,
        "precision": products,
        "epochs": progress.epoch + progress.batch / plan.steps,
        "steps": progress.step,
        "rows_seen": plan.rows_before(progress.cursor),
        "restarts": progress.restarts,
        "skipped_steps": progress.skipped,
        "rollbacks": progress.rollbacks,
        "best": {split: to_dict(value) for split, value in manifest.best.items()},
        "group_field": manifest.group_field,
    }
