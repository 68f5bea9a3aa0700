"""Secrets are found wherever they should not be, and told of without being shown."""

import pytest

from sml_dist.config.run import parse
from sml_dist.credentials import refuse, scrub, secrets_here
from sml_dist.spec import InputError

CANARY = "canary-5f3a9c"


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", CANARY)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/somewhere/token")
    monkeypatch.setenv("SHORT_TOKEN", "a")


def test_a_secret_is_a_variable_whose_name_says_so_and_not_the_path_of_one(monkeypatch):
    assert secrets_here().get("WANDB_API_KEY") == CANARY
    monkeypatch.setenv("PGPASSWORD", "canary-77")
    assert secrets_here()["PGPASSWORD"] == "canary-77"
    assert not {"RAY_AUTH_TOKEN_PATH", "SHORT_TOKEN"} & set(secrets_here())


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"run.name=x{CANARY}", "the value of WANDB_API_KEY"),
        ("data.path=s3://key:hunter22@bucket/logs", "a URL with a password"),
        ("data.path=redis://:hunter22@host/0", "a URL with a password"),
        ("wandb.api_key=abc", r"a secret \(wandb.api_key\)"),
        ("PASSWORD: abc", r"a secret \(PASSWORD\)"),
        ("{'aws_secret_access_key': 'abc'}", r"a secret \(aws_secret_access_key\)"),
        ('{"token": "abc", "b": 1}', r"a secret \(token\)"),
    ],
)
def test_a_secret_in_an_argument_is_refused_and_not_shown(text, told):
    with pytest.raises(InputError, match=f"argument 3 holds {told}") as error:
        refuse(text, "argument 3")
    assert not any(secret in str(error.value) for secret in (CANARY, "hunter22", "abc"))
    assert not any(secret in scrub(text) for secret in (CANARY, "hunter22", "abc"))


@pytest.mark.parametrize(
    "text", ["data.path=s3://bucket/logs", "train.lr=0.1", "tokenizer=word", "tokens: 3 secretaries", "http://host:8265"]
)
def test_what_only_looks_like_one_passes_and_stays(text):
    refuse(text, "argument 1")
    assert scrub(text) == text


def test_a_configuration_that_holds_a_secret_is_refused_by_its_key():
    with pytest.raises(InputError, match="data.path holds the value of WANDB_API_KEY"):
        parse({"run": {"name": "a"}, "data": {"path": f"/data/{CANARY}"}, "model": {"name": "lr"}})
