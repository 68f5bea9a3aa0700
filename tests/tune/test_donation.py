"""What a trial gives to others is what it is now, and stays while they may still come for it."""

import shutil
from pathlib import Path

from sml_dist.tune.donation import KEPT, donate, steps_in, take

STEPS = ("step-000000010", "step-000000020")


def checkpointed(run: Path, what: str, steps: tuple[str, ...] = STEPS) -> Path:
    """A run with these checkpoints and no others, which hold `what`, as their manifests say."""
    shutil.rmtree(run / "checkpoints", ignore_errors=True)  # for their files are never written again
    for step in steps:
        folder = run / "checkpoints" / step
        folder.mkdir(parents=True)
        for name in ("MANIFEST.json", "weights"):
            (folder / name).write_text(what)
    return run


def weights(folder: Path) -> str:
    return (folder / steps_in(folder)[-1] / "weights").read_text()


def test_a_run_that_went_back_donates_what_it_has_made_since(tmp_path):
    """At the same steps: those of before, of worse weights, are not what a third trial is to take."""
    first = donate(checkpointed(tmp_path / "a", "before"), tmp_path / "donors", 0)
    second = donate(checkpointed(tmp_path / "a", "since"), tmp_path / "donors", 0)
    assert weights(Path(first["kept"])) == "before" and weights(Path(second["kept"])) == "since"
    taker = checkpointed(tmp_path / "b", "own", (*STEPS, "step-000000030"))
    assert take(second, taker, {}) == 20
    assert weights(taker / "checkpoints") == "since" and steps_in(taker / "checkpoints") == list(STEPS)


def test_what_is_donated_twice_is_kept_once_and_the_newest_stay(tmp_path):
    run, donors = tmp_path / "a", tmp_path / "donors"
    twice = [donate(checkpointed(run, "0"), donors, 0) for _ in range(2)]
    assert twice[0] == twice[1]
    later = [donate(checkpointed(run, what), donors, 0) for what in "123"]
    assert len(list((donors / "00000").iterdir())) == KEPT and not Path(twice[0]["kept"]).exists()
    assert [weights(Path(each["kept"])) for each in later[-KEPT:]] == ["2", "3"]
    assert take(twice[0], checkpointed(tmp_path / "b", "own"), {}) == 20 and weights(tmp_path / "b/checkpoints") == "3"
