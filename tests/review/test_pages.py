"""Laws of the pages: whole in one file, every plot named, and drawn by a browser that has no network."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from sml_dist.review.compare_page import differences, headline
from sml_dist.review.importance import importance
from sml_dist.review.page import prose
from sml_dist.review.read import Run, read_run, read_sweep
from sml_dist.review.report import write_report
from sml_dist.review.sweep_page import axis, coordinates, importances, pairs, trials
from sml_dist.spec import InputError
from sml_dist.trials import Sweep
from sml_dist.verdict import verdict
from tests.review.folders import DEFAULT, write, write_run, write_sweep

FIGURE = re.compile(r'<script type="application/json">(.*?)</script>')


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A finished run, one that goes on, two runs side by side, a sweep, a paired sweep."""
    root = tmp_path_factory.mktemp("made")
    one, other = write_run(root, "one"), write_run(root, "<b>other", seed=1, lr=0.01, finished=False)
    folders = {"run": [one], "unfinished": [other], "two": [one, other], "sweep": [write_sweep(root)]}
    folders["paired"] = [write_sweep(root / "paired", pair=True)]
    return {
        name: Path(write_report([str(folder) for folder in found], str(root / f"{name}.html"))["report"]) for name, found in folders.items()
    }


def test_runs_that_differ_in_a_setting_of_a_table_with_a_secrets_name_show_it_and_no_secret(tmp_path):
    """What a configuration of another program holds under such a name stays hidden, and a secret within a value too."""
    folders = [write_run(tmp_path, name) for name in "ab"]
    for folder, sharding, secret in zip(folders, ("row_wise", "table_wise"), ("hunter22", "hunter33"), strict=True):
        config = OmegaConf.load(folder / "config.yaml")
        config.embedding.tables = {"user_token": {"sharding": sharding}}
        config.tracking = {"key_of": {"api_key": secret}, "at": f"redis://:{secret}@host/0", "how": f"--token={secret}"}
        OmegaConf.save(config, folder / "config.yaml")
    runs = [read_run(str(folder)) for folder in folders]
    assert ["embedding.tables.user_token.sharding", "row_wise", "table_wise"] in differences(runs, ["a", "b"]).tables[0].rows
    assert "hunter" not in str([run.flat_config() for run in runs])
    assert runs[0].flat_config()["tracking.key_of.api_key"] == "***"


def test_a_page_is_made_of_the_lines_around_bytes_that_are_no_text(tmp_path):
    folder = write_run(tmp_path, "a")
    path, whole = folder / "metrics.jsonl", read_run(str(folder)).lines
    first, *rest = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b'{"step": 1, "\xff\xfe\n' + b"".join(rest))
    assert read_run(str(folder)).lines == whole


def test_a_page_is_one_file_under_5_mb_that_names_no_other(pages):
    for name, page in pages.items():
        text = page.read_text()
        assert len(text.encode()) < 5_000_000, name
        assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text), name
        assert "<b>other" not in text


def test_every_plot_has_a_title_and_axes_with_units(pages):
    for name, page in pages.items():
        figures = [json.loads(found) for found in FIGURE.findall(page.read_text())]
        assert len(figures) >= 5, name
        for figure in figures:
            layout = figure["layout"]
            assert layout["title"]["text"], name
            for side in ("xaxis", "yaxis"):
                assert re.fullmatch(r".+ \(.+\)", layout[side]["title"]["text"]), (name, layout["title"]["text"], side)


