"""What a run may change when it goes on, and what it makes of that."""

import copy
import os
from pathlib import Path

import pytest

from sml_dist.config.run import RunConfig, as_before, parse, parse_kept
from sml_dist.spec import InputError, to_dict
from sml_dist.train.resume import progress_of, refuse_another


def config(**sections) -> RunConfig:
    base = {"run": {"name": "r"}, "data": {"path": "d"}, "model": {"name": "dnn"}, "embedding": {}, "train": {}}
    return parse({name: section | sections.get(name, {}) for name, section in base.items()})


def manifest(was: RunConfig, **progress) -> dict:
    """Of a checkpoint that a run under a configuration made."""
    return {"config": to_dict(was), "dataset": "hash", "step": progress.get("step", 0), "progress": progress}


@pytest.mark.parametrize(("section", "key", "before", "after"), [("embedding", "pooling", "mean", "sum"), ("embedding", "dim", 16, 8)])
def test_what_the_tensors_mean_does_not_change_between_a_run_and_its_resumption(section, key, before, after):
    was = manifest(config(**{section: {key: before}}))
    refuse_another(was, config(**{section: {key: before}}), "hash")
    with pytest.raises(InputError, match=f"run r was started with {section}.{key}={before}, now it is {after}; choose another run.name"):
        refuse_another(was, config(**{section: {key: after}}), "hash")


@pytest.mark.parametrize(
    ("section", "key", "kept"),
    [
        ("train", "step_timeout_s", 1e9),
        ("train", "step_timeout_s", float("inf")),
        ("train", "clip_norm", float("inf")),
        ("train", "resize_seconds", float("inf")),
        ("train", "worker_resources", {"CPU": float("inf")}),
        ("run", "name", "g/a"),
        ("run", "name", ""),
        ("run", "name", "../x"),
        ("run", "name", ".."),
        ("run", "name", ".hidden"),
        ("run", "name", "a\\b"),
        ("run", "storage", ""),
        ("run", "storage", "s3://bucket/runs"),
        ("run", "warm_start", ""),
        ("run", "warm_start", "s3://bucket/run"),
    ],
)
def test_a_run_that_began_under_wider_limits_goes_on(section, key, kept):
    was = manifest(config(), step=20, best_step=13, best=0.7, evaluated=20)
    was["config"][section][key] = kept
    sealed = copy.deepcopy(was)
    now = config(train={"max_steps": 20})
    refuse_another(was, now, "hash")
    assert progress_of(was, now).done(now.train) and str(was) == str(sealed)


@pytest.mark.parametrize(
    ("storage", "name"),
    [("runs", "g/a"), ("/x/", "g/a/"), ("runs", ""), ("", "a"), ("s3://bucket/runs", "a"), ("", "g/a"), ("x/y", "../a")],
)
def test_a_kept_name_or_storage_that_is_refused_now_is_read_as_the_same_folder(storage, name):
    kept = to_dict(config())
    kept["run"] |= {"storage": storage, "name": name}
    assert Path(parse_kept(kept).run.folder) == Path(os.path.normpath(f"{storage.rstrip('/')}/{name}"))


def test_a_kept_wait_is_clamped_and_a_clip_at_infinity_is_none():
    kept = to_dict(config())
    kept["train"] |= {"step_timeout_s": 1e9, "clip_norm": float("inf")}
    for found in (parse_kept(kept).train, parse(as_before(kept)).train):  # the latter is what a sweep's base is compared by
        assert (found.step_timeout_s, found.clip_norm) == (31_536_000, None)
    assert as_before(kept) == as_before(to_dict(config(train={"step_timeout_s": 31_536_000})))


@pytest.mark.parametrize("section", ["run", "train", "data"])
@pytest.mark.parametrize("held", [None, "text", [1.0], {"name": 3, "step_timeout_s": "long", "clip_norm": {}, "warm_start": 3, "path": 3}])
def test_what_is_no_configuration_of_any_time_is_refused_in_one_line(section, held):
    with pytest.raises(InputError, match=f"^{section}[^\n]*$"):
        parse_kept(to_dict(config()) | {section: held})


@pytest.mark.parametrize(("best_step", "done"), [(13, True), (None, False)])
def test_the_end_of_a_run_that_an_earlier_version_evaluated_is_not_evaluated_again(best_step, done):
    was = manifest(config(), step=20, best_step=best_step)
    assert "evaluated" not in was["progress"]
    now = config(train={"max_steps": 20})
    assert progress_of(was, now).done(now.train) is done


SEEN = {"rows": 9, "auc": 0.7, "logloss": 0.5, "ne": 0.9, "gauc": float("nan"), "labels": {"a": {"auc": 0.7}, "b": {"auc": 0.6, "ne": 0.8}}}


@pytest.mark.parametrize(
    ("before", "after", "best"), [("auc", "logloss", -0.5), ("ne", "auc", 0.7), ("auc", "b.auc", 0.6), ("b.auc", "b.ne", -0.8)]
)
def test_the_best_weights_are_worth_what_the_metric_says_that_is_monitored_now(before, after, best):
    was, now = (config(train={"monitor": monitor, "stop_after": 2}) for monitor in (before, after))
    stopped = manifest(was, step=39, evaluated=39, best=0.123, best_step=13, best_metrics=SEEN, since_best=2)
    same, other = progress_of(stopped, was), progress_of(stopped, now)
    assert (same.best, same.since_best, same.done(was.train)) == (0.123, 2, True)
    assert (other.best, other.best_step, other.since_best, other.done(now.train)) == (best, 13, 0, False)
    assert progress_of(manifest(was, step=3, best_step=None), now).best is None


def test_a_metric_that_the_best_evaluation_leaves_undefined_is_not_monitored_from_there():
    stopped = manifest(config(), step=39, best=0.7, best_step=13, best_metrics=SEEN)
    with pytest.raises(InputError, match=r"^train.monitor gauc is undefined: no group of .* has both labels; set train.monitor=logloss$"):
        progress_of(stopped, config(train={"monitor": "gauc"}))
