"""The adapter store on disk: `<root>/<tenant>/<name>/` and `<root>/shared/<name>/`.

A tenant reaches its own adapters and the shared ones, and nothing else. What a folder holds is
known by the digest of its content, so one that is replaced under its name is another adapter.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from aril.schemas import SHARED, ErrorCode, JobError, is_tenant, parse_adapter
from aril.worker.adapters.base_names import may_be_same
from aril.worker.adapters.config import MAX_CONFIG_BYTES, canonical, parse_config, read_fields
from aril.worker.adapters.faults import AdapterFault, quoted
from aril.worker.adapters.folder import CONFIG_FILE, TENSORS_FILE, AdapterFolder, FileVersion
from aril.worker.adapters.own_weights import OwnWeights
from aril.worker.adapters.target_parameters import ParameterShapes
from aril.worker.adapters.tensors import BackboneShapes, read_tensors
from aril.worker.adapters.tokenizer_files import FILES, BackboneTokenizer, TokenizerFindings
from aril.worker.adapters.trained_tokens import TrainedTokens
from aril.worker.adapters.weights import AdapterWeights, Remark

_MAX_DIGESTS: Final = 65_536  # remembered digests, some 30 MB

Owner = Literal["tenant", "shared"]
BaseCheck = Literal["warn", "strict"]
"""What becomes of an adapter that names another base model: served with a warning, or refused."""


@dataclass(frozen=True, slots=True)
class AdapterRef:
    """An adapter found in the store, not read yet."""

    name: str
    owner: Owner
    folder: AdapterFolder
    digest: str
    """SHA-256 of configuration, tensors and tokenizer files, hexadecimal."""


class AdapterStore:
    """Finds and reads adapters for one backbone. Thread-safe; every method touches the disk.

    Expected errors are JobErrors for the tenant; an OSError means that the store itself is ill.
    """

    def __init__(
        self,
        root: Path,
        *,
        base_model: str | None,
        linear_shapes: Mapping[str, tuple[int, int]],
        max_rank: int,
        base_check: BaseCheck = "warn",
        own: OwnWeights | None = None,
        parameters: ParameterShapes | None = None,
        max_expert_values: int = 0,
        tokenizer: BackboneTokenizer | None = None,
        templates: bool = False,
    ) -> None:
        """Serve the folder `root`.

        `base_model` is the backbone's name or path (None: an adapter's base model is not compared),
        `linear_shapes` the (out, in) features, by module path, of its linears that adapters can
        change. `base_check` says what an adapter for a base model of another name gets. Copies of
        the backbone's weights beside A and B are compared with `own` (None: they are refused).
        `parameters` are what of the backbone `target_parameters` can name (None: linears), and
        `max_expert_values` is how many numbers an adapter's LoRA on experts may have. Tokenizer
        files are compared with `tokenizer` (None: not looked at), and `templates` says whether an
        adapter's own chat template is used.
        """
        parameters = parameters or ParameterShapes()
        self._root = root.resolve()
        self._base_model = base_model
        self._base_check = base_check
        self._tokenizer = tokenizer
        self._templates = templates
        self._backbone = BackboneShapes(
            linears=dict(linear_shapes),
            max_rank=max_rank,
            parameters=parameters,
            max_expert_values=max_expert_values,
            own=own,
            max_copy_bytes=0
            if own is None
            else own.max_copy_bytes(linear_shapes, parameters.experts),
        )
        self._max_tensor_bytes = self._backbone.max_file_bytes()
        self._digests: OrderedDict[tuple[FileVersion | None, ...], str] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, tenant: str, name: str) -> AdapterRef:
        """Return the adapter that `tenant` means by `name` or `name@digest`: its own, else shared.

        Files are read to hash them once per version, otherwise only looked at. JobError:
        `unknown_adapter`, or `adapter_invalid` for a folder that cannot be hashed.
        """
        wanted = parse_adapter(name)
        if not is_tenant(tenant):
            raise JobError(ErrorCode.INVALID_JOB, "tenant: not a valid tenant name")
        homes: tuple[tuple[Owner, str], ...] = (("tenant", tenant), ("shared", SHARED))
        try:
            for owner, home in homes:
                folder = AdapterFolder.find(self._root / home, wanted.name)
                if folder is None:
                    continue
                digest = self._digest(folder)
                if wanted.digest in (None, digest):
                    return AdapterRef(wanted.name, owner, folder, digest)
        except AdapterFault as fault:
            raise fault.for_job(wanted.name) from None
        missing = "no adapter of that name and digest" if wanted.digest else "no such adapter"
        raise JobError(ErrorCode.UNKNOWN_ADAPTER, f"adapter {wanted.name}: {missing}")

    def load(self, ref: AdapterRef) -> AdapterWeights:
        """Read and check the whole adapter; JobError `adapter_invalid` names what is wrong.

        The digest returned is of the bytes that were read: it differs from the reference's if the
        folder has changed meanwhile.
        """
        try:
            return self._load(ref)
        except AdapterFault as fault:
            raise fault.for_job(ref.name) from None

    def _load(self, ref: AdapterRef) -> AdapterWeights:
        fields, data, others = self._read(ref.folder)
        config = parse_config(fields)
        warning = None
        if not may_be_same(config.base_model, self._base_model):
            warning = (
                f"it was made for {quoted(config.base_model)},"
                f" this worker serves {quoted(self._base_model)}"
            )
            if self._base_check == "strict":
                raise AdapterFault(warning)
        modules, experts, tokens = read_tensors(data, config, self._backbone)
        findings = self._look_at(others, tokens)
        ranks = [module.rank for module in modules.values()]
        ranks += [stack.rank for stack in experts.values()]
        return AdapterWeights(
            name=ref.name,
            digest=content_digest(fields, data, others),
            rank=max(ranks),
            modules=modules,
            experts=experts,
            tokens=tokens,
            invocation=config.invocation,
            warning=warning,
            template=findings.template if self._templates else None,
            added_tokens=findings.added,
            remarks=self._remarks(findings),
        )

    def _digest(self, folder: AdapterFolder) -> str:
        version = folder.version(FILES)
        with self._lock:
            known = self._digests.get(version)
            if known is not None:
                self._digests.move_to_end(version)
                return known
        digest = content_digest(*self._read(folder))
        with self._lock:
            self._digests[version] = digest
            if len(self._digests) > _MAX_DIGESTS:
                self._digests.popitem(last=False)
        return digest

    def _read(self, folder: AdapterFolder) -> tuple[dict[str, Any], bytes, dict[str, bytes]]:
        fields = read_fields(folder.read(CONFIG_FILE, MAX_CONFIG_BYTES))
        others = {
            file: folder.read(file, limit) for file, limit in FILES.items() if folder.has(file)
        }
        return fields, folder.read(TENSORS_FILE, self._max_tensor_bytes), others

    def _look_at(
        self, files: Mapping[str, bytes], tokens: TrainedTokens | None
    ) -> TokenizerFindings:
        if self._tokenizer is None or not files:
            return TokenizerFindings(None, {})
        tables = None if self._backbone.own is None else self._backbone.own.tables
        own = None if tokens is None else tokens.input
        rows = 0 if tables is None else tables.tokens
        return self._tokenizer.read(files, rows, frozenset(() if own is None else own.ids))

    def _remarks(self, findings: TokenizerFindings) -> tuple[Remark, ...]:
        remarks = []
        if findings.template is not None and not self._templates:
            remarks.append(Remark.TEMPLATE_NOT_USED)
        if findings.added:
            remarks.append(Remark.TOKENS_ADDED)
        return tuple(remarks)


def content_digest(
    fields: Mapping[str, Any], tensors: bytes, others: Mapping[str, bytes] | None = None
) -> str:
    """Return the SHA-256 (hexadecimal) of a configuration and the bytes of a tensors file.

    `others` are the tokenizer's files, by name; without any the digest is that of the two.
    """
    config = canonical(fields)
    content = hashlib.sha256(len(config).to_bytes(8, "little"))
    content.update(config)
    content.update(tensors)
    for file, data in sorted((others or {}).items()):
        for part in (file.encode(), data):
            content.update(hashlib.sha256(part).digest())
    return content.hexdigest()
