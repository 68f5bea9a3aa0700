"""The service's own code without Ray: what it answers, counts and keeps."""

import asyncio
import json
import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from starlette.responses import Response

from sml_dist.serve.application import VERSION_HEADER
from sml_dist.serve.application import Service as Deployment
from sml_dist.serve.current import Current
from sml_dist.serve.launch import follow
from sml_dist.serve.layout import MANIFEST, seal, version_of
from sml_dist.serve.metrics import Metrics
from sml_dist.serve.model import Answer, ServedModel
from sml_dist.serve.requests import ARROW, JSON, Ask, Refusal, parse

Service = Deployment.func_or_class


@pytest.fixture
def service(exported) -> Service:
    made = Service.__new__(Service)
    made.settings = SimpleNamespace(concurrency=9, max_rows=300, max_list_values=2000, max_body_bytes=200_000)
    made.current = SimpleNamespace(model=ServedModel(exported), swaps=0, refused=0)
    made.token, made.open, made.metrics = None, 0, Metrics("r")
    made.routes = {("POST", "/v1/predict"): made.predict}
    return made


def ask_for(service: Service, accept: str = "") -> Response:
    url, headers = SimpleNamespace(path="/v1/predict"), {"content-type": JSON, "accept": accept}
    request = SimpleNamespace(url=url, method="POST", headers=headers, query_params={})
    return asyncio.run(service(request))


def test_a_fault_of_the_service_is_answered_and_counted_as_everything_is(service, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ray.serve"), "propagate", True)

    async def broken(request):
        raise KeyError("nobody expected this")

    service.routes = {("POST", "/v1/predict"): broken}
    answer, version = ask_for(service), service.current.model.version
    assert answer.status_code == 500 and answer.headers[VERSION_HEADER] == version
    found = json.loads(answer.body)
    assert found["model_version"] == version and found["error"]["code"] == "internal"
    assert 'path="/v1/predict",replica="r",status="500"} 1.0' in service.metrics.text(version, 0, 0).decode()
    assert service.open == 0 and "nobody expected this" in caplog.text


@pytest.mark.parametrize("accept", ["", ARROW])
def test_a_body_is_let_go_before_it_is_scored(accept, service, trained, monkeypatch):
    class Body(bytes):
        def __del__(self):
            seen.append("let go")

    content = json.dumps({"rows": trained.raw.select(service.current.model.features.inputs).to_pylist(), "contributions": True}).encode()
    seen = []

    async def body(request) -> bytes:
        return Body(content)

    async def score(item) -> Answer:
        await asyncio.sleep(0.2)  # for the thread that parsed it
        seen.append("scored")
        return item[0].score([item[1]])[0]

    service.body = body
    monkeypatch.setattr(Service, "score", staticmethod(score))
    answer = ask_for(service, accept=accept)
    assert answer.status_code == 200 and seen == ["let go", "scored"]
    if not accept:
        expected = service.current.model.score([parse(JSON, content, service.current.model.schema, 300)])[0]
        assert json.loads(answer.body) == expected.as_dict() and answer.headers["content-type"] == JSON


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")])
def test_a_request_too_large_for_the_memory_fails_alone(error, exported, trained, monkeypatch):
    model = ServedModel(exported)
    logits = model.model.logits

    def small(ids, dense):
        if len(dense) > 10:
            raise error
        return logits(ids, dense)

    monkeypatch.setattr(model.model, "logits", small)
    rows = trained.raw.select(model.features.inputs)
    answers = model.score([Ask(rows.slice(0, 5), False, 5), Ask(rows.slice(0, 11), False, 11), Ask(rows.slice(5, 5), False, 5)])
    assert [type(answer) for answer in answers] == [Answer, Refusal, Answer] and answers[1].status == 500
    assert np.abs(answers[2].logit - trained.logit[5:10]).max() < 1e-5


def test_each_exchange_and_each_folder_that_is_not_taken_is_told_once(exported, tmp_path):
    other, empty, damaged = (tmp_path / name for name in ("other", "empty", "damaged"))
    for copy, text in ((other, "another"), (damaged, "a third")):
        shutil.copytree(exported, copy)
        (copy / MANIFEST).unlink()
        (copy / "README.md").write_text(text)
        seal(copy)
    (damaged / "README.md").write_text("damaged")
    empty.mkdir()
    first, second, third = map(version_of, (exported, other, damaged))
    link, lines = tmp_path / "current", []
    link.symlink_to(exported)
    current = Current(str(link), 1000)
    looks = [exported, empty, exported, *[empty] * 4, *[other] * 3, *[damaged] * 3, None, exported]

    def told() -> tuple[float, str]:
        if not (target := looks.pop(0)):
            raise TimeoutError("the replica is busy")
        link.unlink()
        link.symlink_to(target)
        current.look()
        return current.told

    follow(told, lines.append, lambda: not looks)
    assert lines == [
        f"{empty} is no export (no {MANIFEST}); make one with `sml-dist export RUN --output {empty}`; version {first} stays",
        f"serving {other} (version {second})",
        f"{damaged} (version {third}) is not taken, version {second} stays: "
        f"{damaged}/README.md is damaged (its SHA-256 is not the manifest's); export the run again",
        f"serving {exported} (version {first})",
    ]
    assert (current.swaps, current.refused) == (2, 2)


def test_an_unsound_export_is_tried_ever_less_often_and_a_sound_one_in_its_place_at_once(exported, tmp_path):
    sound = Path(shutil.copytree(exported, tmp_path / "sound"))
    (sound / MANIFEST).unlink()
    (sound / "README.md").write_text("another")
    seal(sound)
    damaged = Path(shutil.copytree(sound, tmp_path / "damaged"))
    (damaged / "README.md").write_text("damaged")

    def point(export: Path) -> None:
        (tmp_path / "new").symlink_to(export)
        os.replace(tmp_path / "new", tmp_path / "current")

    point(exported)
    current = Current(str(tmp_path / "current"), 1000)  # whose thread does not wake during this test
    point(damaged)
    current.look()
    first = current.again
    current.look()
    assert current.refused == 1 and current.again == first  # the second look did not try it
    current.again = 0.0
    current.look()
    assert current.refused == 1 and current.again > first and current.model.version == version_of(exported)
    point(sound)
    current.look()
    assert current.model.version == version_of(sound) and current.swaps == 1
