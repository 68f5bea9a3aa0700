"""A worker's log: JSON lines that say whose they are, and no secret."""

import json

import pytest

from sml_dist.train.gauges import NAMES, Gauges
from sml_dist.train.logs import log_event, logger, worker_logs
from sml_dist.train.place import Place


def test_every_line_says_which_run_and_rank_and_none_holds_a_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-77aa")
    with pytest.raises(OSError, match="canary"), worker_logs(tmp_path, "mine", Place(rank=3, workers=4)):
        log_event(event="skipped", step=7, why="bad loss")
        log_event(step=8, loss=0.5)  # metrics.jsonl's alone
        raise OSError("s3://me:canary-77aa@bucket is away")
    lines = [json.loads(line) for line in (tmp_path / "logs/rank-3.jsonl").read_text().splitlines()]
    assert [(line["run"], line["rank"], line["level"]) for line in lines] == [("mine", 3, level) for level in ("info", "warning", "error")]
    assert lines[1]["step"] == 7 and "Traceback" in lines[2]["traceback"] and "canary" not in json.dumps(lines)
    assert capsys.readouterr().err.splitlines() == (tmp_path / "logs/rank-3.jsonl").read_text().splitlines()
    logger.info("later")  # nobody's
    assert len((tmp_path / "logs/rank-3.jsonl").read_text().splitlines()) == 3


def test_gauges_take_every_line_of_a_run_and_each_line_sets_all_of_them(monkeypatch):
    told = []
    monkeypatch.setattr("ray.util.metrics.Gauge.set", lambda gauge, value, tags: told.append((gauge.info["name"], value)))
    gauges = Gauges("mine", rejected=4)
    gauges.log(step=1, epoch=0, loss=0.5, samples_per_second=10.0, data_wait_fraction=0.0, lr=0.1, total_steps=9, epochs=1)
    gauges.log(step=1, split="valid", auc=0.7, logloss=None, total_steps=9)
    gauges.log(event="checkpoint", step=1, seconds=0.1, blocked_seconds=0.0, bytes=9)
    gauges.log(event="resumed", step=1, restarts=5)
    assert set(gauges.gauges) == set(NAMES) - {"valid_logloss"} and gauges.counts == {"resumed": 5, "skipped": 0, "rolled back": 0}
    told.clear()
    gauges.log(step=2, loss=0.4)
    assert {"sml_dist_quarantined_rows": 4.0, "sml_dist_restarts": 5.0, "sml_dist_loss": 0.4}.items() <= dict(told).items()
