"""How far what makes an image of a label map goes: contrast, bias field, sharpness, noise."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Ranges:
    """What one drawn image may differ in from another; as it stands, in training.

    Attributes:
      t1_share: share of the samples whose grey values are about those of a T1 scan.
      contrast: of such a sample the distances of all grey values from white matter's are multiplied by a factor in this
        range: what grey and white matter differ by is another scanner's first difference.
      jitter: of such a sample each mean moves by so many of its own deviations, as a normal deviate.
      texture: the most deviation within a class, of samples at random.
      air: the brightest background.
      stripped: share of the samples whose head outside the brain is taken away.
      thinned: share of those that keep some of it.
      bias: range of the bias field's strength: its logarithm at coarse points lies between plus and minus this. What is
        left of it after the correction that scans go through is less.
      gamma: deviation of the logarithm of gamma (SynthSeg has 0.4 of all contrasts; half of these are T1's).
      blur_mm: range of the blur's standard deviation along an axis.
      thick_mm: range of the thickness of slices, of the samples that have thick ones.
      thick_axis: along which they are thick; None: any.
      noise: range of the noise's standard deviation, in standard deviations of the whole volume.
    """

    t1_share: float = 0.5
    contrast: tuple[float, float] = (0.5, 1.3)
    jitter: float = 0.5
    texture: float = 0.12
    air: float = 0.05
    stripped: float = 0.6
    thinned: float = 0.15
    bias: tuple[float, float] = (0.0, 0.4)
    gamma: float = 0.3
    blur_mm: tuple[float, float] = (0.0, 1.2)
    thick_mm: tuple[float, float] = (1.0, 6.0)
    thick_share: float = 0.25
    thick_axis: int | None = None
    noise: tuple[float, float] = (0.0, 0.1)


TRAINING = Ranges()
