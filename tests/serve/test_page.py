"""The service's page in a browser, before answers made up here."""

import json
from typing import Any

from sml_dist.serve.application import PAGE, PAGE_POLICY

ADDRESS = "http://page.test/"
NAMES = ["user", "item", "namedItem", "length", "elements", "__proto__"]


def described(name: str, values: list[str], kind: str = "text") -> dict[str, Any]:
    return {"name": name, "kind": kind, "takes": "", "separator": None, "values": values}


MODEL = {"model_version": "v", "name": "m", "model": "dnn", "metrics": {}, "quantize": "none", "layers": ["rest"], "labels": ["label"]}
INPUTS = [*(described(name, [f"drawn {name}"]) for name in NAMES), described("time", ["2026-01-31 07:00"], "time")]
ANSWER = {"model_version": "v", "scores": [0.5], "logits": [0.0], "contributions": {"layers": ["rest"], "rows": [[0.0]]}}


def test_each_box_is_its_column_s_whatever_its_name(browser):
    def answer(route) -> None:
        path = route.request.url.removeprefix(ADDRESS)
        if path == "":
            route.fulfill(body=PAGE.read_text(), content_type="text/html", headers={"content-security-policy": PAGE_POLICY})
        else:
            route.fulfill(json=MODEL | {"inputs": INPUTS} if path == "v1/model" else ANSWER)

    def scored(page, button: str) -> dict[str, str]:
        with page.expect_request("**/v1/predict") as request:
            page.locator(button).click()
        [row] = json.loads(request.value.post_data)["rows"]
        return row

    page = browser.new_page()
    page.route("**/*", answer)
    page.goto(ADDRESS)
    page.wait_for_selector("#layers tr")
    drawn = {each["name"]: each["values"][0] for each in INPUTS}
    boxes = page.locator("#fields input")
    assert [box.input_value() for box in boxes.all()] == [*drawn.values()]
    assert scored(page, "#draw") == drawn
    for box, name in zip(boxes.all(), drawn, strict=True):
        box.fill(f"typed {name}")
    assert scored(page, "button.primary") == {name: f"typed {name}" for name in drawn}
