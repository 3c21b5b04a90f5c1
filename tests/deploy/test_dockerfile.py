"""deploy/Dockerfile as a linter reads it, and the choice of what goes into the image. tests/cluster builds it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from binaries import hadolint

from deploy.image_packages import chosen, entries

ROOT = Path(__file__).parents[2]
CONSTRAINTS = (ROOT / "constraints.txt").read_text().splitlines(keepends=True)
NEEDED = ["numpy==2.0\n", "ray==2.0\n", "torch==2.0\n", "triton==3.0\n", "Nvidia_nccl-cu13==2.0\n"]


def lint(text: str) -> list[str]:
    """Codes of what hadolint finds."""
    command = [str(hadolint()), "--no-fail", "--format=json", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    return [one["code"] for one in json.loads(done.stdout)]


def test_hadolint_finds_nothing() -> None:
    assert lint((ROOT / "deploy" / "Dockerfile").read_text()) == []


def test_hadolint_would_find_something() -> None:
    assert "DL3002" in lint((ROOT / "deploy" / "Dockerfile").read_text().replace("USER 10001:10001", "USER root"))


@pytest.mark.parametrize("variant", ["cpu", "cuda", "mounted"])
def test_only_cuda_takes_torch_as_the_constraints_name_it(variant: str) -> None:
    names = {name for name, _ in entries(chosen(CONSTRAINTS, [*NEEDED[:3], "triton==3.0\n"], variant))}
    assert names == {"numpy", "ray", *(["torch", "triton"] if variant == "cuda" else [])}


def test_what_is_mounted_can_be_more_than_torch() -> None:
    assert [name for name, _ in entries(chosen(CONSTRAINTS, NEEDED[:3], "mounted", "numpy,pandas"))] == ["ray"]


def test_each_chosen_package_keeps_its_hashes() -> None:
    for name, lines in entries(chosen(CONSTRAINTS, NEEDED[:2], "cpu")):
        assert any("--hash=sha256:" in line for line in lines), name


def test_torch_for_cpus_is_the_same_version_by_its_own_hashes() -> None:
    ((name, lines),) = entries((ROOT / "deploy" / "torch_cpu.txt").read_text().splitlines(keepends=True))
    (pinned,) = (of[0].split()[0] for one, of in entries(CONSTRAINTS) if one == name == "torch")
    assert lines[0].split()[0] == f"{pinned}+cpu", (
        "constraints.txt has another torch: give its hashes of PyTorch's index"
    )
    hashes = [line.strip().removesuffix("\\").strip() for line in lines[1:]]
    assert hashes and all(re.fullmatch("--hash=sha256:[0-9a-f]{64}", one) for one in hashes)
    assert not set(hashes) & {line.strip().removesuffix("\\").strip() for line in CONSTRAINTS}


def test_nothing_is_installed_without_a_hash_and_no_base_without_a_digest() -> None:
    text = (ROOT / "deploy" / "Dockerfile").read_text()
    (base,) = re.findall("^ARG BASE=(.+)$", text, re.MULTILINE)
    assert re.fullmatch(r"[a-z0-9./:-]+@sha256:[0-9a-f]{64}", base)
    assert set(re.findall("^FROM (\\S+)", text, re.MULTILINE)) == {"${BASE}", "packages"}
    for command in re.findall("uv pip install [^;]+", text):
        assert "--require-hashes" in command or command.rstrip().endswith(" ."), command  # or streamrnn itself


def test_a_package_without_a_pin_is_named() -> None:
    with pytest.raises(SystemExit, match=r"does not name left-pad: run `make constraints`"):
        chosen(CONSTRAINTS, ["left-pad==1.0\n"], "cpu")


def test_the_build_sees_what_it_copies() -> None:
    """A path that .dockerignore hides fails only in a real build."""
    shown = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        word
        for line in (ROOT / "deploy" / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    ]
    assert copied
    for word in copied:
        assert (ROOT / word).exists(), word
        assert any(word == one or word.startswith(f"{one}/") for one in shown), f"{word} is hidden by .dockerignore"
