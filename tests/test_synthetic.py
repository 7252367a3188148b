import numpy as np
import pytest
from conftest import fails, write
from skimage.measure import label

import synthetic
from ismallnet.datasets.find import find_dataset
from ismallnet.evaluation.metrics import local_snr, ring
from ismallnet.evaluation.protocols import evaluate
from synthetic import main, scene


@pytest.fixture(scope="module")
def scenes():
    return [scene(0, i, 128) for i in range(240, 300)]  # of the default set's test list


def test_same_seed_same_bytes(tmp_path):
    for root in ("one", "two"):
        main(["--data-root", root, "--train", "3", "--test", "2", "--seed", "4"])
    main(["--data-root", "three", "--train", "3", "--test", "2", "--seed", "5"])
    one = tmp_path / "one"
    files = [p.relative_to(one) for p in one.glob("**/*") if p.is_file()]
    assert len(files) == 5 + 5 + 2 + 1
    same = [(one / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files]
    assert all(same)
    first = "Synthetic-SIRST/images/000000.png"
    assert (one / first).read_bytes() != (tmp_path / "three" / first).read_bytes()
    data = find_dataset("Synthetic-SIRST", one)
    assert [len(data.lists[k]) for k in ("train", "test")] == [3, 2] and not any(data.problems.values())


def test_targets_are_as_promised(scenes):
    counts, areas, snrs = [], [], []
    for image, mask in scenes:
        labels = label(mask, connectivity=2)
        counts.append(labels.max())
        for k in range(1, labels.max() + 1):
            areas.append(int((labels == k).sum()))
            snrs.append(local_snr(image, labels == k))
    assert min(counts) >= 1 and max(counts) == 4
    assert min(areas) >= 2 and max(areas) <= 80 and np.median(areas) < 30
    assert min(snrs) >= 1.5 and max(snrs) <= 10
    assert min(snrs) < 2.5 and max(snrs) > 9


def test_local_snr_by_hand():
    """A ring of grey 10 and 20 in turn has mean 15 and deviation 5; a target of 40 stands 5 above."""
    image = np.indices((30, 30)).sum(0) % 2 * 10.0 + 10
    mask = np.zeros((30, 30), np.uint8)
    mask[15, 14:16] = 255
    image[15, 14:16] = 40
    assert local_snr(image, mask) == pytest.approx(5, abs=0.01)
    around = ring(mask > 0)
    assert around.sum() == 15 * 16 - 5 * 6 and not around[13:18, 12:18].any()


def test_masks_are_exact(scenes):
    """A perfect prediction scores 1: masks are 0/255, and no two targets touch."""
    pairs = [(mask, mask) for _, mask in scenes]
    assert evaluate(pairs)["iou"] == 1.0
    assert {int(v) for _, mask in scenes for v in np.unique(mask)} == {0, 255}


def test_an_interrupted_set_is_finished(tmp_path, monkeypatch, capsys):
    real = synthetic.scene
    monkeypatch.setattr(synthetic, "scene", lambda *a: real(*a) if a[1] < 2 else 1 / 0)
    argv = ["--train", "3", "--test", "2"]
    with pytest.raises(ZeroDivisionError):
        main(argv)
    monkeypatch.setattr(synthetic, "scene", real)
    main(argv)
    assert len(list((tmp_path / "data/Synthetic-SIRST/images").iterdir())) == 5
    main(argv)
    assert "is there already" in capsys.readouterr().out
    assert "found {'seed': 0" in fails(main, *argv, "--seed", "1", capsys=capsys)


def test_bad_arguments(capsys):
    assert "--size" in fails(main, "--size", "8", capsys=capsys)
    assert "--data-root" in fails(main, "--name", "x", capsys=capsys)


def test_nothing_is_written_among_other_files(tmp_path, capsys):
    own = write(tmp_path / "data/Synthetic-SIRST/images/a.png", b"own")
    assert "data/Synthetic-SIRST: " in fails(main, "--train", "2", capsys=capsys)
    assert own.read_bytes() == b"own" and len(list(own.parent.parent.iterdir())) == 1
