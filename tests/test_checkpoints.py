"""Weights as other programs leave them: read where they are ours, and named where they are not."""

import argparse
import os
import pickle
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ismallnet.checkpoints import WeightsError, read_checkpoint
from net import iSmallNet, load_weights


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return iSmallNet(2).state_dict()


def same(path: str, state: dict) -> bool:
    found = load_weights(path).state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[k], v) for k, v in state.items())


@pytest.mark.parametrize("prefix", ["", "model._orig_mod.", "a.b.net."])
@pytest.mark.parametrize("names", [(), ("network",), ("model", "state_dict")])
def test_neither_wrappings_nor_what_is_before_the_names_matter(state, prefix, names):
    content = {f"{prefix}{key}": value for key, value in state.items()}
    if prefix:
        content["loss.weight"] = torch.ones(3)
    for name in names:
        content = {name: content, "epoch": 9, "callbacks": {"best": {"score": torch.tensor(0.7)}}}
    torch.save(content, "w.ckpt")
    assert same("w.ckpt", state)


def test_checkpoints_of_older_torch_are_read(state):
    torch.save({"net": state}, "old.pt", _use_new_zipfile_serialization=False)
    assert same("old.pt", state)


def test_two_networks_in_one_file_are_not_guessed_between(state):
    both = {f"{name}.{key}": value for key, value in state.items() for name in ("model", "ema")}
    torch.save({"state_dict": both}, "w.pt")
    with pytest.raises(WeightsError, match=r"found the network ema\. and the network model\."):
        load_weights("w.pt")


class Whole(torch.nn.Module):
    pass


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def zipped(name: str, inside: str) -> None:
    with zipfile.ZipFile(name, "w") as file:
        file.writestr(inside, b"weights")


def scripted(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), name)


def cut(name: str) -> None:
    torch.save({"a": torch.zeros(100)}, name)
    Path(name).write_bytes(Path(name).read_bytes()[:300])


def changed(name: str, key: str, value: float | None) -> None:
    tensors = iSmallNet(2, "plain").state_dict()
    tensors[key] = value if value is None else torch.full_like(tensors[key], value)
    torch.save({"state_dict": tensors}, name)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
BAD = {
    "whole.pt": (lambda n: torch.save(Whole(), n), "test_checkpoints.Whole"),
    "args.pt": (lambda n: torch.save({"args": argparse.Namespace()}, n), "argparse.Namespace"),
    "torch.safetensors": (lambda n: torch.save({"state_dict": {}}, n), ""),
    "payload.pt": (lambda n: torch.save({"state_dict": Payload()}, n), ""),
    "list.pt": (lambda n: torch.save([1, 2], n), ""),
    "absent.pt": (lambda n: None, ""),
    "nan.pt": (lambda n: changed(n, "mask_head.3.bias", float("nan")), "mask_head.3.bias"),
    "none.pt": (lambda n: changed(n, "mask_head.3.weight", None), "mask_head.3.weight"),
    "lfs.pt": (lambda n: Path(n).write_bytes(LFS), "git lfs pull"),
    "page.safetensors": (lambda n: Path(n).write_text("\n<html>"), "web page"),
    "empty.pt": (lambda n: Path(n).write_bytes(b""), "empty"),
    "archive.pt": (lambda n: zipped(n, "best.pth"), "unpack"),
    "cut.pt": (cut, "cut off"),
    "script.pt": (scripted, "TorchScript"),
    "x.pdparams": (lambda n: Path(n).write_bytes(pickle.dumps({"a": np.zeros(3)})), ""),
    "text.pt": (lambda n: Path(n).write_text("hello"), "another program"),
    "w.onnx": (lambda n: Path(n).write_bytes(b"\x08\x08\x12\x07pytorch"), "an ONNX file"),
    "other.safetensors": (lambda n: save_file({"conv1.weight": torch.zeros(3)}, n), "conv1.weight"),
    "damaged.safetensors": (lambda n: Path(n).write_bytes(struct.pack("<Q", 10**6) + b"{}"), ""),
    "optimiser.pt": (lambda n: torch.save({"epoch": 3}, n), "no tensors"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_checkpoint_of_ours_is_named_and_never_executed(name):
    make, message = BAD[name]
    make(name)
    with pytest.raises(WeightsError) as error:
        load_weights(name)
    assert message in str(error.value) and str(error.value).startswith(f"{name}: ")
    assert "weights_only" not in str(error.value)  # no advice on how to run it after all
    assert not os.path.exists("executed")


def test_weights_under_another_name_are_refused_with_what_to_type(state):
    torch.save({"netG": state}, "other.pt")
    with pytest.raises(WeightsError, match=r"other.pt.*torch\.save"):
        load_weights("other.pt")


def test_a_checkpoint_with_one_changed_bit_is_refused():
    """torch.load looks at no checksums."""
    values = torch.arange(1000.0)
    torch.save({"state_dict": {"x": values}}, "w.pt")
    raw = bytearray(Path("w.pt").read_bytes())
    raw[raw.index(values.numpy().tobytes()) + 8] ^= 64
    Path("w.pt").write_bytes(raw)
    with pytest.raises(WeightsError, match=r"w.pt.*damaged"):
        read_checkpoint("w.pt")


# --- files that would take much more memory than they have bytes -----------------------------------


def test_no_network_is_made_that_is_larger_than_the_file(state, monkeypatch):
    """A file of 1.9 KB claimed a width of 60,000: one number stood for a tensor."""
    monkeypatch.setattr("net.iSmallNet", lambda *shape: pytest.fail(f"made a network of {shape}"))
    first = [f"{stream}.nodes.0_0.0.conv1.weight" for stream in ("interior", "boundary")]
    torch.save({"state_dict": {first[0]: torch.zeros(1).expand(60000, 3, 3, 3)}}, "wide.pt")
    assert Path("wide.pt").stat().st_size < 4000
    torch.save({key: torch.zeros(()).expand(v.shape) for key, v in state.items()}, "inflated.pt")
    wide = {key: v.clone() for key, v in state.items() if not key.startswith("mask_head")}
    save_file(wide | {key: torch.zeros(6000, 3, 3, 3) for key in first}, "layer.safetensors")
    for name in ("wide.pt", "inflated.pt", "layer.safetensors"):
        with pytest.raises(WeightsError, match=name):
            load_weights(name)


def test_compressed_checkpoints_are_not_unpacked(state):
    """One of 1.1 MB took 1.7 GiB."""
    torch.save({"state_dict": state}, "w.pt")
    with zipfile.ZipFile("w.pt") as plain, zipfile.ZipFile("z.pt", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match=r"z\.pt: found compressed entries"):
        read_checkpoint("z.pt")
