"""Trying whether closed channels can really be skipped."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from fgc_mm.sites.layout import channels_second, mask_input
from fgc_mm.sites.site import GateSite


def tight_sites(
    backbone: nn.Module, sites: Sequence[GateSite], images: Tensor
) -> list[GateSite]:
    """The sites whose closed channels have no influence on the output.

    Half of each site's channels are closed, and what the producers write to
    them is replaced by noise: the outputs must stay the same, bit for bit.
    First all sites at once; only if that fails, one by one.

    Args:
        backbone: In evaluation mode.
        sites: Candidates.
        images: (N, C, H, W), N > 1.
    """
    trials = {site.name: _Trial(site, len(images)) for site in sites}
    _run(backbone, list(trials.values()), images, noise=False)
    fit = [trial for trial in trials.values() if trial.fits()]
    if not _is_tight(backbone, fit, images):
        fit = [t for t in fit if _is_tight(backbone, [t], images)]
    return [trial.site for trial in fit]


class _Trial:
    """A site with fixed masks, and what its layers were seen to do."""

    def __init__(self, site: GateSite, images: int) -> None:
        self.site = site
        generator = torch.Generator().manual_seed(0)
        shape = images, site.channels
        self.mask = torch.rand(shape, generator=generator).round()
        self.mask[:, 0] = 0  # never all open
        self.runs = {site.producer: 0}
        self.runs |= {consumer.path: 0 for consumer in site.consumers}
        self.per_image = True

    def fits(self) -> bool:
        """Whether each layer ran once, on one item per image."""
        return self.per_image and set(self.runs.values()) == {1}

    @contextmanager
    def applied(self, backbone: nn.Module, noise: bool) -> Iterator[None]:
        """Mask the consumers' inputs, and disturb the closed channels."""
        with ExitStack() as stack:
            layer = backbone.get_submodule(self.site.producer)
            hook = layer.register_forward_hook(self._disturb(noise))
            stack.callback(hook.remove)
            for consumer in self.site.consumers:
                layer = backbone.get_submodule(consumer.path)
                hook = layer.register_forward_pre_hook(
                    self._mask(consumer.path, consumer.positions)
                )
                stack.callback(hook.remove)
            yield

    def _disturb(self, noise: bool):  # noqa: ANN202  (a hook)
        def hook(layer: nn.Module, _: tuple, out: Tensor) -> Tensor:
            self.runs[self.site.producer] += 1
            self.per_image &= len(out) == len(self.mask)
            if not noise or not self.per_image:
                return out
            generator = torch.Generator().manual_seed(1)
            wrong = 10 * torch.randn(out.shape, generator=generator)
            mask = self.mask.to(out.device, out.dtype)
            disturbed = channels_second(layer, out + wrong.to(out))
            kept = channels_second(layer, out)
            spatial = [1] * (kept.dim() - 2)
            keep = mask.reshape(*mask.shape, *spatial) > 0
            mixed = torch.where(keep, kept, disturbed)
            return mixed.movedim(1, -1) if mixed.shape != out.shape else mixed

        return hook

    def _mask(self, path: str, positions: tuple[int, ...] | None):  # noqa: ANN202
        places = None if positions is None else torch.tensor(positions)

        def hook(layer: nn.Module, args: tuple) -> tuple | None:
            self.runs[path] += 1
            x = args[0]
            self.per_image &= len(x) == len(self.mask)
            if not self.per_image:
                return None
            mask = self.mask.to(x.device, x.dtype)
            where = places if places is None else places.to(x.device)
            return (mask_input(layer, x, mask, where), *args[1:])

        return hook


def _is_tight(
    backbone: nn.Module, trials: list[_Trial], images: Tensor
) -> bool:
    calm = _run(backbone, trials, images, noise=False)
    noisy = _run(backbone, trials, images, noise=True)
    return all(torch.equal(a, b) for a, b in zip(calm, noisy))


def _run(
    backbone: nn.Module, trials: list[_Trial], images: Tensor, noise: bool
) -> list[Tensor]:
    with ExitStack() as stack:
        for trial in trials:
            stack.enter_context(trial.applied(backbone, noise))
        with torch.no_grad():
            return list(_tensors(backbone(images)))


def _tensors(outputs: object) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (tuple, list)):
        for output in outputs:
            yield from _tensors(output)
