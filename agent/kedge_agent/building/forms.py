"""What of a build this board runs: the engine, one of its plans, or a plan that it built itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from kedge_agent import facts
from kedge_agent.blobs import BlobStore, VerifiedBlob
from kedge_agent.errors import EngineError, Misfit
from kedge_agent.local_protocol import Form
from kedge_shared.errors import InputError, TrustError
from kedge_shared.manifest import FileRef, FileRole, Manifest
from kedge_shared.planfile import check_plan
from kedge_shared.planfit import against
from kedge_shared.plans import Plan
from kedge_shared.resolver import Fit


@dataclass(frozen=True)
class Loadable:
    """What a runtime is given.

    Attributes:
        runtime: Its name.
        files: Its files.
        plan: What they fit, where they are a plan.
    """

    runtime: str
    files: tuple[FileRef, ...]
    plan: Plan | None = None

    @property
    def memory_mb(self) -> float | None:
        """Memory that it takes, MiB: as the engine itself said, with its weights; or ``None``."""
        if self.plan is None or self.plan.memory_mb is None:
            return None
        return self.plan.memory_mb + sum(each.length for each in self.files) / 2**20


def form_of(manifest: Manifest, found: Fit) -> Form | None:
    """Returns the form that the resolver chose; ``None`` is the engine as it was signed."""
    if found.way == "engine":
        return None
    fallback = manifest.fallback if found.way == "fallback" else None
    runtime = fallback.runtime if fallback is not None else manifest.runtime
    return Form(
        way=found.way, runtime=runtime.name, file=found.file, timing_cache=found.timing_cache
    )


def needed(manifest: Manifest, form: Form | None) -> tuple[FileRef, ...]:
    """Returns the files of a build that this board stands on."""
    if form is None or form.way == "fallback":
        return tuple(each for each in manifest.files if each.role not in {"plan", "timing-cache"})
    wanted = {form.timing_cache, manifest.golden.references}
    wanted |= {manifest.engine_hash} if form.way == "build" else {form.file}
    return tuple(each for each in manifest.files if each.sha256 in wanted)


def loadable(manifest: Manifest, form: Form | None, store: BlobStore) -> Loadable:
    """Returns what is loaded.

    Raises:
        TrustError: The seal of a built plan does not hold.
        StorageError: The seal is missing.
        EngineError: The plan was not built yet.
    """
    if form is None:
        return Loadable(manifest.runtime.name, manifest.engine_files)
    if form.way == "fallback":
        return Loadable(form.runtime, manifest.engine_files)
    if form.way == "build":
        return _built(manifest, form, store)
    plan = next((each for each in manifest.plans if each.file == form.file), None)
    file = next((each for each in manifest.files if each.sha256 == form.file), None)
    if plan is None or file is None:
        raise TrustError("mix", f"the manifest lists no plan {form.file[:12]}")
    return Loadable(form.runtime, (replace(file, role="engine"),), plan)


def _built(manifest: Manifest, form: Form, store: BlobStore) -> Loadable:
    # Its libraries are needed on boards that build alone.
    from kedge_agent.building import seal

    if form.seal is None:
        raise EngineError("the plan was not built yet")
    if store.sealer is None:
        raise TrustError("key", "this board has no seal key: nothing built can be checked")
    data = store.read_verified(form.seal, seal.SEAL_LIMIT_BYTES)
    derived = seal.opened(data, store.sealer, manifest.engine_hash)
    if derived.plan.file != form.file:
        raise TrustError("mix", "the seal is another plan's")
    file = FileRef(
        role="engine", name="built.plan", sha256=derived.plan.file, length=derived.length
    )
    return Loadable(form.runtime, (file,), derived.plan)


def check(
    wanted: Loadable, blobs: Mapping[FileRole, VerifiedBlob], installed: Callable[[], str]
) -> None:
    """Holds a plan against its description and this board, before its runtime sees it.

    A board may have got another TensorRT since the plan was chosen or built.

    Args:
        wanted: What is to be loaded.
        blobs: Its files, verified.
        installed: Tells the version of its runtime on this board; empty is none.

    Raises:
        Misfit: It is for another board, or for what this one was; one line.
        EngineError: It is not what its description says; one line.
    """
    if wanted.plan is None:
        return
    version = installed()
    have = {wanted.runtime: version} if version else {}
    why = against(wanted.plan, facts.gather(installed=have))
    if why:
        raise Misfit(why)
    try:
        check_plan(blobs["engine"].view, wanted.plan)
    except InputError as error:
        raise EngineError(error.what) from None