def test_a_browser_draws_every_plot_without_an_error_or_a_request(pages, browser):
    for name in ("run", "sweep"):
        page, errors, requests = browser.new_page(), [], []
        page.on("console", lambda message, errors=errors: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
        page.on("request", lambda request, requests=requests: requests.append(request.url))
        page.goto(pages[name].as_uri())
        page.wait_for_selector("body[data-drawn]", timeout=60_000)
        assert page.locator(".plot svg.main-svg").count() >= page.locator(".plot").count() > 0
        page.locator(".plot").first.hover()
        assert page.locator(".modebar-btn").count() == 0  # it would lie over the titles
        assert not errors and [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]


def test_a_log_axis_that_spans_less_than_a_decade_has_its_values_on_its_ticks(pages, browser):
    """Not a "2" that is 0.2, with no power of ten beside it."""
    page = browser.new_page()
    page.goto(pages["run"].as_uri())
    page.wait_for_selector("body[data-drawn]", timeout=60_000)
    plot = page.locator(".plot", has_text="Variance of each layer's logit term")
    ticks = [float(text) for text in plot.locator(".ytick").all_text_contents()]  # the variances are between 0.1 and 1
    assert len(ticks) >= 2 and all(0.1 <= tick <= 1 for tick in ticks)


def test_a_run_that_has_written_nothing_but_its_configuration_has_a_page(tmp_path):
    folder = write_run(tmp_path, "early", steps=0, finished=False)
    for file in ("metrics.jsonl", "about.json", "code.json", "curves_valid.json", "curves_test.json"):
        (folder / file).unlink()
    assert "not finished" in Path(write_report([str(folder)])["report"]).read_text()


def test_several_labels_and_an_auc_that_is_none_have_pages(tmp_path):
    """Of several labels the positives are a list; validation rows of one label have no AUC."""
    runs = [write_run(tmp_path, name) for name in ("one", "other")]
    for run in runs:
        about = json.loads((run / "about.json").read_text())
        about["dataset"]["positives"] = {split: [count, 10] for split, count in about["dataset"]["positives"].items()}
        write(run, "about.json", about)
    assert "9,000 (25.00%, 0.11% clicks)" in Path(write_report([str(runs[1])])["report"]).read_text()
    summary = json.loads((runs[1] / "summary.json").read_text())
    write(runs[1], "summary.json", summary | {"valid": summary["valid"] | {"auc": None}})
    assert write_report(list(map(str, runs)), str(tmp_path / "two.html"))["bytes"] > 1e6


def test_runs_of_other_rows_are_said_to_be_so(tmp_path):
    folders = [write_run(tmp_path, name) for name in ("a", "b")]
    assert differences(*sides(folders)).facts[0].note == "the runs differ in name alone"
    assert headline(*sides(folders))[1].note == "best minus worst"
    about = json.loads((folders[1] / "about.json").read_text())
    write(folders[1], "about.json", about | {"dataset": about["dataset"] | {"sha256": "cd" * 32}})
    assert differences(*sides(folders)).tables[0].rows == [["dataset (SHA-256)", "ab" * 6, "cd" * 6]]
    assert headline(*sides(folders))[1].note == "best minus worst; of other rows, for the datasets differ"


def sides(folders: list[Path]) -> tuple[list[Run], list[str]]:
    return [read_run(str(folder)) for folder in folders], [folder.name for folder in folders]


def test_what_is_neither_a_run_nor_a_sweep_is_refused_in_one_line(tmp_path, pages):
    with pytest.raises(InputError, match="is no run .* and no sweep"):
        write_report([str(tmp_path)])
    sweep, run = write_sweep(tmp_path, trials=3), write_run(tmp_path, "one")
    for name, text in (("config.yaml", ""), ("config.yaml", "run: [1"), ("config.yaml", "run: {name: a}"), ("summary.json", "{")):
        folder = write_run(tmp_path, f"{name} {text}")
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=name):
            write_report([str(folder)])
    (sweep / "trials.jsonl").write_text('{"id": 0, "par')
    with pytest.raises(InputError, match="trials.jsonl, line 1 is damaged"):
        write_report([str(sweep)])
    with pytest.raises(InputError, match="is a sweep; several runs can stand side by side"):
        write_report([str(run), str(sweep)])


SECRET = "not-to-be-shown-0123456789"
LEAK = "${oc.env:MADE_UP_API_KEY}"


