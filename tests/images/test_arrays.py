"""Arrays and tables of numbers: how their shapes are read, and which are refused."""

from pathlib import Path

import numpy as np
import pytest
from conftest import write
from scipy.io import savemat
from streaming import deep, frames

from ismallnet.cli import DataError
from ismallnet.images.arrays import as_frames, read_array

STACK = np.stack([deep(k) for k in range(9)])


@pytest.fixture(autouse=True)
def _first_notes(monkeypatch):
    monkeypatch.setattr("ismallnet.cli._noted", set())


@pytest.mark.parametrize(
    ("shape", "count"),
    [
        ((9, 8), 1),
        ((9, 8, 1), 1),
        ((9, 8, 3), 1),
        ((5, 9, 8), 5),
        ((3, 9, 8), 3),
        ((5, 9, 8, 1), 5),
        ((5, 9, 8, 3), 5),
        ((9, 8, 2), 0),
        ((9, 8, 4), 0),
        ((5, 9, 8, 2), 0),
        ((0, 9, 8), 0),
        ((9,), 0),
    ],
)
def test_shapes_of_arrays(shape, count):
    array = np.zeros(shape, np.float32)
    if count:
        found = as_frames(array, Path("a.npy"))
        assert len(found) == count and found.shape[1:3] == (9, 8)
    else:
        with pytest.raises(DataError, match=r"a.npy: found shape"):
            as_frames(array, Path("a.npy"))
    with pytest.raises(DataError, match=r"a.npy: found complex64"):
        as_frames(array.astype(np.complex64), Path("a.npy"))


def test_matlab_7_3_is_refused_with_what_to_do():
    Path("new.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400))
    with pytest.raises(DataError, match=r"new\.mat: .*MATLAB 7\.3; save it with -v7"):
        read_array(Path("new.mat"))


def test_the_frames_of_matlab_come_last(capsys):
    for channels in (1, 3):  # as MATLAB's VideoReader gives them
        savemat("v.mat", {"frames": np.stack([np.stack([f] * channels, -1) for f in STACK], -1)})
        found = as_frames(read_array(Path("v.mat")), Path("v.mat"))
        assert np.array_equal(found.reshape(9, 40, 48, -1)[..., 0], STACK)
    savemat("m.mat", {"frames": np.moveaxis(STACK, 0, -1)})
    assert np.array_equal(frames("m.mat"), STACK)
    assert "m.mat: (40, 48, 9) is read as 9 frames of 48x40" in capsys.readouterr().err


def test_an_array_that_could_be_read_in_two_ways_is_refused():
    np.save("s.npy", np.moveaxis(STACK, 0, -1))
    (problem,) = frames("s.npy")
    assert "s.npy: found shape (40, 48, 9)" in problem and "numpy.moveaxis" in problem
    np.save("s.npy", np.moveaxis(STACK, 0, -1)[..., None])  # what it says of narrow frames
    assert len(frames("s.npy")) == 40


def test_arrays_of_other_programs():
    np.savez("a.npz", frame=deep(1), times=np.zeros((1, 1)))
    savemat("b.mat", {"img": deep(2), "fps": 25.0, "name": "x"})
    np.save("c.npy", deep(3).astype(">u2"))
    for name, k in (("a.npz", 1), ("b.mat", 2), ("c.npy", 3)):
        (found,) = frames(name)
        assert np.array_equal(found, deep(k)) and found.dtype == np.uint16, name
    np.savez("two.npz", a=deep(), b=deep())
    assert "two.npz" in frames("two.npz")[0] and "save it as .npy" in frames("two.npz")[0]


def test_no_array_executes_anything():
    np.save("o.npy", np.array([{"a": 1}]), allow_pickle=True)
    assert "o.npy: not a readable npy file" in frames("o.npy")[0]


def test_tables_of_numbers():
    rows = [", ".join(f"{value}.5" for value in row) for row in deep()]
    for head in ("", "\ufeff", "# camera, 2026\n"):
        write(Path("t.csv"), head + "\r\n".join(rows))
        (found,) = frames("t.csv")
        assert found.dtype == np.float32 and np.array_equal(found, deep() + np.float32(0.5))


ROW = ",".join(map(str, range(12)))


@pytest.mark.parametrize(
    "text",
    ["", f"{ROW}\n{ROW},\n", f"{ROW}\n1,2\n", f"name,{ROW}\n", ROW.replace(",", ";"), "1,2,3\n4,5,6"],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_other_tables_are_refused_with_what_is_expected(text):
    write(Path("t.csv"), text)
    (problem,) = frames("t.csv")
    assert problem.startswith("t.csv: ") and "rows of pixels" in problem
