"""The network that is tuned: encoder, feature map, and one factorised readout for each subject."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synbrain.features.encoder import Encoder
from synbrain.features.tuned import FeatureMap
from synbrain.networks.fit.loop import derived_seed

UNITS = 512  # whose weights on all places and channels are written out at a time
START = 0.3  # sd of a readout's first predictions on features of sd 1 or so


class Readout(nn.Module):
    """A unit looks at places of the map through one mask and reads channels there with one set of weights.

    ``r_u = b_u + sum_c w_uc sum_p softmax(a_u)_p f_pc`` (Klindt et al. 2017, with a softmax over places).

    Args:
        n_places: of the map.
        n_channels: of the map.
        n_units: of the subject.
        generator: of the first weights.
    """

    def __init__(self, n_places: int, n_channels: int, n_units: int, generator: torch.Generator) -> None:
        super().__init__()
        self.places = nn.Parameter(torch.zeros(n_units, n_places))
        first = torch.randn(n_units, n_channels, generator=generator)
        self.weights = nn.Parameter(first * (START / n_channels**0.5))
        self.bias = nn.Parameter(torch.zeros(n_units))

    def forward(self, features: Tensor) -> Tensor:
        """(n, n_units) of (n, n_places, n_channels)."""
        n, places, channels = features.shape
        # one product for the whole batch: of thousands of units, a third of the time of one for each image
        flat = features.transpose(0, 1).reshape(places, n * channels)
        seen = (torch.softmax(self.places, dim=1) @ flat).view(len(self.bias), n, channels)
        return torch.einsum("unc,uc->nu", seen, self.weights) + self.bias

    def as_matrix(self) -> Tensor:
        """(n_places * n_channels, n_units), the same map of flattened features, without the bias."""
        mask = torch.softmax(self.places, dim=1)
        return torch.einsum("up,uc->pcu", mask, self.weights).flatten(0, 1)

    def through(self, patterns: Tensor) -> Tensor:
        """``as_matrix() @ patterns`` for (n_units, r) patterns, some units at a time: in little memory."""
        mask = torch.softmax(self.places, dim=1)
        n_units, r = patterns.shape
        out = torch.zeros(mask.shape[1] * self.weights.shape[1], r, device=mask.device)
        for start in range(0, n_units, UNITS):
            some = slice(start, start + UNITS)
            outer = mask[some, :, None] * self.weights[some, None, :]
            out.addmm_(outer.flatten(1).T, patterns[some])
        return out


class TuningNetwork(nn.Module):
    """One batch of images to its loss; the module that processes are synchronised around.

    Args:
        base: the encoder whose weights are trained; ``base.module`` lies within.
        head: its feature map.
        n_units: of each subject.
        loss: "squared" or "poisson".
        seed: of the readouts.
        taught_weight: of the distance to what teachers predict.
    """

    def __init__(
        self, base: Encoder, head: FeatureMap, n_units: Sequence[int], loss: str, seed: int,
        taught_weight: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.taught_weight = taught_weight
        assert base.module is not None
        self.network, self.head, self.loss = base.module, head, loss
        self._tokens, self._normalised = base.in_training or base.network, base.preprocess.normalised
        generator = torch.Generator().manual_seed(derived_seed(seed, 31))
        places = head.side**2
        made = [Readout(places, head.channels, n, generator) for n in n_units]
        self.readouts = nn.ModuleList(made)
        self.readout_of = tuple(made)  # the same, typed

    def train(self, mode: bool = True) -> TuningNetwork:
        """The encoder stays in evaluation mode: its batch statistics are frozen."""
        super().train(mode)
        self.network.eval()
        return self

    def features(self, pixels: Tensor) -> Tensor:
        """(n, places, channels) of (n, 3, size, size) grey levels."""
        there = pixels.to(self.head.mean.device).float()
        return self.head.forward(self._tokens(self._normalised(there), self.head.layers))

    def read(self, pixels: Tensor, subject: int) -> Tensor:
        """(n, n_units) what the subject's readout finds in the map of (n, 3, size, size) grey levels."""
        return self.readout_of[subject].forward(self.features(pixels))

    def predict(self, pixels: Tensor, subject: int) -> Tensor:
        """(n, n_units) in the unit of the targets: z-scores, or rates over the unit's mean rate."""
        return self._in_unit_of_targets(self.read(pixels, subject))

    def forward(
        self, pixels: Tensor, targets: Tensor, weights: Tensor, subject: Tensor, taught: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The loss: the mean over images of the mean error over the units of the image's subject.

        Args:
            pixels: (n, 3, size, size) grey levels.
            targets: (n, most units) of the subject that saw the image, zeros behind its units.
            weights: (n, most units) of these units, mean 1 over them, zeros behind.
            subject: (n,) int64 ascending, who saw each image.
            taught: (n, units of all subjects), what teachers predict that the units would answer; the
                squared distance to it is added for the units of the other subjects.
        """
        features = self.features(pixels)
        n_units = [len(readout.bias) for readout in self.readout_of]
        n_images = torch.bincount(subject, minlength=len(n_units)).tolist()
        of_subject = list(
            zip(features.split(n_images), targets.split(n_images), weights.split(n_images), strict=True)
        )
        told = taught.split(n_units, dim=1) if taught is not None else None
        errors = []  # of each image
        distance = torch.zeros(len(pixels), device=features.device)
        for i, (readout, n) in enumerate(zip(self.readout_of, n_units, strict=True)):
            seen, measured, weight = of_subject[i]
            if told is None:
                if not n_images[i]:
                    continue
                predicted = self._in_unit_of_targets(readout.forward(seen)).float()
            else:
                every = self._in_unit_of_targets(readout.forward(features)).float()
                distance = distance + (every - told[i]).square().sum(dim=1) * (subject != i)
                predicted = every.split(n_images)[i]
            errors.append((self._error(predicted, measured[:, :n]) * weight[:, :n]).mean(dim=1))
        loss = torch.cat(errors).mean()
        if told is None:
            return {"loss": loss}
        others = sum(n_units) - torch.tensor(n_units, device=subject.device)[subject]
        as_taught = (distance / others.clamp_min(1)).mean()
        return {"loss": loss + self.taught_weight * as_taught, "as_taught": as_taught.detach()}

    def _in_unit_of_targets(self, read: Tensor) -> Tensor:
        return as_rates(read) if self.loss == "poisson" else read

    def _error(self, predicted: Tensor, targets: Tensor) -> Tensor:
        if self.loss == "poisson":
            return predicted - targets * torch.log(predicted + 1e-6)
        return (predicted - targets).square()


def as_rates(read: Tensor) -> Tensor:
    """What a readout finds to rates over the unit's mean rate; 0 to 1."""
    return F.softplus(read + 0.5413)  # softplus(.5413) = 1


@torch.no_grad()
def standardise(head: FeatureMap, base: Encoder, batches: Sequence[Tensor]) -> None:
    """Set the head's mean and sd to those of the encoder's layers over places and images, by channel."""
    total = square = torch.zeros(len(head.mean), dtype=torch.float64)
    count = 0
    for pixels in batches:
        normal = base.preprocess.normalised(pixels.float().to(base.device))
        x = head.joined(base.network(normal, head.layers)).flatten(0, 1).double().cpu()
        total, square, count = total + x.sum(0), square + x.square().sum(0), count + len(x)
    mean = total / count
    sd = (square / count - mean.square()).clamp_min(0).sqrt()
    head.mean.copy_(mean)
    head.sd.copy_(torch.where(sd > 1e-4, sd, torch.ones_like(sd)))
