"""Backbones of the MaskFormer, all of timm's building blocks and under timm's parameter names.

Importing this takes seconds, since timm does; whoever needs no backbone should not. Nothing is ever downloaded:
weights are random until ``load_pretrained`` is given some.
"""

from __future__ import annotations

from collections.abc import Mapping

from jaxtyping import Float
from timm.models.resnet import Bottleneck, ResNet
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from torch import Tensor, nn
from torch.nn import functional as F

from model.networks.dino_vit import HEAD_CHANNELS, STRIDE, DinoKeys
from model.networks.maskformer import Backbone, MaskFormerConfig
from model.weights import fit_state_dict

DINO_HEADS = {"dino-vit-b8": 12, "dino-vit-s8": 6}  # of 64 channels each (DINO)
NUM_DINO_BLOCKS = 12
KEY_BLOCKS = (6, 8, 10, 12)  # GWM's released configuration, counted from 1; the first counts as the finest level

SWIN_CHANNELS, SWIN_DEPTHS, SWIN_HEADS, SWIN_WINDOW = 96, (2, 2, 6, 2), (3, 6, 12, 24), 7  # Swin-T
SWIN_DROP_PATH = 0.3  # GWM's released configuration

RESNET50_BLOCKS, RESNET_CHANNELS = (3, 4, 6, 3), (64, 128, 256, 512)


def build_backbone(config: MaskFormerConfig) -> Backbone:
    """Build the backbone that ``config`` names, with random weights."""
    divisor = config.width_divisor
    if config.backbone == "swin-tiny":
        return SwinBackbone(
            channels=SWIN_CHANNELS // divisor, num_heads=tuple(heads // divisor for heads in SWIN_HEADS)
        )
    if config.backbone == "resnet50":
        return ResNetBackbone(
            channels=tuple(width // divisor for width in RESNET_CHANNELS), freeze_batch_norm=config.freeze_batch_norm
        )
    return DinoBackbone(num_heads=DINO_HEADS[config.backbone] // divisor)


class DinoBackbone(Backbone):
    """Attention keys of four blocks of a DINO ViT with 8x8 patches: four levels of one size, at stride 4."""

    size_divisor = STRIDE  # the released code pads to multiples of 32 whatever the backbone

    def __init__(self, *, num_heads: int, head_channels: int = HEAD_CHANNELS) -> None:
        super().__init__()
        channels = num_heads * head_channels
        self.channels = (channels,) * len(KEY_BLOCKS)
        self.extractor = DinoKeys(channels=channels, num_blocks=NUM_DINO_BLOCKS, num_heads=num_heads)
        last = self.extractor.vit.blocks[-1]
        for unused in (last.attn.proj, last.norm2, last.mlp, self.extractor.vit.norm):  # behind the last keys
            unused.requires_grad_(False)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the keys, those of block 6 first; an image of 128x224 gives 31x55."""
        keys = self.extractor(images, KEY_BLOCKS)
        return [keys[block] for block in KEY_BLOCKS]

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load a DINO checkpoint; raise WeightsError if it is another network's."""
        fit_state_dict(self.extractor.vit, _without(state, "head."), source)


class SwinBackbone(Backbone):
    """Swin transformer with a norm behind each of its four stages, whose windows stay 7x7 at any image size."""

    size_divisor = 32

    def __init__(self, *, channels: int, num_heads: tuple[int, ...], depths: tuple[int, ...] = SWIN_DEPTHS) -> None:
        super().__init__()
        self.channels = tuple(channels * 2**stage for stage in range(len(depths)))
        self.swin = SwinTransformer(
            embed_dim=channels,
            depths=depths,
            num_heads=num_heads,
            window_size=SWIN_WINDOW,
            drop_path_rate=SWIN_DROP_PATH,
            num_classes=0,
            strict_img_size=False,
            always_partition=True,  # else a map smaller than the window would need another table of positions
        )
        self.swin.norm = nn.Identity()  # of the classifier; the output norms below stand in its place
        self.output_norms = nn.ModuleList(nn.LayerNorm(width) for width in self.channels)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the stages' outputs at strides 4, 8, 16 and 32."""
        x = self.swin.patch_embed(images)  # (b, h, w, c), as all that follows
        levels = []
        for stage, norm in zip(self.swin.layers, self.output_norms, strict=True):
            x = stage.downsample(x)
            for block in stage.blocks:
                x = _swin_block(block, x)
            levels.append(norm(x).permute(0, 3, 1, 2))
        return levels

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load a classifier's or MoBY's weights, all but its head; raise WeightsError if they are another network's.

        The output norms, which none of these has, stay as they are.
        """
        fit_state_dict(self.swin, _without(state, "head.", "norm."), source)


def _swin_block(block: SwinTransformerBlock, x: Float[Tensor, "b h w c"]) -> Float[Tensor, "b h w c"]:
    """Run one block, padded to whole windows before they are shifted, as the authors of Swin do.

    timm pads after the shift, which puts the image's top rows in one window with its bottom rows, unmasked.
    """
    height, width = x.shape[1:3]
    rows, columns = block.window_size
    padded = F.pad(block.norm1(x), [0, 0, 0, -width % columns, 0, -height % rows])
    x = x + block.drop_path1(block._attn(padded)[:, :height, :width])
    return x + block.drop_path2(block.mlp(block.norm2(x)))


class ResNetBackbone(Backbone):
    """ResNet-50; its batch norms keep the statistics and factors they were loaded with, unless told otherwise."""

    size_divisor = 32

    def __init__(self, *, channels: tuple[int, ...] = RESNET_CHANNELS, freeze_batch_norm: bool = True) -> None:
        super().__init__()
        self.channels = tuple(width * Bottleneck.expansion for width in channels)
        self.freeze_batch_norm = freeze_batch_norm
        # A residual branch whose last factor starts at 0 would stay silent behind a frozen norm.
        self.resnet = ResNet(
            Bottleneck, RESNET50_BLOCKS, num_classes=0, channels=channels, zero_init_last=not freeze_batch_norm
        )
        if freeze_batch_norm:
            for norm in self._batch_norms():
                norm.requires_grad_(False)

    def train(self, mode: bool = True) -> ResNetBackbone:
        """Set the mode; frozen batch norms always stay in evaluation mode."""
        super().train(mode)
        if self.freeze_batch_norm:
            for norm in self._batch_norms():
                norm.eval()
        return self

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """Return the stages' outputs at strides 4, 8, 16 and 32."""
        resnet = self.resnet
        x = resnet.maxpool(resnet.act1(resnet.bn1(resnet.conv1(images))))
        levels = []
        for stage in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
            x = stage(x)
            levels.append(x)
        return levels

    def load_pretrained(self, state: Mapping[str, Tensor], source: str) -> None:
        """Load a classifier's weights, all but its head; raise WeightsError if they are another network's."""
        fit_state_dict(self.resnet, _without(state, "fc."), source)

    def _batch_norms(self) -> list[nn.Module]:
        return [part for part in self.resnet.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def _without(state: Mapping[str, Tensor], *prefixes: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(prefixes)}
