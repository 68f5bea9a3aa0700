"""What a run may change when it goes on, and what it makes of that."""

import io

import pytest
from rich.console import Console

from sml_dist.config.run import RunConfig, parse
from sml_dist.spec import InputError, to_dict
from sml_dist.train.checkpoint import Checkpoint, step_name
from sml_dist.train.loop import Progress
from sml_dist.train.resume import changed, progress_of, refuse_another
from sml_dist.train.storage import Storage
from sml_dist.train.terminal import TrainProgress


def config(**sections) -> RunConfig:
    base = {"run": {"name": "r"}, "data": {"path": "d"}, "model": {"name": "dnn"}, "embedding": {}, "train": {}}
    return parse({name: base.get(name, {}) | sections.get(name, {}) for name in base | sections})


def kept(was: RunConfig, **progress) -> Checkpoint:
    """A checkpoint that a run under a configuration made."""
    about = {"config": to_dict(was), "dataset": "hash", "step": progress.get("step", 0), "progress": progress}
    return Checkpoint(Storage("/x/r/checkpoints"), step_name(about["step"]), about)


@pytest.mark.parametrize(("section", "key", "before", "after"), [("embedding", "pooling", "mean", "sum"), ("embedding", "dim", 16, 8)])
def test_what_the_tensors_mean_does_not_change_between_a_run_and_its_resumption(section, key, before, after):
    was = kept(config(**{section: {key: before}}))
    refuse_another(was, config(**{section: {key: before}}), "hash")
    with pytest.raises(InputError, match=f"run r was started with {section}.{key}={before}, now it is {after}; choose another run.name"):
        refuse_another(was, config(**{section: {key: after}}), "hash")


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"config": {"train": {"later": 1}}}, "train.later is not a key"),
        ({"config": {"train": {"epochs": "many"}}}, "train.epochs: .*"),
        ({"config": {"data": {}}}, "data.path is missing"),
        ({"config": {"train": None}}, "train: .*"),
        ({"progress": {"later": 1}}, "progress is not of this version .*'later'.*"),
    ],
)
def test_a_manifest_that_this_version_cannot_read_is_refused_in_one_line_that_names_file_key_and_way_out(changed, line):
    was = kept(config(), step=20)
    was.manifest["config"] |= changed.get("config", {})
    was.manifest["progress"] |= changed.get("progress", {})
    file = "/x/r/checkpoints/step-000000020/MANIFEST.json"
    with pytest.raises(InputError, match=f"^{file}: {line}; go on with the version that wrote it, or name another run$"):
        refuse_another(was, config(), "hash")
        progress_of(was, config())


def test_a_run_goes_on_from_what_it_has_kept_of_its_own_configuration_and_progress():
    now = config(train={"max_steps": 20})
    was = kept(now, **Progress(step=20, evaluated=20, best=0.7, best_step=13).as_dict())
    refuse_another(was, now, "hash")
    assert progress_of(was, now) == Progress(step=20, evaluated=20, best=0.7, best_step=13)


def test_the_settings_that_changed_are_named_with_both_values_but_not_where_the_run_and_its_dataset_lie():
    was = config(train={"lr": 0.001, "num_workers": 2}, run={"storage": "/a"}, data={"path": "/a/d"})
    now = config(train={"lr": 0.002, "num_workers": [1, 2]}, run={"storage": "/b"}, tracking={"tensorboard": True})
    assert changed(kept(was), was) == ""
    assert changed(kept(was), now) == "train.lr 0.001 -> 0.002, train.num_workers 2 -> [1, 2]"


def test_a_run_that_goes_on_tells_what_changed():
    shown = TrainProgress(Console(file=io.StringIO(), width=200))
    shown.update({"event": "resumed", "step": 313, "workers": 2, "changed": "train.lr 0.001 -> 0.002"})
    told = shown.console.file.getvalue()
    assert (
        told == "going on from the checkpoint of step 313, on 2 workers\nsettings changed since that checkpoint: train.lr 0.001 -> 0.002\n"
    )


SEEN = {"rows": 9, "auc": 0.7, "logloss": 0.5, "ne": 0.9, "gauc": float("nan"), "labels": {"a": {"auc": 0.7}, "b": {"auc": 0.6, "ne": 0.8}}}


@pytest.mark.parametrize(
    ("before", "after", "best"), [("auc", "logloss", -0.5), ("ne", "auc", 0.7), ("auc", "b.auc", 0.6), ("b.auc", "b.ne", -0.8)]
)
def test_the_best_weights_are_worth_what_the_metric_says_that_is_monitored_now(before, after, best):
    was, now = (config(train={"monitor": monitor, "stop_after": 2}) for monitor in (before, after))
    stopped = kept(was, step=39, evaluated=39, best=0.123, best_step=13, best_metrics=SEEN, since_best=2)
    same, other = progress_of(stopped, was), progress_of(stopped, now)
    assert (same.best, same.since_best, same.done(was.train)) == (0.123, 2, True)
    assert (other.best, other.best_step, other.since_best, other.done(now.train)) == (best, 13, 0, False)
    assert progress_of(kept(was, step=3, best_step=None), now).best is None


def test_a_metric_that_the_best_evaluation_leaves_undefined_is_not_monitored_from_there():
    stopped = kept(config(), step=39, best=0.7, best_step=13, best_metrics=SEEN)
    with pytest.raises(InputError, match=r"^train.monitor gauc is undefined: no group of .* has both labels; set train.monitor=logloss$"):
        progress_of(stopped, config(train={"monitor": "gauc"}))
