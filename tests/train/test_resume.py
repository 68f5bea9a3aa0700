"""What a run may change when it goes on, and what it makes of that."""

import pytest

from sml_dist.config.run import RunConfig, parse
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


@pytest.mark.parametrize(("best_step", "done"), [(13, True), (None, False)])
def test_the_end_of_a_run_that_an_earlier_version_evaluated_is_not_evaluated_again(best_step, done):
    was = manifest(config(), step=20, best_step=best_step)
    assert "evaluated" not in was["progress"]
    assert progress_of(was).done(config(train={"max_steps": 20}).train) is done
