import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN
from torch._subclasses import FakeTensorMode

from ismallnet.checkpoints import WeightsError, save_weights
from net import (
    OUTPUTS,
    VARIANTS,
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


def test_authors_checkpoint_gives_the_authors_outputs(authors, golden):
    state = {f"module.{k}": v for k, v in authors.items()}
    model = load_weights(saved({"state_dict": state, "epoch": 3}))
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


def test_initialisation():
    torch.manual_seed(0)
    model = iSmallNet(16)
    conv = model.interior.nodes["4_0"][1].conv1  # 256 -> 256, fan in 2304
    assert conv.weight.std().item() == pytest.approx((2 / 2304) ** 0.5, rel=0.01)
    assert not model.interior_head.bias.any()
    assert (conv.weight.mean().abs() < 1e-3).item()


def test_widths():
    model = iSmallNet(4)
    assert model.interior.nodes["3_1"][0].conv1.weight.shape[:2] == (32, 128)
    assert model.interior.nodes["0_0"][0].ca.fc1.weight.shape[0] == 1  # never less than one channel


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
    model = iSmallNet(2, variant)
    state = model.state_dict()
    assert {key.split(".")[0] for key in state} - {"mean", "std"} == PARTS[variant]
    assert any(".nodes.1_1." in key for key in state) == (variant not in ("unet", "plain"))
    outputs = model(torch.randn(2, 3, 32, 32))
    there = [f"{name}_head" in PARTS[variant] for name in OUTPUTS]
    assert [out is not None for out in outputs] == there and isinstance(outputs, Outputs)
    target = torch.rand(2, 1, 32, 32)
    parts = losses(outputs, (target, target, target))
    each = {n: map_loss(out, target) for n, out in zip(OUTPUTS, outputs) if out is not None}
    assert parts == each
    sum(parts.values()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert load_weights(saved({"state_dict": state})).variant == variant


def test_unet_decoders_see_their_encoder_and_the_deeper_neighbour_alone():
    model = iSmallNet(4, "unet").interior
    assert set(model.nodes) == {*(f"{i}_0" for i in range(5)), "0_4", "1_3", "2_2", "3_1"}
    assert model.nodes["1_3"][0].conv1.in_channels == 8 + 16
    assert model.nodes["0_4"][0].conv1.in_channels == 4 + 8


@pytest.mark.parametrize("width", [8, 16])
def test_the_plain_control_has_as_many_parameters_and_neither_attention_nor_nodes(width):
    networks = [iSmallNet(width, variant) for variant in ("full", "plain")]
    counts = [sum(p.numel() for p in network.parameters()) for network in networks]
    assert counts[1] == pytest.approx(counts[0], rel=0.03)
    layers = {type(layer).__name__ for layer in networks[1].plain.modules()}
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


@pytest.mark.parametrize("size", [(1, 1), (7, 400), (17, 33)])
def test_any_size(size):
    model, x = iSmallNet(2).eval(), torch.randn(1, 3, *size)
    with torch.no_grad():
        outputs, padded = model(x), model(pad_to_multiple(x))
    for out, whole in zip(outputs, padded):
        assert out.shape == (1, 1, *size) and out.isfinite().all()
        assert torch.equal(out, whole[..., : size[0], : size[1]])


def test_padding_reflects_where_it_can_and_repeats_where_it_cannot():
    x = torch.arange(10.0).reshape(1, 1, 1, 10)
    padded = pad_to_multiple(x)
    assert padded.shape == (1, 1, 16, 16)
    assert padded[0, 0, 5].tolist() == [*range(10), 8, 7, 6, 5, 4, 3]  # rows repeat, columns reflect
    x = torch.randn(1, 3, 32, 16)
    assert pad_to_multiple(x) is x


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
    # The IoU loss is a mean over samples: of one that is all target, and one that is none of it.
    logits = torch.tensor([50.0, -50.0]).reshape(2, 1, 1, 1)
    loss = map_loss(logits, torch.ones(2, 1, 1, 1), "authors").item()
    assert loss == pytest.approx(25 + (0 + (1 - 1 / 2)) / 2, abs=1e-4)


def test_normalise():
    model = iSmallNet(4)
    model.mean.copy_(torch.tensor([10.0, 20, 30]))
    model.std.copy_(torch.tensor([1.0, 2, 4]))
    image = torch.tensor([12, 22, 34], dtype=torch.uint8).reshape(1, 3, 1, 1)
    assert model.normalise(image).flatten().tolist() == [2, 1, 1]


def test_width_and_info_of_a_checkpoint():
    path = saved({"state_dict": iSmallNet(4).state_dict(), "info": {"seed": 3}})
    assert load_weights(path, width=4).info == {"seed": 3}
    with pytest.raises(WeightsError, match=r"weights\.pt.*width 4, expected width 8"):
        load_weights(path, width=8)


def test_shipped_weights_are_half_the_size_and_say_what_they_are():
    torch.manual_seed(0)
    model = iSmallNet(4, "plain")
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


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("factor", [2, 0.5])
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
