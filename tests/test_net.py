import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN
from plain import plain
from torch._subclasses import FakeTensorMode

from ismallnet.checkpoints import WeightsError, read_checkpoint, save_weights
from net import (
    OUTPUTS,
    VARIANTS,
    Block,
    Outputs,
    iSmallNet,
    load_weights,
    losses,
    map_loss,
    pad_to_multiple,
    resize,
)

sys.path.insert(0, str(GOLDEN))
import fill


@pytest.fixture(scope="module")
def authors():
    return {name: torch.from_numpy(np.asarray(v)) for name, v in fill.authors_state_dict().items()}


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "forward.npz")


def saved(content, name="weights.pt"):
    torch.save(content, name)
    return name


@pytest.mark.parametrize("names", [["model", "state_dict"], ["state_dict", "model"], ["network"]])
def test_wrapped_checkpoints(names):
    state = iSmallNet(2).state_dict()
    content = {f"module.{k}": v for k, v in state.items()}
    for name in names:
        content = {name: content, "epoch": 3}
    loaded = load_weights(saved(content)).state_dict()
    assert all(torch.equal(loaded[k], v) for k, v in state.items())


@pytest.mark.parametrize("wrapping", ["bare", "state_dict", "model", "module."])
def test_authors_checkpoint_gives_the_authors_outputs(authors, golden, wrapping):
    state = {f"module.{k}": v for k, v in authors.items()} if wrapping == "module." else authors
    content = {wrapping: state, "epoch": 3} if wrapping in ("state_dict", "model") else state
    model = load_weights(saved(content))
    image = torch.from_numpy(fill.image())
    with torch.no_grad():
        single = model(image)
        double = model.double()(image.double())
    for name, a, b in zip(OUTPUTS, single, double):
        assert np.abs(a.numpy() - golden[name]).max() < 1e-3
        assert np.abs(b.numpy() - golden[name]).max() < 1e-9
    assert model.mean.tolist() == pytest.approx([124.55, 118.90, 102.94])


def test_parameter_count():
    assert sum(p.numel() for p in iSmallNet().parameters()) == 9_688_461


def test_fusion_of_our_own_checkpoints_has_a_convolution_for_every_scale():
    torch.manual_seed(0)
    model = iSmallNet(4)
    ours = load_weights(saved({"state_dict": model.state_dict()}))
    lateral = ours.fusion.lateral
    assert not torch.equal(lateral[0].weight, lateral[1].weight)
    for key, value in model.state_dict().items():
        assert torch.equal(value, ours.state_dict()[key]), key


def test_initialisation():
    torch.manual_seed(0)
    model = iSmallNet(16)
    conv = model.interior.nodes["4_0"][1].conv1  # 256 -> 256, fan in 2304
    assert conv.weight.std().item() == pytest.approx((2 / 2304) ** 0.5, rel=0.01)
    assert not model.interior_head.bias.any()
    assert (conv.weight.mean().abs() < 1e-3).item()


@pytest.mark.parametrize("width", [4, 8])
def test_widths(width):
    model = iSmallNet(width).eval()
    assert model.interior.nodes["3_1"][0].conv1.weight.shape[:2] == (8 * width, 32 * width)
    assert model.interior.nodes["0_0"][0].ca.fc1.weight.shape[0] == 1  # never less than one channel
    with torch.no_grad():
        assert [o.shape for o in model(torch.zeros(2, 3, 32, 48))] == [(2, 1, 32, 48)] * 3


