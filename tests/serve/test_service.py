"""The service over HTTP: it scores as training does, refuses in words, and changes its model without a request lost."""

import hashlib
import json
import os
import random
import shutil
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sml_dist.serve.export import export
from sml_dist.serve.launch import check, running
from sml_dist.serve.layout import version_of
from sml_dist.serve.light import Model
from sml_dist.serve.requests import ARROW, JSON
from sml_dist.spec import InputError
from tests.serve.bodies import arrow, fuzzed

TOKEN = "a-token-of-the-tests"


class Service:
    """A running service, and the link that says which export it serves."""

    def __init__(self, address: str, link: Path, exports: list[Path]):
        self.host, self.port = address.removeprefix("http://").split(":")
        self.address, self.link, self.exports = address, link, exports
        self.local = threading.local()

    def connection(self) -> HTTPConnection:
        if not hasattr(self.local, "connection"):
            self.local.connection = HTTPConnection(self.host, int(self.port), timeout=60)
        return self.local.connection

    def call(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, dict[str, str], bytes]:
        sent = {"authorization": f"Bearer {TOKEN}"} | {name.replace("_", "-"): value for name, value in headers.items()}
        connection = self.connection()
        connection.request(method, path, body, {name: value for name, value in sent.items() if value})
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()

    def predict(self, rows: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        status, headers, body = self.call("POST", "/v1/predict", json.dumps({"rows": rows, **more}).encode(), content_type=JSON)
        found = json.loads(body)
        assert status == 200, found
        assert headers["x-model-version"] == found["model_version"]
        return found

    def counters(self) -> dict[tuple[str, ...], float]:
        """The numbers of /metrics by their names and labels, without the replica's."""
        families = text_string_to_metric_families(self.call("GET", "/metrics")[2].decode())
        samples = [sample for family in families for sample in family.samples]
        return {(s.name, *(value for name, value in sorted(s.labels.items()) if name != "replica")): s.value for s in samples}

    def serve(self, export: Path) -> None:
        point(self.link, export)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def point(link: Path, target: Path) -> None:
    new = link.with_name(link.name + ".new")
    new.symlink_to(target)
    os.replace(new, link)


@pytest.fixture(scope="module")
def service(ray_local, trained, exported, tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    export(trained.run, str(folder / "int4"), quantize="int4", onnx=False)
    (folder / "token").write_text(TOKEN + "\n")
    point(folder / "current", exported)
    arguments = {"export": str(folder / "current"), "token_file": str(folder / "token"), "watch_seconds": 0.2}
    limits = {"max_rows": 300, "max_list_values": 2000, "max_body_bytes": 200_000}
    with running(arguments | limits, "127.0.0.1", free_port()) as address:
        yield Service(address, folder / "current", [exported, folder / "int4"])


def rows_of(trained, count: int) -> list[dict[str, Any]]:
    return trained.raw.drop_columns(["click", "w"]).slice(0, count).to_pylist()


def test_scores_over_http_are_training_s_in_json_and_arrow_alone_and_in_a_batch(service, trained):
    together = service.predict(rows_of(trained, 300), contributions=True)
    assert np.abs(np.array(together["scores"]) - trained.probability).max() < 1e-6
    shares = np.array(together["contributions"]["rows"])
    assert np.abs(shares.sum(1) - together["logits"]).max() < 1e-4 and shares.shape[1] == len(together["contributions"]["layers"])
    alone = [service.predict([row])["scores"][0] for row in rows_of(trained, 10)]
    assert np.abs(np.array(alone) - trained.probability[:10]).max() < 1e-6
    with ThreadPoolExecutor(8) as pool:  # requests that meet are one batch
        at_once = list(pool.map(lambda row: service.predict([row])["scores"][0], rows_of(trained, 64)))
    assert np.abs(np.array(at_once) - trained.probability[:64]).max() < 1e-6
    status, _, body = service.call("POST", "/v1/predict", arrow(trained.raw), content_type=ARROW, accept=ARROW)
    with pa.ipc.open_stream(body) as stream:
        found = stream.read_all()
    assert status == 200 and found.schema.metadata[b"model_version"].decode() == version_of(service.link)
    assert np.abs(found["score"].to_numpy() - trained.probability).max() < 1e-6


def test_what_is_wrong_has_its_status_and_every_answer_the_model_s_version(service, trained):
    row = rows_of(trained, 1)[0]
    good, long = (json.dumps({"rows": [each]}).encode() for each in (row, row | {"tags": "a|" * 2000}))
    cases = [
        (("POST", "/v1/predict", good), {"authorization": "", "content_type": JSON}, 401, "token"),
        (("POST", "/v1/predict", good), {"authorization": "Bearer no", "content_type": JSON}, 401, "token"),
        (("POST", "/v1/predict", good), {"content_type": "text/csv"}, 415, "content_type"),
        (("POST", "/v1/predict", b" " * 300_000), {"content_type": JSON}, 413, "body_too_large"),
        (("POST", "/v1/predict", json.dumps({"rows": [row] * 301}).encode()), {"content_type": JSON}, 413, "too_many_rows"),
        (("POST", "/v1/predict", long), {"content_type": JSON}, 413, "too_many_values"),
        (("POST", "/v1/predict", b"{"), {"content_type": JSON}, 400, "malformed"),
        (("POST", "/v1/predict", good.replace(b"site", b"side")), {"content_type": JSON}, 422, "missing_field"),
        (("GET", "/v1/predict", b""), {}, 405, "method"),
        (("GET", "/v2", b""), {}, 404, "not_found"),
        (("GET", "/metrics", b""), {"authorization": ""}, 401, "token"),
    ]
    for request, headers, status, code in cases:
        found = service.call(*request, **headers)
        error = json.loads(found[2])
        assert (found[0], error["error"]["code"]) == (status, code), (request[:2], found)
        assert error["model_version"] == found[1]["x-model-version"] == version_of(service.link)
    status, headers, body = service.call("GET", "/healthz", authorization="")
    assert status == 200 and json.loads(body) == {"status": "ok", "model_version": version_of(service.link)}


def test_metrics_count_answers_rows_and_swaps(service, trained):
    old, new = map(version_of, service.exports)
    service.serve(service.exports[0])
    wait_for(service, old)
    before = service.counters()
    service.predict(rows_of(trained, 7))
    service.call("POST", "/v1/predict", b"{", content_type=JSON)
    service.serve(service.exports[1])
    wait_for(service, 'outcome="done"', path="/metrics", text=f" {before['sml_dist_swaps', 'done'] + 1}")
    after = service.counters()
    service.serve(service.exports[0])
    assert (before["sml_dist_model_info", old], after["sml_dist_model_info", new]) == (1, 1) and ("sml_dist_model_info", old) not in after
    assert after["sml_dist_swaps", "refused"] == before["sml_dist_swaps", "refused"]
    for name, counted in (
        (("requests_total", "/v1/predict", "200"), 1),
        (("requests_total", "/v1/predict", "400"), 1),
        (("predict_seconds_count",), 1),
        (("rows_total", old), 7),
        (("batch_rows_count",), 1),
        (("batch_rows_sum",), 7),
    ):
        name = (f"sml_dist_{name[0]}", *name[1:])
        assert after.get(name, 0) - before.get(name, 0) == counted, name


def swapped_under_load(service: Service, trained, requests: int, threads: int = 8) -> Counter:
    """Sends one-row requests, moves the link in the middle, and goes on until the new model answers; (status, version) of each, every
    score held against its model's."""
    rows, expected = rows_of(trained, 50), {}
    for folder in service.exports:
        expected[version_of(folder)] = Model(folder).score(trained.raw.slice(0, 50)).numpy()
    bodies = [json.dumps({"rows": [row]}).encode() for row in rows]

    def send(number: int) -> tuple[int, str]:
        if number == requests // 2:
            service.serve(service.exports[1])
        status, headers, body = service.call("POST", "/v1/predict", bodies[number % 50], content_type=JSON)
        found = json.loads(body)
        if status == 200:
            assert abs(found["scores"][0] - expected[found["model_version"]][number % 50]) < 1e-6
        return status, headers["x-model-version"]

    service.serve(service.exports[0])
    wait_for(service, version_of(service.exports[0]))
    with ThreadPoolExecutor(threads) as pool:
        seen = Counter(pool.map(send, range(requests)))
        while version_of(service.exports[1]) not in {version for _, version in seen}:
            seen.update(pool.map(send, range(requests, 2 * requests)))
    return seen


@pytest.mark.parametrize("requests", [600, pytest.param(10_000, marks=pytest.mark.long)])
def test_a_model_is_exchanged_under_load_and_no_request_fails(service, trained, requests):
    seen = swapped_under_load(service, trained, requests)
    assert {status for status, _ in seen} == {200}, seen
    assert {version for _, version in seen} == {version_of(folder) for folder in service.exports}


def test_an_export_that_is_damaged_is_not_taken(service, trained, tmp_path):
    service.serve(service.exports[0])
    wait_for(service, version_of(service.exports[0]))
    shutil.copytree(service.exports[1], tmp_path / "bad")
    path = next((tmp_path / "bad/tables").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    service.serve(tmp_path / "bad")
    wait_for(service, 'outcome="refused",replica', path="/metrics", text="1.0")
    assert service.predict(rows_of(trained, 1))["model_version"] == version_of(service.exports[0])
    service.serve(service.exports[0])


def wait_for(service: Service, word: str, path: str = "/healthz", text: str = "") -> None:
    """pytest's own limit ends it."""
    while not any(word in line and text in line for line in service.call("GET", path)[2].decode().splitlines()):
        time.sleep(0.1)


@pytest.mark.parametrize("bodies", [300, pytest.param(10_000, marks=pytest.mark.long)])
def test_fuzzed_bodies_give_no_5xx_and_the_service_still_answers(service, trained, bodies):
    draw, statuses = random.Random(1), Counter()
    row = {**rows_of(trained, 1)[0], "price": 3}
    for _ in range(bodies):
        kind, body = fuzzed(draw, row)
        statuses[service.call("POST", "/v1/predict", body, content_type=kind)[0]] += 1
    assert all(200 <= status < 500 for status in statuses), statuses
    assert statuses[200] > bodies // 20 and statuses[400] > bodies // 20 and statuses[422] > bodies // 20, statuses
    assert len(service.predict(rows_of(trained, 5))["scores"]) == 5


def test_the_page_scores_a_row_and_shows_what_each_layer_adds(browser, service, trained, tmp_path):
    row = rows_of(trained, 1)[0]
    expected = service.predict([row], contributions=True)
    page = browser.new_page(viewport={"width": 1200, "height": 820})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(service.address)
    page.locator("#token input").fill(TOKEN)
    page.locator("button.primary").click()
    page.wait_for_selector("#layers tr")
    for name, value in row.items():
        page.locator(f"input[name={name}]").fill(str(value))
    with page.expect_response("**/v1/predict"):
        page.locator("button.primary").click()
    page.get_by_text(f"{100 * expected['scores'][0]:.2f} %").wait_for()
    assert page.locator("#layers tr").count() == len(expected["contributions"]["layers"])
    page.locator("input[name=price]").fill("12x")
    page.locator("button.primary").click()
    page.wait_for_selector("#error:not(:empty)")
    assert "'12x' is not a finite number" in page.inner_text("#error")
    page.screenshot(path=os.environ.get("SML_DIST_SCREENSHOT", str(tmp_path / "page.png")), full_page=True)
    assert not faults and all(url.startswith(service.address) for url in asked)


def test_a_second_service_does_not_take_the_first_one_s_place(service, trained):
    with (
        pytest.raises(InputError, match="this Ray cluster runs Serve already; .* or end it with `serve shutdown`"),
        running({"export": str(service.link)}, "127.0.0.1", free_port()),
    ):
        pass
    assert len(service.predict(rows_of(trained, 1))["scores"]) == 1


def test_a_token_of_the_environment_reaches_replicas_as_its_digest(exported, monkeypatch):
    """Those on another machine do not have that environment, and would ask for no token. A Kubernetes secret often ends in a newline."""
    monkeypatch.setenv("SML_DIST_TOKEN", TOKEN + "\n")
    assert check({"export": str(exported)}, "0.0.0.0", free_port()) == hashlib.sha256(TOKEN.encode()).hexdigest()


def test_what_cannot_be_served_is_refused_before_it_starts(exported, tmp_path, monkeypatch):
    monkeypatch.delenv("SML_DIST_TOKEN", raising=False)
    with pytest.raises(InputError, match="--host 0.0.0.0 is open to other machines: give a token with --token-file"):
        check({"export": str(exported)}, "0.0.0.0", 8000)
    with pytest.raises(InputError, match="is no export"):
        check({"export": str(tmp_path)}, "127.0.0.1", 8000)
    (tmp_path / "empty").write_text("")
    with pytest.raises(InputError, match="token file .*empty is empty"):
        check({"export": str(exported), "token_file": str(tmp_path / "empty")}, "127.0.0.1", 8000)
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(InputError, match="cannot listen .* in use; give another --host or --port"),
    ):
        check({"export": str(exported)}, "127.0.0.1", taken.getsockname()[1])
