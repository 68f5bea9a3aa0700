"""`sml-dist sweep CONFIG`: many runs of one configuration with searched keys, packed onto the cluster by Ray Tune.

The books (books.py, which says what a sweep's folder holds) are this project's, not Tune's: written at each event, so
that after a kill no finished trial is run again, one that was running goes on from its own checkpoint, and one that
failed begins anew. Tune starts anew each time, told what the books know.
"""

import contextlib
import shutil
import time
from pathlib import Path
from typing import Any

import ray
from omegaconf import OmegaConf
from ray import tune

from sml_dist.config.run import RunConfig, dump
from sml_dist.data.dataset import fingerprint
from sml_dist.held import FILE as LOCK
from sml_dist.held import held
from sml_dist.session import check_cpus, environment
from sml_dist.spec import InputError, to_dict
from sml_dist.train.launch import check_place, worker_resources
from sml_dist.trials import BASE, SWEEP
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.books import Books
from sml_dist.tune.clerk import Budget, Clerk, Show
from sml_dist.tune.page import write_results
from sml_dist.tune.schedule import make_scheduler
from sml_dist.tune.search import Search
from sml_dist.tune.trial import Trial, in_actor
from sml_dist.whole_files import WholeFiles

# Of Tune: logs for each trial that nobody reads, printing, a handler of the interrupt that should end the command, and a
# fault where a trial that failed has no metric.
WITHOUT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
}
FREE = ("trials", "concurrent", "minutes", "rows", "retries", "keep", "cpus")  # what may be another when a sweep goes on
SCRATCH = ("tune", "donors")
DYING_SECONDS = 5.0  # that the last trial's process is waited for: Tune kills it where it takes more than ten to end, without waiting


def run(
    path: str,
    overrides: list[str] | None = None,
    show: Show = lambda event, record: None,
    followed: contextlib.AbstractContextManager[None] | None = None,
) -> dict[str, Any]:
    """Runs what is not done yet; then writes best.yaml, README.md and pairs.csv. Ray must be running. Raises InputError.

    `followed` is entered once the folder is this command's, and left when the sweep has ended.
    """
    blueprint = Blueprint.read(path, overrides)
    rows = blueprint.check()
    with contextlib.ExitStack() as stack:
        begin(blueprint, stack)
        stack.enter_context(followed or contextlib.nullcontext())
        return carry_out(blueprint, rows, show)


def carry_out(blueprint: Blueprint, rows: int, show: Show) -> dict[str, Any]:
    books = Books(blueprint.folder, blueprint.sweep.metric)
    if in_actor(blueprint.base):
        check_cpus(blueprint.sweep.cpus)
        check_place(blueprint.base)
    books.reopen()  # the cause may have been mended
    for record in books.records.values():
        show(record.status if record.ended_for_good else "waiting", record)
    search = Search(blueprint, books)
    clerk = Clerk(blueprint, books, search, show)
    for record in [each for each in books.records.values() if not each.ended_for_good]:
        clerk.recover(record)
    try:
        run_trials(blueprint, search, clerk, rows)
        clerk.close()
    finally:
        books.close()
        remove_scratch(blueprint.folder)
    for record in books.records.values():
        tidy(blueprint.folder / record.run)
    return write_results(blueprint, books)


def begin(blueprint: Blueprint, stack: contextlib.ExitStack) -> None:
    """Takes the folder until the stack ends, and writes what the sweep is. Raises InputError where it holds another."""
    folder = WholeFiles(blueprint.folder)
    now = {SWEEP: OmegaConf.to_yaml(OmegaConf.create(to_dict(blueprint.sweep))), BASE: dump(blueprint.base)}
    for name, text in now.items():
        if earlier := folder.read(name):
            refuse_another(blueprint, name, *(OmegaConf.to_container(OmegaConf.create(each)) for each in (earlier, text)))
    data, earlier = {path: fingerprint(path) for path in blueprint.datasets}, folder.read_json("data.json") or {}
    for path in (path for path in data if earlier.get(path, data[path]) != data[path]):
        what = f"a sweep over another dataset than {path} now holds"
        raise InputError(f"{blueprint.folder} holds {what}; choose another name, or remove the folder")
    try:
        stack.enter_context(held(folder.path))
        for name, text in now.items():
            folder.write(name, text)
        folder.write_json("data.json", data)
    except OSError as error:
        raise InputError(f"storage: {folder.path} cannot be written ({error.strerror}); name another with --set storage=FOLDER") from None
    remove_scratch(blueprint.folder)