@pytest.mark.parametrize("value", [SECRET, None])
def test_a_page_shows_no_secret_of_its_readers_environment(tmp_path, monkeypatch, value):
    """Which another's folder may ask for, and of a variable that is not set here the page is made all the same."""
    monkeypatch.setenv("MADE_UP_API_KEY", value) if value else monkeypatch.delenv("MADE_UP_API_KEY", raising=False)
    sweep, plain = write_sweep(tmp_path, trials=3), write_run(tmp_path, "plain")
    asking, broken = write_run(tmp_path, "asking"), write_run(tmp_path, "broken")
    for folder, extra in ((asking, ""), (broken, f"later: {LEAK}\n")):  # an unknown key: the configuration is shown as it stands
        text = (folder / "config.yaml").read_text().replace("path: data/none", f"path: {LEAK}").replace("name: asking", f"name: {LEAK}")
        (folder / "config.yaml").write_text(text.replace("global_batch_size: 1024", f"global_batch_size: {LEAK}" if extra else "") + extra)
    (sweep / "sweep.yaml").write_text(json.dumps(json.loads((sweep / "sweep.yaml").read_text()) | {"name": LEAK}))
    (sweep / "base.yaml").write_text((sweep / "base.yaml").read_text().replace("lr: 0.001", f"lr: {LEAK}"))
    for number, folders in enumerate(([asking], [broken], [asking, broken, plain], [sweep])):
        page = Path(write_report([str(folder) for folder in folders], str(tmp_path / f"{number}.html"))["report"]).read_text()
        assert SECRET not in page and LEAK in page


def test_a_secret_in_a_configuration_is_not_shown_on_its_page(tmp_path, monkeypatch):
    monkeypatch.setenv("MADE_UP_API_KEY", SECRET)
    one, other = write_run(tmp_path, "one"), write_run(tmp_path, "other")
    (one / "config.yaml").write_text((one / "config.yaml").read_text() + f"later: {SECRET}\nmy: {{api_key: another-one}}\n")
    for number, folders in enumerate(([one], [one, other])):
        page = Path(write_report([str(folder) for folder in folders], str(tmp_path / f"{number}.html"))["report"]).read_text()
        assert SECRET not in page and "another-one" not in page and "***" in page


def test_the_key_that_the_metric_hangs_on_is_the_most_important(tmp_path):
    folder = write_sweep(tmp_path, trials=40)
    found = importance(read_sweep(str(folder)))
    assert found.names[0] == "train.lr" and found.mean[0] > 1 and found.explained > 0.5


def test_how_long_a_trial_was_trained_is_no_reason_for_its_value(tmp_path):
    """A scheduler stops the worse ones; all are compared where the first were stopped."""
    stopped, records = read_sweep(str(write_sweep(tmp_path, trials=24))), {}
    for trial in stopped.trials:
        history = trial.history[:2]
        records[f"t{trial.id}"] = {"history": history, "value": trial.best("auc").get("auc")}
    found = importance(stopped)
    assert found == importance(changed(tmp_path / "sweep", **records)) and found.rows == 144_000


@pytest.mark.parametrize("pair", [False, True])
def test_trials_of_noise_alone_are_said_to_show_nothing_and_have_no_bars(tmp_path, pair):
    """A pair's two have one value here, and one draw of all other keys: by those a forest that saw the one would know the other."""
    sweep, random = read_sweep(str(write_sweep(tmp_path, trials=30, pair=pair))), np.random.default_rng(2)
    values, records = random.normal(0.7, 0.01, 30), {}
    for trial in sweep.trials:
        first = sweep.trials[trial.id - trial.id % 2 if pair else trial.id]
        history = [{"rows": 1_000, "step": 1, "epoch": 1, "time": 1.7e9, "auc": values[first.id]}]
        records[f"t{trial.id}"] = {"history": history, "value": values[first.id], "status": "finished"}
        records[f"t{trial.id}"]["params"] = first.params | {"model.sml.enabled": trial.params["model.sml.enabled"]}
    sweep = changed(tmp_path / "sweep", **records)
    section = importances(sweep)
    assert importance(sweep).explained < 0 and not section.figures and section.facts and "do not show which keys matter" in section.text


