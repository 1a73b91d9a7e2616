"""S3D's blocks against loops over single numbers."""

import itertools

import pytest
import torch

from mmpt.media.s3d_layers import InceptionBlock, SamePool3D, SelfGating, STConv3D, space_to_depth


def test_space_to_depth_puts_offsets_before_colours():
    x = torch.randn(2, 3, 4, 6, 2, generator=torch.Generator().manual_seed(0))
    out = space_to_depth(x)
    assert out.shape == (2, 24, 2, 3, 1)
    for dt, dh, dw, c in itertools.product(range(2), range(2), range(2), range(3)):
        channel = ((dt * 2 + dh) * 2 + dw) * 3 + c
        assert torch.equal(out[:, channel], x[:, c, dt::2, dh::2, dw::2])


@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2))]
)
@pytest.mark.parametrize("size", [(4, 6, 8), (3, 5, 7), (1, 2, 2)])
def test_pool_pads_behind_and_covers_every_place(kernel, stride, size):
    x = torch.rand(1, 2, *size, generator=torch.Generator().manual_seed(1))
    out = SamePool3D(kernel, stride)(x)
    counts = [-(-n // s) for n, s in zip(size, stride, strict=True)]
    assert list(out.shape[2:]) == counts
    for place in itertools.product(*(range(n) for n in counts)):
        window = tuple(
            slice(p * s, p * s + k) for p, s, k in zip(place, stride, kernel, strict=True)
        )
        assert torch.equal(out[(..., *place)], x[(..., *window)].amax(dim=(2, 3, 4)))


def test_separable_convolution_keeps_the_size_and_has_two_kernels():
    block = STConv3D(3, 5, (3, 3, 3), (1, 1, 1), separable=True).eval()
    assert block(torch.rand(1, 3, 2, 4, 4)).shape == (1, 5, 2, 4, 4)
    assert block.conv1.weight.shape == (5, 3, 1, 3, 3)
    assert block.conv2.weight.shape == (5, 5, 3, 1, 1)


@torch.no_grad()
def test_gate_is_one_number_per_channel():
    gating = SelfGating(4)
    x = torch.rand(2, 4, 2, 3, 3, generator=torch.Generator().manual_seed(2))
    means = torch.stack([torch.stack([x[n, c].mean() for c in range(4)]) for n in range(2)])
    gate = 1 / (1 + torch.exp(-(means @ gating.fc.weight.T + gating.fc.bias)))
    for n, c in itertools.product(range(2), range(4)):
        torch.testing.assert_close(gating(x)[n, c], x[n, c] * gate[n, c])


@torch.no_grad()
def test_branches_stand_side_by_side():
    block = InceptionBlock(4, (1, 2, 3, 2, 4, 5), gating=False).eval()
    x = torch.rand(1, 4, 2, 3, 3, generator=torch.Generator().manual_seed(3))
    out = block(x)
    assert out.shape[1] == block.out_channels == 1 + 3 + 4 + 5
    torch.testing.assert_close(out[:, :1], block.conv_b0(x))
    torch.testing.assert_close(out[:, 8:], block.conv_b3_b(block.maxpool_b3(x)))