# What is there of each variant, by its tensors' names: streams, nested nodes, fusion, heads.
PARTS = {
    "full": {"interior", "boundary", "fusion", "interior_head", "boundary_head", "mask_head"},
    "unet": {"interior", "boundary", "fusion", "interior_head", "boundary_head", "mask_head"},
    "sum": {"interior", "boundary", "interior_head", "boundary_head", "mask_head"},
    "interior": {"interior", "interior_head", "mask_head"},
    "boundary": {"boundary", "boundary_head", "mask_head"},
    "single": {"single", "mask_head"},
    "plain": {"plain", "mask_head"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_have_their_parts_outputs_and_gradients_and_are_told_by_their_names(variant):
    torch.manual_seed(0)
    model = iSmallNet(4, variant)
    state = model.state_dict()
    assert {key.split(".")[0] for key in state} - {"mean", "std"} == PARTS[variant]
    assert any(".nodes.1_1." in key for key in state) == (variant not in ("unet", "plain"))
    outputs = model(torch.randn(2, 3, 32, 32))
    there = [f"{name}_head" in PARTS[variant] for name in OUTPUTS]
    assert [out is not None for out in outputs] == there
    target = torch.rand(2, 1, 32, 32)
    parts = losses(outputs, (target, target, target))
    each = {n: map_loss(out, target) for n, out in zip(OUTPUTS, outputs) if out is not None}
    assert parts == each
    sum(parts.values()).backward()
    unused = [name for name, p in model.named_parameters() if p.grad is None]
    assert not unused
    assert load_weights(saved({"state_dict": state})).variant == variant


def test_unet_decoders_see_their_encoder_and_the_deeper_neighbour_alone():
    model = iSmallNet(4, "unet").interior
    assert set(model.nodes) == {*(f"{i}_0" for i in range(5)), "0_4", "1_3", "2_2", "3_1"}
    assert model.nodes["1_3"][0].conv1.in_channels == 8 + 16
    assert model.nodes["0_4"][0].conv1.in_channels == 4 + 8


@pytest.mark.parametrize("width", [8, 16])
def test_the_plain_control_has_as_many_parameters_and_neither_attention_nor_nodes(width):
    counts = [
        sum(p.numel() for p in iSmallNet(width, variant).parameters()) for variant in ("full", "plain")
    ]
    assert counts[1] == pytest.approx(counts[0], rel=0.03)
    layers = {type(layer).__name__ for layer in iSmallNet(width, "plain").plain.modules()}
    assert layers == {"UNet", "ModuleList", "Sequential", "Conv2d", "BatchNorm2d", "ReLU"}


def test_the_plain_control_by_hand():
    """Of a U-Net whose convolutions only pass one channel on, the feature is the image at full
    resolution plus nothing of the deeper scales."""
    model = iSmallNet(4, "plain").plain.eval()
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.Conv2d):
                layer.weight.zero_()
                layer.weight[0, 0, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = 1
        image = torch.rand(1, 3, 32, 48)
        feature, scales = model(image)
    assert scales == [] and feature.shape == (1, 4, 32, 48)
    unit = (1 + 1e-5) ** -0.5  # each batch norm's, of running variance 1
    assert torch.allclose(feature[0, 0], image[0, 0] * unit**4, atol=1e-6)
    assert not feature[0, 1:].any()


def test_the_fusion_by_sum_is_the_sum():
    torch.manual_seed(0)
    model, x = iSmallNet(4, "sum").eval(), torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        interior, boundary = model.interior(x)[0], model.boundary(x)[0]
        expected = model.mask_head(torch.cat([interior, boundary, interior + boundary], dim=1))
        assert torch.equal(model(x).mask, expected)


def test_no_other_variants():
    with pytest.raises(ValueError, match="found 'double', expected one of full, single"):
        iSmallNet(4, "double")


@pytest.mark.parametrize("size", [(1, 1), (7, 4000), (16, 16), (17, 33), (2, 31)])
def test_any_size(size):
    model = iSmallNet(4).eval()
    with torch.no_grad():
        for out in model(torch.randn(1, 3, *size)):
            assert out.shape == (1, 1, *size) and out.isfinite().all()


def test_padding_reflects_where_it_can_and_repeats_where_it_cannot():
    x = torch.arange(10.0).reshape(1, 1, 1, 10)
    padded = pad_to_multiple(x)
    assert padded.shape == (1, 1, 16, 16)
    assert padded[0, 0, 5].tolist() == [*range(10), 8, 7, 6, 5, 4, 3]  # rows repeat, columns reflect
    assert pad_to_multiple(torch.zeros(1, 1, 1, 7)).shape == (1, 1, 16, 16)
    x = torch.randn(1, 3, 32, 16)
    assert pad_to_multiple(x) is x


def test_forward_pads_and_crops_in_itself():
    torch.manual_seed(0)
    model, x = iSmallNet(4).eval(), torch.randn(1, 3, 30, 41)
    with torch.no_grad():
        direct, padded = model(x).mask, model(pad_to_multiple(x)).mask
    assert torch.equal(direct, padded[..., :30, :41])


def test_block_by_hand():
    """With all convolutions zero and batch norm fresh, a block is ReLU of its identity."""
    block = Block(4, 4).eval()
    for p in block.parameters():
        torch.nn.init.zeros_(p)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(x), torch.relu(x))


def test_the_published_loss_by_hand():
    """Logits 0, so p = 0.5 everywhere: BCE = ln 2; of 4 pixels one is target: intersection 0.5,
    union 2 + 1 - 0.5, so the IoU loss is 1 - 1.5 / 3.5."""
    target = torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 2, 2)
    expected = np.log(2) + 1 - 1.5 / 3.5
    logits = torch.zeros(1, 1, 2, 2)
    assert map_loss(logits, target, "authors").item() == pytest.approx(expected, abs=1e-6)
    parts = losses((logits, None, logits), (target,) * 3, "authors")
    assert list(parts) == ["interior", "mask"]
    assert [part.item() for part in parts.values()] == pytest.approx([expected] * 2, abs=1e-6)