def test_where_a_trial_took_over_anothers_weights_no_key_is_said_to_matter(tmp_path):
    """It is its donor's near twin, in its settings and in its value: a forest that saw the one would know the other."""
    folder = write_sweep(tmp_path, trials=24)
    assert importances(read_sweep(str(folder))).figures and "last ones" not in trials(read_sweep(str(folder))).text
    sweep = changed(folder, t3={"exploits": [{"step": 70, "from": 1, "params": {"train.lr": 1e-3}}]})
    section = importances(sweep)
    assert importance(sweep) is None and not section.figures and "went on from others' checkpoints" in section.facts[0].note
    assert all("Settings are a trial's last ones" in shown.text for shown in (trials(sweep), coordinates(sweep)))


def test_a_sweep_of_few_trials_names_no_importance(tmp_path):
    assert importance(read_sweep(str(write_sweep(tmp_path, trials=5)))) is None


def changed(folder: Path, **changes: dict) -> Sweep:
    """The sweep with some keys of some trials replaced: t3={"value": 1}."""
    records = [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
    records = [record | changes.get(f"t{record['id']}", {}) for record in records]
    (folder / "trials.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return read_sweep(str(folder))


def test_the_default_is_the_base_itself_and_not_the_better_of_its_pair(tmp_path):
    assert read_sweep(str(write_sweep(tmp_path, trials=3))).default.id == 0
    folder = write_sweep(tmp_path / "paired", trials=6, pair=True)
    sweep = changed(folder, t0={"value": 0.5}, t1={"value": 0.9})
    assert [sweep.trials[id].point for id in (0, 1)] == [0, 0] and sweep.default.id == 0


def test_the_verdict_gives_no_interval_to_which_two_aucs_alone_have_no_right(tmp_path):
    """An interval from the two AUCs alone would take their rows for different ones, and so contain 0 almost always."""
    text = verdict(read_sweep(str(write_sweep(tmp_path))))
    assert "the best is better by 0.0" in text and "±" not in text and "says how sure the difference is" in text


def test_the_verdict_promises_test_rows_only_of_a_dataset_that_has_them(tmp_path):
    """Without them evaluate would take the validation rows, which chose the best."""
    sweep = read_sweep(str(write_sweep(tmp_path)))
    run = write_run(sweep.path / "trials", Path(sweep.ranked[0].run).name)
    about = json.loads((run / "about.json").read_text())
    command = f"sml-dist evaluate {sweep.ranked[0].run} --against {sweep.default.run}"
    assert f"`{command}` in" in verdict(sweep) and "on the same test rows." in verdict(sweep)
    del about["dataset"]["rows"]["test"]
    write(run, "about.json", about)
    assert f"`{command} --data ROWS` in" in verdict(sweep) and "the dataset has no test rows." in verdict(sweep)


def test_where_no_trial_is_the_default_the_verdict_says_what_became_of_it(tmp_path):
    exploit = {"exploits": [{"step": 70, "from": 1, "params": DEFAULT}]}  # back at the base's settings, but with another's weights
    for number, (change, became) in enumerate(((exploit, "took over the settings of another"), ({"status": "failed"}, "failed"))):
        folder = write_sweep(tmp_path / str(number))
        assert f" has a value (trial 0: {became}): there is no default" in verdict(changed(folder, t0=change))
    text = (folder / "sweep.yaml").read_text()
    (folder / "sweep.yaml").write_text(json.dumps(json.loads(text) | {"points": []}))
    assert " has a value (points: [{}] adds one): there is no default" in verdict(changed(folder, t0={"point": None}))


def test_a_trial_that_failed_is_not_the_best_and_stands_in_the_table(tmp_path):
    folder = write_sweep(tmp_path, trials=9)
    sweep = changed(folder, t7={"value": 2.0, "history": [{"rows": 1, "time": 1.7e9, "auc": 2.0}]})
    assert sweep.ranked[0].id != 7 and len(sweep.ranked) == 8
    assert [row[0] for row in trials(sweep).tables[0].rows][-1] == 7


def test_a_switch_stands_on_its_axis_by_name_and_a_number_by_size():
    assert axis("sml", [True, False])["ticktext"] == ["False", "True"]
    assert axis("depth", [1, 0])["ticktext"] == ["0", "0.25", "0.5", "0.75", "1"]


def test_values_that_differ_stand_on_their_axis_under_labels_that_differ_and_are_short():
    four, six = [200] * 4, [200] * 6
    assert axis("hidden", [four, six, None, [1024, 512, 256, 128]])["ticktext"] == ["–", "200×4", "200×6", "[1024,…6, 128]"]
    alike = ["/data/day_1/a.parquet", "/data/day_2/a.parquet"]  # as short as they can be
    assert axis("path", alike)["ticktext"] == alike


def test_pairs_are_of_trials_that_came_to_their_end_and_held_against_off(tmp_path):
    sweep = changed(write_sweep(tmp_path, trials=8, pair=True), t4={"status": "cut"}, t7={"status": "finished", "value": 0.5})
    (row,) = pairs(sweep).tables[0].rows
    expected = [sweep.trials[on].value - sweep.trials[off].value for on, off in ((0, 1), (2, 3), (6, 7))]
    assert row[:3] == ["True minus False", 3, pytest.approx(sum(expected) / 3)]


def test_the_value_that_others_are_held_against_does_not_hang_on_which_trial_came_first(tmp_path):
    folder = write_sweep(tmp_path, trials=8, pair=True)
    (folder / "sweep.yaml").write_text((folder / "sweep.yaml").read_text().replace('"pair": "model.sml.enabled"', '"pair": "train.lr"'))
    records = {f"t{id}": {"params": DEFAULT | {"train.lr": (1e-2, 1e-4)[id % 2]}} for id in range(8)}
    assert pairs(changed(folder, **records)).tables[0].rows[0][0] == "0.01 minus 0.0001"


def test_of_three_values_that_are_paired_the_p_values_allow_for_both_comparisons(tmp_path):
    folder = write_sweep(tmp_path, trials=9, pair=True)
    (folder / "sweep.yaml").write_text((folder / "sweep.yaml").read_text().replace('"pair": "model.sml.enabled"', '"pair": "train.lr"'))
    records = {f"t{id}": {"params": DEFAULT | {"train.lr": (1e-3, 1e-4, 1e-2)[id % 3]}, "pair": id // 3} for id in range(9)}
    table = pairs(changed(folder, **records | {"t7": records["t7"] | {"status": "finished", "value": 0.9}})).tables[0]
    assert table.columns[-2:] == ["p", "p (Holm)"] and len(table.rows) == 2
    (first, adjusted), (second, other) = sorted(row[-2:] for row in table.rows)
    assert (adjusted, other) == (pytest.approx(min(1, 2 * first)), pytest.approx(min(1, max(2 * first, second))))


def test_a_damaged_line_and_an_unknown_key_do_not_keep_a_run_from_its_page(tmp_path):
    folder = write_run(tmp_path, "one", steps=100)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('[1, 2]\n{"time": 1, "st')
    write(folder, "summary.json", json.loads((folder / "summary.json").read_text()) | {"new": 1})
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "later: 1\n")
    assert write_report([str(folder)])["bytes"] > 1e6


def test_prose_shows_code_as_code_and_markup_as_text():
    assert prose("`a<b>.yaml` & <b>") == "<code>a&lt;b&gt;.yaml</code> &amp; &lt;b&gt;"