def refuse_another(blueprint: Blueprint, name: str, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    for key in {**earlier, **now}:
        if earlier.get(key) != now.get(key) and not (name == SWEEP and key in FREE):
            what = key if name == SWEEP else f"the base's {key}"
            raise InputError(f"{blueprint.folder} holds a sweep with another {what}; choose another name, or remove the folder")


def remove_scratch(folder: Path) -> None:
    for name in SCRATCH:
        shutil.rmtree(folder / name, ignore_errors=True)


def tidy(run: Path) -> None:
    """Takes what Ray Train and a process that was killed have left out of a trial's folder, unless someone works there."""
    if (run / LOCK).exists() or (run / "ray").exists():
        with contextlib.suppress(InputError, OSError), held(run, DYING_SECONDS):
            shutil.rmtree(run / "ray", ignore_errors=True)


def run_trials(blueprint: Blueprint, search: Search, clerk: Clerk, rows: int) -> None:
    sweep = blueprint.sweep
    trial, at_once = placed(blueprint)
    settings: dict[str, Any] = {"search_alg": search, "num_samples": -1, "max_concurrent_trials": at_once}
    space: dict[str, Any] = {}
    variables = WITHOUT
    if sweep.scheduler.name == "pbt":  # takes no searcher: all its trials are known from the start
        given = search.all_given()
        if not given:
            return
        if at_once and at_once < len(given):  # which Tune would start all at once
            what = f"{len(given)} trials go on side by side, and there is room for {at_once}"
            workers = {
                "train.num_workers": blueprint.base.train.worker_range[1] > 1,
                "train.worker_resources": blueprint.base.train.worker_resources,
            }
            way_out = " or ".join(["trials", *(key for key, larger in workers.items() if larger)])
            raise InputError(f"scheduler pbt: {what}; lower {way_out}")
        settings, space = {}, {"given": tune.grid_search(given)}
    else:
        search.slots = at_once or max(1, room(cpus_of(blueprint)))
        variables = WITHOUT | {"TUNE_MAX_PENDING_TRIALS_PG": str(search.slots)}  # Tune's 1 starts their processes one after another
    with environment(variables, override=True):
        tune.Tuner(
            tune.with_parameters(trial, blueprint=blueprint),
            param_space=space,
            tune_config=tune.TuneConfig(
                metric=sweep.metric,
                mode=search.mode,
                scheduler=make_scheduler(blueprint, clerk.books, rows),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
                **settings,
            ),
            run_config=tune.RunConfig(
                name=f"{time.time_ns()}",
                storage_path=str(blueprint.folder / "tune"),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # only where a scheduler asks for one
                failure_config=tune.FailureConfig(max_failures=sweep.retries),
                callbacks=[clerk],
                stop=Budget(sweep, clerk.books),
                verbose=0,
            ),
        ).fit()


def placed(blueprint: Blueprint) -> tuple[Any, int | None]:
    """The trial with what it needs of the cluster, and how many may run at once where that does not say so."""
    sweep, base = blueprint.sweep, blueprint.base
    cluster, cpus = ray.cluster_resources(), cpus_of(blueprint)
    if in_actor(base) and sweep.scheduler.name == "pbt":  # a paused trial counts as running: room alone bounds them
        largest = max(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"])
        share = min(cluster["CPU"] / sweep.concurrent, largest) if sweep.concurrent else 0
        return tune.with_resources(Trial, {"CPU": max(cpus, share)}), None
    if in_actor(base):
        return tune.with_resources(Trial, {"CPU": cpus}), sweep.concurrent
    # Ray Train places the workers; the trial itself needs nothing, which Tune does not take
    return tune.with_resources(Trial, {"CPU": 0.001}), min(sweep.concurrent or 1_000, groups_at_once(base, cluster))


def cpus_of(blueprint: Blueprint) -> float:
    """Of Ray's, for the actor of a trial that trains in it."""
    return max(blueprint.sweep.cpus, blueprint.base.train.worker_resources.get("CPU", 0))


def room(cpus: float) -> int:
    """Trials of so many CPUs for which the nodes that are there have room."""
    return sum(int(node["Resources"].get("CPU", 0) / cpus) for node in ray.nodes() if node["Alive"])


def groups_at_once(base: RunConfig, cluster: dict[str, float]) -> int:
    """Trials on several workers, or on GPUs, for which the cluster has room, their readers included."""
    workers = base.train.worker_range[1]
    needed = {name: workers * number for name, number in worker_resources(base).items()}
    needed["CPU"] = needed.get("CPU", 0) + 4 * workers * base.data.reader_cpus
    return max(1, int(min(cluster.get(name, 0) / number for name, number in needed.items() if number)))