def test_the_published_iou_loss_is_a_mean_over_samples():
    logits = torch.tensor([50.0, -50.0]).reshape(2, 1, 1, 1)  # one sample all target, one all none
    target = torch.tensor([1.0, 1.0]).reshape(2, 1, 1, 1)
    bce = 25.0  # 0 and 50
    expected = bce + (0 + (1 - 1 / 2)) / 2
    assert map_loss(logits, target, "authors").item() == pytest.approx(expected, abs=1e-4)


def test_normalise():
    model = iSmallNet(4)
    model.mean.copy_(torch.tensor([10.0, 20, 30]))
    model.std.copy_(torch.tensor([1.0, 2, 4]))
    image = torch.tensor([12, 22, 34], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert model.normalise(image).flatten().tolist() == [2, 1, 1]


class Payload:
    def __reduce__(self):
        return os.mkdir, ("executed",)


BAD = {
    "payload": (lambda: saved({"state_dict": Payload()}), "not a readable checkpoint"),
    "a list": (lambda: saved([1, 2]), "found a list"),
    "absent": (lambda: "nothere.pt", "no such weights file"),
    "not finite": (lambda: saved(changed("mask_head.3.bias", float("nan"))), "not finite in mask_head"),
    "tensor missing": (lambda: saved(changed("mask_head.3.bias", None)), "mask_head.3.bias is missing"),
}


def changed(key, value):
    state = iSmallNet(4).state_dict()
    state[key] = value if value is None else torch.full_like(state[key], value)
    return {"state_dict": state}


@pytest.mark.parametrize("case", BAD)
def test_bad_checkpoints(case):
    make, message = BAD[case]
    with pytest.raises(WeightsError, match=message) as error:
        load_weights(make())
    assert "weights_only" not in str(error.value)  # no advice on how to run it after all
    assert not os.path.exists("executed")


def test_checkpoint_of_another_width():
    path = saved({"state_dict": iSmallNet(4).state_dict()})
    assert load_weights(path, width=4).width == 4
    with pytest.raises(WeightsError, match="width 4, expected width 8"):
        load_weights(path, width=8)


def test_info_travels():
    path = saved({"state_dict": iSmallNet(4).state_dict(), "info": {"seed": 3}})
    assert load_weights(path).info == {"seed": 3}
    assert read_checkpoint(path)["info"] == {"seed": 3}


def test_shipped_weights_are_half_the_size_and_say_what_they_are():
    torch.manual_seed(0)
    model = iSmallNet(4)
    model.mean.fill_(101.2345)
    info = {"seed": 3, "figures": {"NUAA-SIRST": {"iou": 0.75}}}
    save_weights(model.to(memory_format=torch.channels_last).state_dict(), info, Path("x.safetensors"))
    found = load_weights("x.safetensors")
    assert found.info == info and torch.equal(found.mean, model.mean)  # normalisation is not rounded
    for key, value in model.state_dict().items():
        rounded = value.half().to(value.dtype) if value.ndim > 1 else value
        assert torch.equal(found.state_dict()[key], rounded), key
    full = Path(saved({"state_dict": model.state_dict()})).stat().st_size
    assert Path("x.safetensors").stat().st_size < 0.65 * full


@pytest.mark.parametrize("shape", [(2, 3, 48, 64), (1, 3, 40, 21)])
def test_the_network_is_the_one_that_is_written_down(shape):
    torch.manual_seed(0)
    model = iSmallNet(4).double()
    image = torch.randn(shape, dtype=torch.float64)
    for mode in (model.eval(), model.train()):
        before = {key: value.clone() for key, value in mode.state_dict().items()}
        found = []
        for network in (lambda x: plain(model, x), model):
            model.load_state_dict(before)
            outputs = network(image)
            model.zero_grad()
            sum((out * out).mean() for out in outputs).backward()
            found.append((outputs, [p.grad.clone() for p in model.parameters()]))
        for a, b in zip(*(outputs for outputs, _ in found), strict=True):
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)
        if (
            shape[0] == 1
        ):  # reflected pixels are equal: which of two is the maximum is rounding's choice
            continue
        largest = max(p.grad.abs().max().item() for p in model.parameters())
        for a, b in zip(*(gradients for _, gradients in found), strict=True):
            assert torch.allclose(a, b, rtol=1e-9, atol=1e-11 * largest)


