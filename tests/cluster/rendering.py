"""As much of `kubectl kustomize` as the manifests use: resources, components, ConfigMaps of env files, patches, replacements."""

import copy
from pathlib import Path
from typing import Any

import yaml

KEYS = {"apiVersion", "kind", "resources", "components", "configMapGenerator", "generatorOptions", "patches", "replacements"}


def render(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization."""
    return accumulate(folder.resolve(), [])


def accumulate(folder: Path, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Kustomize's order: resources, components (which see what is there), generators, patches, replacements."""
    page = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(page) <= KEYS, f"{folder}: {set(page) - KEYS} is not rendered here"
    for name in page.get("resources", []):
        path = (folder / name).resolve()
        found = found + (accumulate(path, []) if path.is_dir() else list(yaml.safe_load_all(path.read_text())))
    for name in page.get("components", []):
        found = accumulate((folder / name).resolve(), found)
    for maker in page.get("configMapGenerator", []):
        data = dict(line.split("=", 1) for name in maker["envs"] for line in (folder / name).read_text().split())
        meta = {"name": maker["name"], "namespace": maker["namespace"]}
        found = [*found, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}]
    for patch in page.get("patches", []):
        found = patched(found, patch)
    for replacement in page.get("replacements", []):
        (source,) = (one for one in found if one["kind"] == replacement["source"]["kind"])
        for target in replacement["targets"]:
            (one,) = (one for one in found if one["kind"] == target["select"]["kind"])
            for path in target["fieldPaths"]:
                *way, last = path.split(".")
                walk(one, way)[last] = copy.deepcopy(source[replacement["source"]["fieldPath"]])
    return found


def patched(found: list[dict[str, Any]], patch: dict[str, Any]) -> list[dict[str, Any]]:
    what = yaml.safe_load(patch["patch"])
    if isinstance(what, dict):
        assert what["$patch"] == "delete"
        rest = [one for one in found if (one["kind"], one["metadata"]) != (what["kind"], what["metadata"])]
        assert len(rest) == len(found) - 1
        return rest
    found = copy.deepcopy(found)
    (target,) = (one for one in found if one["kind"] == patch["target"]["kind"])
    for change in what:
        *way, last = change["path"].strip("/").split("/")
        place = walk(target, way)
        if change["op"] == "remove":
            del place[int(last)]
        elif isinstance(place, list):
            assert (change["op"], last) == ("add", "-")
            place.append(change["value"])
        else:
            assert change["op"] == "add" or last in place, change["path"]
            place[last] = change["value"]
    return found


def walk(node: Any, way: list[str]) -> Any:
    for name in way:
        node = node[int(name)] if isinstance(node, list) else node[name]
    return node
