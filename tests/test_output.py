import json

from rich.table import Table

from sml_dist.cli.app import err, out, print_json


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
