"""Laws of the pages: whole in one file, every plot named, and drawn by a browser that has no network."""

import json
import re
import shutil
from pathlib import Path

import pytest

from sml_dist.review.importance import importance
from sml_dist.review.read import read_sweep
from sml_dist.review.report import write_report
from sml_dist.review.sweep_verdict import auc_error
from sml_dist.spec import InputError
from tests.review.folders import write, write_run, write_sweep

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FIGURE = re.compile(r'<script type="application/json">(.*?)</script>')


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A finished run, one that goes on, two runs side by side, a sweep, a paired sweep."""
    root = tmp_path_factory.mktemp("made")
    one, other = write_run(root, "one"), write_run(root, "<b>other</b>", seed=1, lr=0.01, finished=False)
    folders = {"run": [one], "unfinished": [other], "two": [one, other], "sweep": [write_sweep(root)]}
    folders["paired"] = [write_sweep(root / "paired", pair=True)]
    return {
        name: Path(write_report([str(folder) for folder in found], str(root / f"{name}.html"))["report"]) for name, found in folders.items()
    }


def test_a_page_is_one_file_under_5_mb_that_names_no_other(pages):
    for name, page in pages.items():
        text = page.read_text()
        assert len(text.encode()) < 5_000_000, name
        assert not re.search(r"""(?:src|href)=["'](?!#|data:)""", text), name
        assert "<b>other</b>" not in text


def test_every_plot_has_a_title_and_axes_with_units(pages):
    for name, page in pages.items():
        figures = [json.loads(found) for found in FIGURE.findall(page.read_text())]
        assert len(figures) >= 5, name
        for figure in figures:
            layout = figure["layout"]
            assert layout["title"]["text"], name
            for axis in ("xaxis", "yaxis"):
                assert re.fullmatch(r".+ \(.+\)", layout[axis]["title"]["text"]), (name, layout["title"]["text"], axis)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_a_browser_draws_every_plot_without_an_error_or_a_request(pages):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name in ("run", "sweep"):
            page, errors, requests = browser.new_page(), [], []
            page.on("console", lambda message, errors=errors: errors.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            page.on("request", lambda request, requests=requests: requests.append(request.url))
            page.goto(pages[name].as_uri())
            page.wait_for_selector("body[data-drawn]", timeout=60_000)
            assert page.locator(".plot svg.main-svg").count() >= page.locator(".plot").count() > 0
            assert not errors and [url for url in requests if not url.startswith("data:")] == [pages[name].as_uri()]
        browser.close()


def test_a_run_that_has_written_nothing_but_its_configuration_has_a_page(tmp_path):
    folder = write_run(tmp_path, "early", steps=0, finished=False)
    for file in ("metrics.jsonl", "about.json", "code.json", "curves_valid.json", "curves_test.json"):
        (folder / file).unlink()
    assert "not finished" in Path(write_report([str(folder)])["report"]).read_text()


def test_what_is_neither_a_run_nor_a_sweep_is_refused_in_one_line(tmp_path, pages):
    with pytest.raises(InputError, match="is no run .* and no sweep"):
        write_report([str(tmp_path)])
    sweep, run = write_sweep(tmp_path, trials=3), write_run(tmp_path, "one")
    with pytest.raises(InputError, match="is a sweep; several runs can stand side by side"):
        write_report([str(run), str(sweep)])


def test_the_key_that_the_metric_hangs_on_is_the_most_important(tmp_path):
    folder = write_sweep(tmp_path, trials=40)
    found = importance(read_sweep(str(folder)))
    keys = [name for name in found.names if name != "rows trained on"]
    assert keys[0] == "train.lr" and found.explained > 0.5


def test_a_sweep_of_few_trials_names_no_importance(tmp_path):
    assert importance(read_sweep(str(write_sweep(tmp_path, trials=5)))) is None


def test_a_point_has_the_bases_values_where_it_names_none_and_none_where_they_are_not_in_force(tmp_path):
    folder = write_sweep(tmp_path, trials=3)
    sweep = read_sweep(str(folder))
    assert sweep.default["id"] == 0
    assert sweep.setting(sweep.default, "train.lr") == 0.001 and sweep.setting(sweep.default, "model.sml.mtn.learner") == "elementwise"
    sweep.base["model"]["sml"]["enabled"] = False
    assert sweep.setting(sweep.default, "model.sml.mtn.learner") is None


def test_the_standard_error_of_an_auc_is_hanley_and_mcneils():
    assert auc_error(0.5, 50, 50) == pytest.approx((101 / 12 / 2500) ** 0.5, rel=0.01)  # of the Wilcoxon statistic at chance


def test_a_damaged_line_and_an_unknown_key_do_not_keep_a_run_from_its_page(tmp_path):
    folder = write_run(tmp_path, "one", steps=100)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"time": 1, "st')
    write(folder, "summary.json", json.loads((folder / "summary.json").read_text()) | {"new": 1})
    (folder / "config.yaml").write_text((folder / "config.yaml").read_text() + "later: 1\n")
    assert write_report([str(folder)])["bytes"] > 1e6
