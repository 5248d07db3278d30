"""Images drawn from label maps by TorchIO: its counterparts of what `input.synthesis` does to one sample."""

from typing import Any

import torch
import torchio
from torch import Tensor
from torch.nn.functional import avg_pool3d

from benchmarks.measure import cores
from tlseg_jax.input.synthesis import deformation
from tlseg_jax.input.synthesis.ranges import TRAINING


class Drawing:
    """Images of one label map after another, with the ranges of `input.synthesis`.

    TorchIO draws a sample on the CPU, by a process each in its users' loaders: here one after the other with all cores
    to its own threads. It has no atrophy, skull strip or z-score over a whole volume, which are left out.
    """

    def __init__(self, classes: int, factor: int, seed: int):
        """Take the number of classes and how many voxels of the map, an axis, make one of the image."""
        torch.manual_seed(seed)
        torch.set_num_threads(cores())
        self.factor = factor
        knots = 7
        self.space = torchio.Compose(
            [
                torchio.RandomAffine(
                    scales=deformation.STRETCH,
                    degrees=deformation.DEGREES,
                    translation=deformation.SHIFT_MM,
                    label_interpolation="nearest",
                ),
                torchio.RandomElasticDeformation(
                    num_control_points=knots,
                    max_displacement=deformation.REACH * deformation.KNOTS_MM,
                    label_interpolation="nearest",
                ),
                torchio.RandomFlip(axes=(0,)),
            ]
        )
        self.grey = torchio.RandomLabelsToImage(label_key="label", used_labels=list(range(classes)))
        self.look = torchio.Compose(
            [
                torchio.RandomBiasField(coefficients=TRAINING.bias[1]),
                torchio.RandomGamma(log_gamma=TRAINING.gamma),
                torchio.RandomAnisotropy(downsampling=(1, TRAINING.thick_mm[1] / 2), p=TRAINING.thick_share),
                torchio.RandomBlur(std=(0, TRAINING.blur_mm[1])),
                torchio.RandomNoise(std=(0, TRAINING.noise[1])),
                torchio.ZNormalization(),
            ]
        )

    def draw(self, label: Tensor) -> tuple[Tensor, Tensor]:
        """Image and label of one map.

        Args:
          label: (1, i, j, k) whole numbers below the number of classes, at the map's resolution.

        Returns:
          (1, x, y, z) each, at that of the image.
        """
        subject: Any = torchio.Subject(label=torchio.LabelMap(tensor=label))
        subject = self.grey(self.space(subject))
        image = avg_pool3d(subject["image_from_labels"].data.float()[None], self.factor)[0]
        coarse = subject["label"].data[(slice(None), *(slice(None, None, self.factor),) * 3)]
        spacing = torch.diag(torch.tensor([*(2.0,) * 3, 1.0])).numpy()
        made: Any = torchio.Subject(
            image=torchio.ScalarImage(tensor=image, affine=spacing),
            label=torchio.LabelMap(tensor=coarse, affine=spacing),
        )
        done: Any = self.look(made)
        return done["image"].data, done["label"].data
