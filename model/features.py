"""Feature maps that tell segments apart, for ``model/merging.py``: any map on the same images will do.

``decoder`` needs nothing more than the network, ``colour`` not even that, ``motion`` needs optical flow, and ``dino``,
which GWM's released code merges by, needs DINO's weights.
"""

from __future__ import annotations

from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from model.errors import InputError
from model.losses.motion_models import MotionModelName, fit_motion, motion_model
from model.methods.gwm import IMAGENET_MEAN, IMAGENET_STD, resize_image
from model.types import Segmentation

FeatureName = Literal["decoder", "colour", "motion", "dino"]
FEATURE_NAMES: tuple[FeatureName, ...] = get_args(FeatureName)


@runtime_checkable
class FeatureSource(Protocol):
    """Makes a feature map of a batch of images and their segments."""

    def __call__(
        self,
        images: Float[Tensor, "b 3 H W"],
        segmentation: Segmentation,
        flow: Float[Tensor, "b 2 Hf Wf"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return features; images are RGB in 0..255, flow in pixels of its own grid."""
        ...


def decoder_features(
    images: Float[Tensor, "b 3 H W"], segmentation: Segmentation, flow: Float[Tensor, "b 2 Hf Wf"] | None = None
) -> Float[Tensor, "b c h w"]:
    """Return the features that the network itself offers with its segments."""
    if segmentation.features is None:
        raise InputError("this network offers no features of its own: merge by colour, motion or dino instead")
    return segmentation.features


def colour_features(
    images: Float[Tensor, "b 3 H W"], segmentation: Segmentation, flow: Float[Tensor, "b 2 Hf Wf"] | None = None
) -> Float[Tensor, "b 3 h w"]:
    """Return opponent colours, centred on the image's mean, so that cosines compare hue and lightness.

    Lightness, red-green and yellow-blue: in plain RGB all three channels mostly repeat the lightness.
    """
    height, width = segmentation.probabilities.shape[-2:]
    red, green, blue = (F.interpolate(images.float(), (height, width), mode="area") / 255).unbind(1)
    opponent = torch.stack([(red + green + blue) / 3, red - green, (red + green) / 2 - blue], dim=1)
    return opponent - opponent.mean((2, 3), keepdim=True)


def motion_features(
    images: Float[Tensor, "b 3 H W"],
    segmentation: Segmentation,
    flow: Float[Tensor, "b 2 Hf Wf"] | None = None,
    *,
    name: MotionModelName = "affine",
) -> Float[Tensor, "b c h w"]:
    """Return the parameters of each segment's own motion, laid out by its mask and centred on the whole image's.

    Segments of one object move alike, so their parameters point the same way from those of the scene.
    """
    if flow is None:
        raise InputError("merging by motion needs optical flow: give flow, or merge by decoder, colour or dino")
    model = motion_model(name)
    masks = segmentation.probabilities
    resized = F.interpolate(flow, (masks.shape[-2], masks.shape[-1]), mode="area")
    theta = fit_motion(masks, resized, model).flatten(2)  # (b, k, 2p)
    whole = fit_motion(torch.ones_like(masks[:, :1]), resized, model).flatten(2)
    return torch.einsum("bkhw,bkc->bchw", masks, theta - whole)


class DinoFeatures:
    """Keys of the last block of a DINO ViT, on images of the network's size (GWM's released merging: ViT-S/8).

    image_size: rows and columns; None takes the images' own, as GWM's code does for still images (ViT-B/8).
    keys: a ``model.networks.dino_vit.DinoKeys``; not named in the signature, since timm takes seconds to import.
    """

    def __init__(self, keys: nn.Module, *, image_size: tuple[int, int] | None = (128, 224)) -> None:
        self.keys = keys
        self.image_size = image_size
        self._mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
        self._std = torch.tensor(IMAGENET_STD).view(3, 1, 1)

    @torch.no_grad()
    def __call__(
        self,
        images: Float[Tensor, "b 3 H W"],
        segmentation: Segmentation,
        flow: Float[Tensor, "b 2 Hf Wf"] | None = None,
    ) -> Float[Tensor, "b c h w"]:
        """Return the keys; the images are resized as for the segmentation network."""
        height, width = images.shape[-2:]
        resized = resize_image(images.float(), self.image_size or (height, width))
        normalised = (resized - self._mean.to(resized)) / self._std.to(resized)
        (features,) = self.keys(normalised).values()
        return features


def feature_source(name: str, dino: nn.Module | None = None) -> FeatureSource:
    """Return the source called ``name``; ``dino`` needs the network with its weights.

    Raises InputError for an unknown name, and for dino without a network.
    """
    if name == "dino":
        if dino is None:
            raise InputError("merging by dino needs its weights: give a DINO ViT checkpoint, or merge by decoder")
        return DinoFeatures(dino)
    plain: dict[str, FeatureSource] = {
        "decoder": decoder_features,
        "colour": colour_features,
        "motion": motion_features,
    }
    if name not in plain:
        raise InputError(f"no features {name!r}: expected one of {', '.join(FEATURE_NAMES)}")
    return plain[name]
