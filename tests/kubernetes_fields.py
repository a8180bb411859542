"""The fields that our manifests use, as Kubernetes and KubeRay define them: names, types, what is required, what is
allowed. `python tests/kubernetes_fields.py CRDS SCHEMAS` works the table out, tests/kubernetes_fields.yaml, from

- CRDS: the folder helm-chart/kuberay-operator/crds of KubeRay at a tag, and
- SCHEMAS: the folder kubernetes_validate/kubernetes-json-schema/vX-local-strict of the package kubernetes-validate.

A field that is in no schema ends it. The tests then need neither.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from r2m.pipelines.kubernetes import manifest
from r2m.pipelines.kubernetes_parts import Pods
from r2m.pipelines.rayjob import TEMPLATE, Manifest, attempt_of
from r2m.pipelines.spec import load_pipeline

TABLE = Path(__file__).with_suffix(".yaml")
ROOT = Path(__file__).parents[1]
CLASSES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "integer": (int,), "boolean": (bool,),
    "number": (int, float),
}  # fmt: skip
FIELD = re.compile(r"(?P<types>\w+( or \w+)*)(; needs (?P<needs>[^;]*))?(; one of (?P<allowed>.*))?")


def printed(text: str) -> list[Manifest]:
    """All that a manifest makes: its documents, and the RayJob that a CronJob's pod makes of its template."""
    documents = list(yaml.safe_load_all(text))
    for tree in documents[:]:
        if tree["kind"] == "ConfigMap" and TEMPLATE in tree["data"]:
            owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "job", "uid": "0"}
            template = yaml.safe_load(tree["data"][TEMPLATE])
            documents.append(attempt_of(template, "job-a1", "20261201T0300Z", 1, owner))
    return documents


def mistakes(document: Manifest) -> list[str]:
    """What the table says against it."""
    table = yaml.safe_load(TABLE.read_text())
    found: list[str] = []

    def look(value: Any, path: str) -> None:
        kind, known = home(document["kind"], path)
        parts = FIELD.fullmatch(table[kind].get(known, ""))
        if parts is None:
            found.append(f"{path}: no such field")
            return
        types, needs, allowed = parts["types"].split(" or "), _words(parts["needs"]), _words(parts["allowed"])
        if not any(type(value) in CLASSES[name] for name in types):
            found.append(f"{path} = {value!r}: not a {parts['types']}")
        if allowed and value not in allowed:
            found.append(f"{path} = {value!r}: {allowed} are allowed")
        found.extend(f"{path}.{name}: required" for name in needs if name not in value)
        for key, child in value.items() if isinstance(value, dict) else ():
            own = f"{known}.*" not in table[kind]  # fields, not a mapping with any keys
            look(child, f"{path}.{key if own else '*'}".lstrip("."))
        for child in value if isinstance(value, list) else ():
            look(child, f"{path}[]")

    look(document, "")
    return found


def home(kind: str, path: str) -> tuple[str, str]:
    """Where the table has what it has once: a RayCronJob's template is a RayJob's spec, all its pods are alike."""
    if kind == "RayCronJob" and path.startswith("spec.jobTemplate."):
        kind, path = "RayJob", path.replace("spec.jobTemplate.", "spec.", 1)
    return kind, path.replace("workerGroupSpecs[].template.", "headGroupSpec.template.", 1)


def _words(text: str | None) -> list[str]:
    return text.split(", ") if text else []


def rules(value: Any, schema: Manifest, schemas: Path, path: str = "") -> dict[str, str]:
    """By path, of the fields that `value` has. Raises LookupError for one that is in no schema."""
    schema = resolved_schema(schema, schemas)
    rule = " or ".join(types_of(schema))
    rule += f"; needs {', '.join(schema['required'])}" if schema.get("required") else ""
    rule += f"; one of {', '.join(schema['enum'])}" if schema.get("enum") else ""
    table = {path: rule}
    if isinstance(value, dict):
        for key, child in value.items():
            own = schema.get("properties", {}) or (
                metadata_schema(schemas)["properties"] if path == "metadata" else {}
            )
            below = own.get(key) or schema.get("additionalProperties")
            if not isinstance(below, dict):
                raise LookupError(f"{path}.{key}: in no schema")
            table |= rules(child, below, schemas, f"{path}.{key if key in own else '*'}".lstrip("."))
    for child in value if isinstance(value, list) else ():
        table |= rules(child, schema["items"], schemas, f"{path}[]")
    return table


def types_of(schema: Manifest) -> list[str]:
    if schema.get("x-kubernetes-int-or-string"):
        return ["integer", "string"]
    if "type" not in schema:
        return list(dict.fromkeys(name for each in schema["oneOf"] for name in types_of(each)))
    types = schema["type"]
    return [types] if isinstance(types, str) else [name for name in types if name != "null"]


@cache
def definitions(schemas: Path) -> Manifest:
    return json.loads((schemas / "_definitions.json").read_text())["$defs"]


def metadata_schema(schemas: Path) -> Manifest:  # which a CRD leaves to Kubernetes
    return definitions(schemas)["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"]


def resolved_schema(schema: Manifest, schemas: Path) -> Manifest:
    while "$ref" in schema:
        schema = definitions(schemas)[schema["$ref"].rpartition("/")[2]]
    return schema


def schema_of(document: Manifest, crds: Path, schemas: Path) -> Manifest:
    group, _, version = document["apiVersion"].rpartition("/")
    kind = document["kind"].lower()
    if group == "ray.io":
        crd = yaml.load((crds / f"ray.io_{kind}s.yaml").read_text(), Loader=yaml.CSafeLoader)
        return next(v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version)
    named = "-".join(filter(None, (kind, group.partition(".")[0], version)))
    return json.loads((schemas / f"{named}.json").read_text())


def main(crds: Path, schemas: Path) -> None:
    file = ROOT / "pipelines" / "forum_nightly.yaml"
    pipeline, pods = load_pipeline(file), Pods("image", "claim", worker_pods=1, gpus=1)
    fields: dict[str, dict[str, str]] = {}
    for alpha in (False, True):
        for document in printed(manifest(pipeline, file, [], pods, alpha)):
            table = rules(document, schema_of(document, crds, schemas), schemas)
            for path, rule in table.items():
                kind, known = home(document["kind"], path)
                assert fields.setdefault(kind, {}).setdefault(known, rule) == rule
    print(f"# Made by tests/{Path(__file__).name}: KubeRay 1.7.0, Kubernetes {schemas.name.split('-')[0]}.")
    print(yaml.safe_dump(fields, width=200, sort_keys=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
