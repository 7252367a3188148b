"""The least time of a network, by hand."""

import time

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ismallnet import roofline
from ismallnet.roofline import Counter, Work, count, layer_rows, lowest, roof_rows


def test_work_of_operations_by_hand():
    conv, x = nn.Conv2d(3, 8, 3, padding=1, bias=False), torch.randn(2, 3, 16, 20)
    with torch.no_grad(), Counter() as counter:
        y = conv(x)
        z = torch.cat([y, y], 1)
        F.relu(z.view(2, 16, 320))  # the view moves nothing
        torch.randn(4, 5) @ torch.randn(5, 6)
    work = counter.work
    assert work["convolution 3×3"].flop == 2 * (2 * 8 * 16 * 20) * (3 * 3 * 3)
    assert work["convolution 3×3"].bytes == 4 * (2 * 3 * 320 + 8 * 3 * 9 + 2 * 8 * 320)
    assert work["concatenation"].bytes == 4 * 4 * (2 * 8 * 320)
    assert work["element-wise"].bytes == 4 * 2 * (2 * 16 * 320) and work["element-wise"].calls == 1
    assert work["matrix products"].flop == 2 * 4 * 5 * 6


def test_the_seconds_are_medians_over_rounds():
    calls = []

    def forward() -> None:
        calls.append(None)
        torch.ones(10) + 1

    work = count(forward, rounds=3)
    assert len(calls) == 4 and work["element-wise"].calls == 1 and work["element-wise"].seconds > 0


def test_the_roof_is_the_larger_of_arithmetic_and_memory():
    work = Work(flop=400, bytes=100)
    assert lowest(work, rate=100, memory=10) == 10  # 4 s of arithmetic, 10 s of memory
    assert lowest(work, rate=100, memory=10, part=1 / 4) == 4  # 2.5 s of memory


KINDS = {
    "element-wise": Work(flop=1, bytes=60, seconds=9, calls=2),
    "convolution 3×3": Work(flop=800, bytes=80, seconds=10, calls=1),
}


def test_layers_slowest_first_and_their_sum():
    conv, rest, total = layer_rows(KINDS, rate=100, memory=20)
    assert (conv["layers"], rest["layers"], total["layers"]) == (
        "convolution 3×3",
        "element-wise",
        "all",
    )
    assert (conv["arithmetic s"], conv["memory s"], conv["roof s"]) == (8, 4, 8)
    assert (rest["roof s"], rest["measured / roof"]) == (3, 3)
    assert (total["roof s"], total["measured s"], total["measured / roof"]) == (11, 19, 19 / 11)


def test_the_lowest_time_by_precision():
    rates = {"float32": 100, "bf16": 400, "int8": 1600}
    seconds = [row["lowest s"] for row in roof_rows(KINDS, rates, memory=20)]
    # float32: 8 + 3; bf16: half the bytes, max(2, 2) + 1.5; int8: a quarter of the convolution's
    # bytes, max(0.5, 1), and 3 for the rest
    assert seconds == [11, 3.5, 4]
    assert len(roof_rows(KINDS, {"float32": 100}, 20)) == 1


def test_rates_of_this_machine(monkeypatch):
    monkeypatch.setattr(roofline, "SIDE", 64)
    monkeypatch.setattr(roofline, "best", lambda way, clock: way() is None or 0.5)
    rates = roofline.matrix_rates("wall")
    assert rates["float32"] == 2 * 64**3 / 0.5
    monkeypatch.setattr(torch, "_int_mm", lambda a, b: torch.nonsense)
    assert "int8" not in roofline.matrix_rates("wall")


def test_bandwidth_counts_what_is_read_and_written(monkeypatch):
    monkeypatch.setattr(roofline, "LARGE", 2**22)
    monkeypatch.setattr(roofline, "best", lambda way, clock: way() or 2.0)
    assert roofline.bandwidth(2**22, "wall") == 2 * 2**22 / 2
    assert roofline.bandwidth(2**18, "wall") == 2 * 2**18 * 4 / 2  # four copies at once


def test_best_is_the_fastest_call_after_the_first():
    pauses = iter([0, 0.03, 0.01, 0.02])
    assert 0.01 <= roofline.best(lambda: time.sleep(next(pauses)), "wall", rounds=3) < 0.02


@pytest.mark.parametrize(("name", "kind"), [("cat", "concatenation"), ("mul", "element-wise")])
def test_kinds(name, kind):
    assert roofline.kind_of(name, []) == kind
