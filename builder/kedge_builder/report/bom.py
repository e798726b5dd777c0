"""CycloneDX 1.6 ML-BOM of a build: what it was made from, by what, and what was measured.

The same inputs give the same bytes: the serial number is a hash of the content, and no clock is
read. Specification: https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6

from kedge_builder.data.datasets import Sample
from kedge_shared import wire
from kedge_shared.manifest import Manifest

_MODEL, _DATA = "model", "data"


def bom(manifest: Manifest, report: Mapping[str, Any], calibration: Sequence[Sample]) -> bytes:
    """Returns the BOM as JSON, keys sorted.

    Args:
        manifest: Of the build.
        report: Contents of ``report.json``; gives the interval of the drop, if it has one.
        calibration: Images that the quantizer saw. The same bytes twice are listed once.
    """
    document = Bom(components=_parts(manifest, calibration))
    document.metadata.component = _model(manifest)
    for name, version in sorted(manifest.provenance.tools.items()):
        tool = Component(name=name, version=version, type=ComponentType.APPLICATION,
                         bom_ref=f"tool:{name}")  # fmt: skip
        document.metadata.tools.components.add(tool)
    document.register_dependency(document.metadata.component, document.components)
    body = json.loads(JsonV1Dot6(document).output_as_string())
    # The library puts the present time and a random number there.
    del body["metadata"]["timestamp"], body["serialNumber"]
    # The library has no model cards yet (11.12); the schema does.
    body["metadata"]["component"]["modelCard"] = _card(manifest, report)
    digest = wire.encode(body).hex()
    body["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, digest).urn
    return wire.encode_pretty(body)


def _model(manifest: Manifest) -> Component:
    recipe = {f"kedge:recipe:{key}": value for key, value in manifest.provenance.recipe.items()}
    said = {
        "kedge:device_class": manifest.device_class,
        "kedge:runtime": f"{manifest.runtime.name} {manifest.runtime.range}",
        "kedge:verdict": manifest.verdict,
        "kedge:release_counter": str(manifest.release_counter),
        **recipe,
        **{f"kedge:override:{each.budget}": each.reason for each in manifest.overrides},
    }
    return Component(
        name=manifest.model,
        version=manifest.release,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        properties=[Property(name=name, value=value) for name, value in said.items()],
    )


def _parts(manifest: Manifest, calibration: Sequence[Sample]) -> list[Component]:
    made_from = manifest.provenance
    images = dict(sorted(((each.sha256, each.image.name) for each in calibration), reverse=True))
    return [
        _file("weights", "weights", made_from.weights_sha256),
        _file(_DATA, "data", made_from.data_sha256, ComponentType.DATA),
        *(_file(f"file:{each.role}", each.name, each.sha256) for each in manifest.files),
        *(_file(f"calibration:{sha}", name, sha) for sha, name in sorted(images.items())),
    ]


def _file(ref: str, name: str, sha256: str, kind: ComponentType = ComponentType.FILE) -> Component:
    digest = HashType(alg=HashAlgorithm.SHA_256, content=sha256)
    return Component(name=name, type=kind, bom_ref=ref, hashes=[digest])


def _card(manifest: Manifest, report: Mapping[str, Any]) -> dict[str, Any]:
    given, read = manifest.input, manifest.output
    metrics: list[dict[str, Any]] = [
        {"type": each.what, "value": str(each.value), "slice": each.machine}
        for each in manifest.measured
    ]
    if drop := report.get("drop", {}).get("map50_95"):
        bounds = {"lowerBound": str(drop["low"]), "upperBound": str(drop["high"])}
        metrics.append({"type": "map50_95_drop", "value": str(drop["estimate"]),
                        "confidenceInterval": bounds})  # fmt: skip
    return {
        "modelParameters": {
            "task": "object-detection",
            "modelArchitecture": read.head,
            "datasets": [{"ref": _DATA}],
            "inputs": [{"format": f"{given.color} {given.layout} float32 "
                                  f"1x3x{given.height}x{given.width}"}],
            "outputs": [{"format": f"{read.head}: boxes and scores of {', '.join(read.classes)}"}],
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
    }  # fmt: skip
