"""A Kubernetes API server on this machine, without nodes: what it stores, no kubelet runs."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

if TYPE_CHECKING:
    from types import TracebackType

PROGRAMS: Final = ("etcd", "kube-apiserver", "kubectl")
CONTROLLERS: Final = "kube-controller-manager"
PATIENCE: Final = 120.0  # seconds


def assets() -> Path | None:
    """Return the folder of a control plane's programs, which envtest's tools set up, if there."""
    named = os.environ.get("KUBEBUILDER_ASSETS")
    folder = Path(named) if named else None
    return folder if folder and all((folder / name).exists() for name in PROGRAMS) else None


def _free_ports(number: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class ApiServer:
    """etcd, an API server and, where it is there, the controllers; on loopback, in one folder."""

    def __init__(self, folder: Path) -> None:
        found = assets()
        assert found is not None
        self._assets = found
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []

    @property
    def has_controllers(self) -> bool:
        """Whether Deployments and Jobs get their pods."""
        return (self._assets / CONTROLLERS).exists()

    def __enter__(self) -> Self:
        """Start all and wait until the server says that it is ready."""
        try:
            self._start_all()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End what was started."""
        self._stop()

    def kubectl(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl as administrator; return all that it printed, fail where it does."""
        done = self._kubectl(*arguments, given=given)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def refusal(self, *arguments: str, given: str | None = None) -> str:
        """Run kubectl and return why the server did not do it."""
        done = self._kubectl(*arguments, given=given)
        assert done.returncode != 0, done.stdout
        return done.stderr

    def _kubectl(self, *arguments: str, given: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._assets / "kubectl", "--kubeconfig", self._folder / "kubeconfig", *arguments],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "HOME": str(self._folder)},
        )

    def _start_all(self) -> None:
        client, peer, secure, other = _free_ports(4)
        token = secrets.token_hex(16)
        (self._folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        (self._folder / "accounts.key").write_bytes(pem)
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": "test",
                    "cluster": {
                        "server": f"https://127.0.0.1:{secure}",
                        "insecure-skip-tls-verify": True,
                    },
                }
            ],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
            "current-context": "test",
        }
        (self._folder / "kubeconfig").write_text(json.dumps(config))
        etcd = f"http://127.0.0.1:{client}"
        self._start(
            "etcd",
            "--data-dir=data",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
        )
        self._start(
            "kube-apiserver",
            f"--etcd-servers={etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={secure}",
            "--cert-dir=certificates",
            "--service-account-issuer=https://127.0.0.1",
            "--service-account-key-file=accounts.key",
            "--service-account-signing-key-file=accounts.key",
            "--token-auth-file=tokens.csv",
            "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.0.0.0/24",
            "--endpoint-reconciler-type=none",
        )
        self._wait("get", "--raw=/readyz")
        if self.has_controllers:
            self._start(
                CONTROLLERS,
                "--kubeconfig=kubeconfig",
                "--leader-elect=false",
                "--bind-address=127.0.0.1",
                f"--secure-port={other}",
                "--cert-dir=certificates",
                "--service-account-private-key-file=accounts.key",
            )
            # Controllers make it in each namespace; pods are let in once it is there.
            self._wait("get", "serviceaccount", "default")

    def _start(self, program: str, *arguments: str) -> None:
        with (self._folder / f"{program}.log").open("wb") as log:
            self._running.append(
                subprocess.Popen(
                    [self._assets / program, *arguments],
                    cwd=self._folder,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )

    def _wait(self, *arguments: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while self._kubectl(*arguments, given=None).returncode != 0:
            assert time.monotonic() < deadline, f"{arguments}: see the logs in {self._folder}"
            assert all(each.poll() is None for each in self._running), self._folder
            time.sleep(0.2)

    def _stop(self) -> None:
        for process in reversed(self._running):
            process.terminate()
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
