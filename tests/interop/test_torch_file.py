"""Files that the real PyTorch wrote, read without it."""

import argparse
import collections
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest

from valle_jax.interop import torch_file

torch = pytest.importorskip("torch")

DTYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype(tmp_path, dtype):
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(getattr(torch, dtype))
    torch.save({"x": tensor}, tmp_path / "x.pt")
    array = torch_file.load(tmp_path / "x.pt")["x"]
    assert array.dtype.name == dtype
    np.testing.assert_array_equal(array.astype(np.float64), tensor.double().numpy())


def test_views_parameters_scalars_and_nesting(tmp_path):
    base = torch.arange(24.0).reshape(2, 3, 4)
    saved = {
        "model": collections.OrderedDict(
            whole=base,
            transposed=base.transpose(0, 2),
            slice=base[1, :, 1:3],
            empty=torch.zeros(0, 3),
            scalar=torch.tensor(2.5),
            parameter=torch.nn.Parameter(base[0]),
            expanded=torch.ones(1, 2).expand(3, 2),
        ),
        "epoch": 3,
        "list": [torch.ones(2), None, "x"],
    }
    torch.save(saved, tmp_path / "x.pt")
    read = torch_file.load(tmp_path / "x.pt")
    assert read["epoch"] == 3 and read["list"][1:] == [None, "x"] and list(read["model"]) == list(saved["model"])
    for name, tensor in saved["model"].items():
        np.testing.assert_array_equal(read["model"][name], tensor.detach().numpy())
        assert read["model"][name].shape == tuple(tensor.shape)


class Payload:
    """Runs a command when it is unpickled by Python's own unpickler."""

    def __reduce__(self):
        return os.system, ("touch pickled",)


@pytest.mark.parametrize("saved", [Payload(), {"model": {"payload": Payload(), "x": torch.ones(2)}}])
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, saved):
    monkeypatch.chdir(tmp_path)
    torch.save(saved, "x.pt")
    with pytest.raises(ValueError, match=r"it names \w+\.system, which is not run"):
        torch_file.load("x.pt")
    assert not pathlib.Path("pickled").exists()


def test_what_training_programs_save_beside_tensors_is_left_out(tmp_path):
    beside = {
        "path": pathlib.PurePosixPath("a/b"),
        "options": argparse.Namespace(steps=3),
        "counts": collections.Counter("aab"),
        "default": collections.defaultdict(int, {1: 2}),
        "queue": collections.deque([1, 2]),
        "set": {1, 2},
        "device": torch.device("cpu"),
        "numpy": np.float64(3),
        "sparse": torch.eye(3).to_sparse(),
    }
    torch.save({"model": {"x": torch.ones(2)}, **beside}, tmp_path / "x.pt")
    read = torch_file.load(tmp_path / "x.pt")
    assert read["model"]["x"].tolist() == [1, 1] and read.keys() == {"model", *beside}
    assert all(isinstance(read[name], torch_file.Opaque) for name in beside)
    assert read["sparse"].name == "torch._utils._rebuild_sparse_tensor"


def test_other_files(tmp_path):
    (tmp_path / "text").write_text("no")
    with pytest.raises(ValueError, match="no zip file"):
        torch_file.load(tmp_path / "text")
    torch.save({"x": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(ValueError, match=r"since 1\.6"):
        torch_file.load(tmp_path / "old.pt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(ValueError, match="not what PyTorch saves"):
        torch_file.load(tmp_path / "other.zip")


def test_damaged_files(tmp_path):
    torch.save({"x": torch.ones(1000)}, tmp_path / "x.pt")
    content = (tmp_path / "x.pt").read_bytes()
    middle = content.index(np.ones(4, np.float32).tobytes())
    changed = content[:middle] + b"?" + content[middle + 1 :]
    for damaged in (content[: len(content) // 2], content[:-3], changed):
        (tmp_path / "y.pt").write_bytes(damaged)
        with pytest.raises(ValueError, match="damaged or cut short"):
            torch_file.load(tmp_path / "y.pt")


def test_a_tensor_out_of_its_storage_is_refused(tmp_path):
    torch.save({"x": torch.ones(2, 2)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in content if name.endswith("data.pkl"))
    shape = pickle.dumps((2, 2), protocol=2)[2:5]
    assert shape in content[name]
    with zipfile.ZipFile(tmp_path / "y.pt", "w") as archive:
        for other, data in content.items():
            archive.writestr(other, data.replace(shape, pickle.dumps((9, 2), protocol=2)[2:5], 1))
    with pytest.raises(ValueError, match="out of its storage"):
        torch_file.load(tmp_path / "y.pt")