def operations(node, seen: set) -> set[str]:
    """The names of all operations in an autograd graph."""
    if node is None or node in seen:
        return set()
    seen.add(node)
    return {node.name()}.union(*(operations(parent, seen) for parent, _ in node.next_functions))


def test_the_network_has_a_deterministic_backward_pass_on_cuda():
    """Tensors that only pretend to be on a GPU: the operations are those that would run there."""
    x = torch.randn(2, 32, 5, 7)
    assert torch.equal(x.amax((2, 3)), torch.nn.functional.adaptive_max_pool2d(x, 1).flatten(1))
    with FakeTensorMode(), torch.device("cuda"):
        outputs = iSmallNet(2)(torch.empty(1, 3, 32, 32))
        names = operations(sum(out.sum() for out in outputs).grad_fn, set())
    assert "AmaxBackward0" in names and not any("AdaptiveMax" in name for name in names)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_have_names_and_stay_a_tuple(variant):
    outputs = iSmallNet(2, variant).eval()(torch.zeros(1, 3, 16, 20))
    assert isinstance(outputs, Outputs) and isinstance(outputs, tuple)
    interior, boundary, mask = outputs
    assert mask is outputs.mask and mask.shape == (1, 1, 16, 20)
    assert (interior is None) == (variant in ("single", "plain", "boundary"))
    assert (boundary is None) == (variant in ("single", "plain", "interior"))


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("factor", [2, 0.5, 8])
def test_the_gradient_of_a_part_of_a_concatenation_is_the_same_packed(form, factor):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8).contiguous(memory_format=form)
    beside = torch.randn(2, 5, int(8 * factor), int(8 * factor)).contiguous(memory_format=form)
    weight = torch.randn(4, 8, 3, 3).contiguous(memory_format=form)
    gradients, packed = [], []
    for function in (
        resize,
        lambda x, factor: F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=True),
    ):
        leaf = x.clone().requires_grad_()
        y = function(leaf, factor)
        y.register_hook(lambda g: packed.append(g.is_contiguous(memory_format=form)))
        F.conv2d(torch.cat([beside, y], dim=1), weight).square().sum().backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients) and packed == [True, False]
