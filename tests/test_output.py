import json

import pytest
from rich.table import Table
from typer.testing import CliRunner

from sml_dist.cli import app, main
from sml_dist.cli.app import err, out, print_json
from sml_dist.spec import InputError


def test_values_and_names_with_brackets_are_shown_as_they_are():
    table = Table(title="[b]title")
    table.add_column("[red]column")
    table.add_row("[/b]")
    for console in (out, err):
        with console.capture() as shown:
            console.print(table)
            console.print("[x] folder[/]")
        assert all(text in shown.get() for text in ("[b]title", "[red]column", "[/b]", "[x] folder[/]"))


def test_a_number_that_json_cannot_hold_is_null(capsys):
    print_json({"auc": float("nan"), "splits": [{"ne": float("inf")}]})
    assert json.loads(capsys.readouterr().out) == {"auc": None, "splits": [{"ne": None}]}


@pytest.mark.parametrize("words", ["predict r --input d --output o --num-workers 0", "submit train c.yaml --install tpu"])
def test_a_value_outside_an_options_range_is_refused_as_the_command_is_read(words):
    found = CliRunner().invoke(app, words.split())
    assert found.exit_code == 2 and f"Invalid value for '{words.split()[-2]}'" in found.output


def test_the_list_of_the_benchs_cases_is_one_json_object_for_who_asks_for_it():
    assert "step" in json.loads(CliRunner().invoke(app, ["bench", "--list", "--json"]).stdout)


@pytest.mark.parametrize("words", [[], ["cluster"]])
def test_without_a_command_the_help_alone_is_shown(words, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["sml-dist", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = "".join(capsys.readouterr())
    assert ended.value.code == 2 and "Commands" in shown and "error:" not in shown


@pytest.mark.parametrize(
    "command",
    ["export r", "export r --since e", "apply-delta e d", "evaluate r", "report r", "bench", "study depth c"],
)
def test_a_url_as_the_output_of_a_command_that_writes_paths_is_one_line_and_nothing_is_written(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for output, line in (("s3://bucket/out", "s3://bucket/out is a URL; name a path in a file system"), ("", "names no folder; give one")):
        found = CliRunner().invoke(app, [*command.split(), "--output", output])
        assert isinstance(found.exception, InputError) and str(found.exception).startswith(f"--output {line}")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("predict r --input d", "--output"),
        ("predict r --output o", "--input"),
        ("evaluate r", "--data"),
        ("evaluate r", "--against"),
        ("verify r", "--data"),
        ("synth --rows 1000", "--output"),
        ("prepare --schema criteo --input d", "--output"),
        ("prepare --schema criteo --train d --output o", "--valid"),
        ("export r --output o", "--quantize"),
        ("export r --output o", "--since"),
        ("serve e", "--token-file"),
        ("plan c --world-size 8", "--tables"),
        ("jobs stop x", "--address"),
        ("submit train", "--working-dir"),
    ],
)
def test_an_empty_path_is_neither_the_working_folder_nor_one_left_out(command, option, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(app, [*command.split(), option, ""])
    assert isinstance(found.exception, InputError) and str(found.exception).startswith(f"{option} is empty; give it a value")
    assert not [*tmp_path.iterdir()]
