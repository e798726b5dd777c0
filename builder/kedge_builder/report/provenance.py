"""SLSA provenance of a build: what it was made from and by what, as an in-toto statement.

The same inputs give the same bytes: no clock is read and no number drawn.
"""

from __future__ import annotations

from collections.abc import Sequence

from kedge_builder.data.datasets import Sample
from kedge_shared import wire
from kedge_shared.ids import sha256_hex
from kedge_shared.manifest import Manifest
from kedge_shared.provenance import (
    BUILD_TYPE,
    BUILDER_ID,
    PROVENANCE_PREDICATE,
    BuildDefinition,
    BuilderInfo,
    Resource,
    RunDetails,
    Slsa,
)
from kedge_shared.statement import Statement, subjects


def provenance(manifest: Manifest, body: bytes, calibration: Sequence[Sample]) -> bytes:
    """Returns the statement as JSON, keys sorted.

    Args:
        manifest: Of the build.
        body: Its bytes as they are written: boards and the statement name it by their hash.
        calibration: Images that the quantizer saw. The same bytes twice are listed once.
    """
    made_from = manifest.provenance
    images = dict(sorted(((each.sha256, each.image.name) for each in calibration), reverse=True))
    predicate = Slsa(
        build_definition=BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters={
                "model": manifest.model, "release": manifest.release,
                "deviceClass": manifest.device_class, "recipe": made_from.recipe,
                "overrides": {each.budget: each.reason for each in manifest.overrides},
            },
            resolved_dependencies=(
                _read("weights", made_from.weights_sha256),
                _read("data", made_from.data_sha256, "names and hashes of images and labels"),
                *(_read(f"calibration/{name}", sha) for sha, name in sorted(images.items())),
            ),
        ),
        run_details=RunDetails(builder=BuilderInfo(id=BUILDER_ID, version=made_from.tools)),
    )  # fmt: skip
    about = [("manifest.json", sha256_hex(body))]
    about += [(each.name, each.sha256) for each in manifest.files]
    return wire.encode_pretty(
        Statement(subject=subjects(about), predicate_type=PROVENANCE_PREDICATE, predicate=predicate)
    )


def _read(name: str, sha256: str, of: str = "") -> Resource:
    return Resource(
        name=name, digest={"sha256": sha256}, annotations={"digestOf": of} if of else {}
    )
