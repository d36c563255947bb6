"""Any backbone, with gates at its sites."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from mmengine.model import BaseModule
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn

from fgc_mm.errors import FGCError
from fgc_mm.gates import GroupedGate, build_gate
from fgc_mm.models.record_collector import collectors_of
from fgc_mm.registry import MODELS
from fgc_mm.sites import (
    FoundSites,
    GateHooks,
    GateRecord,
    GateSite,
    search_sites,
    select_sites,
)
from fgc_mm.sites.call import GatedCall, SiteState
from fgc_mm.sites.gate_dict import GateDict
from fgc_mm.sites.gate_hooks import owner_of
from fgc_mm.sites.recompute import join_outputs
from fgc_mm.sites.site_cache import write_metadata
from fgc_mm.sites.site_table import site_table

# not public here: folding the branches of a layer would remove gated layers
NOT_FORWARDED = frozenset({'switch_to_deploy'})
# key of a gate in checkpoints of earlier versions: gates.layer1/0/conv1
OLD_KEY = re.compile(r'(?<![^.])gates\.[^.]*/[^.]*(?=\.)')


@MODELS.register_module()
class GatedBackbone(BaseModule):
    """Any backbone, with a gate at each of its sites.

    The wrapped network is ``self.backbone``; called directly, it is dense.
    Its code and parameter names are not changed, so its checkpoints (plain,
    or of a whole mmpretrain classifier) can be loaded.

    Args:
        backbone: Config of the network to wrap, or the module.
        gate: Config of the gate; one is built per site, with that site's
            ``in_channels`` and ``out_channels``. With ``group=8`` in the
            config of any gate, one decision opens or closes 8 neighbouring
            channels.
        sites: ``'auto'`` for every site, shell patterns on their names, or
            ``dict(type='auto', image_size=..., residual=...)``; see
            :func:`fgc_mm.sites.find_sites`. ``print`` shows the gated sites
            (:meth:`describe`).
        init_cfg: Initialisation of the wrapper; the wrapped network's own
            ``init_cfg`` is applied as well. It changes gates only by loading
            pretrained weights.

    Raises:
        FGCError: No site, a pattern without a match, a network that cannot
            be probed, quantized layers, an invalid group.

    Attributes:
        found: All sites of the network, and the image shape of the search.
        sites: The sites that have a gate.

    Other public attributes are those of the wrapped network.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> net = nn.Sequential(
        ...     nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        >>> gated = GatedBackbone(net, dict(type='fgc_mm.BinaryConcreteGate'))
        >>> features, records = gated.forward_gated(torch.randn(2, 3, 16, 16))
        >>> [(r.site.name, tuple(r.mask.shape)) for r in records]
        [('0', (2, 8))]
    """

    found: FoundSites

    def __init__(
        self,
        backbone: dict | nn.Module,
        gate: dict,
        sites: str | Sequence[str] | Mapping[str, Any] = 'auto',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        built = isinstance(backbone, nn.Module)
        network: Any = backbone if built else MMPRETRAIN_MODELS.build(backbone)
        _refuse_quantized(network)
        self.backbone: nn.Module = network
        found = self._find_sites(network, sites)
        self.gates: nn.ModuleDict = GateDict(
            {site.key: self._build_gate(gate, site) for site in found}
        )
        self.sites = [
            _with_group_sizes(site, self.gates[site.key]) for site in found
        ]
        self._site_hooks = [
            GateHooks(site, self.gates[site.key]) for site in self.sites
        ]
        GateHooks.attach(self._site_hooks, network.get_submodule)
        self._register_load_state_dict_pre_hook(self._rename_plain_keys)
        self._register_load_state_dict_pre_hook(self._refuse_other_gates)
        self._register_state_dict_hook(_write_sites)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The wrapped backbone's outputs, gated."""
        outputs, records = self.forward_gated(x)
        for calls in collectors_of(self):
            calls.append(records)
        return outputs

    def forward_gated(
        self, x: Tensor, keep_activation: bool | None = None
    ) -> tuple[tuple[Tensor, ...], list[GateRecord]]:
        """Outputs, and the records of all sites.

        Args:
            x: (N, 3, H, W).
            keep_activation: Whether the records contain the activation
                before the gate; default: in training only, since it keeps
                all gated maps in memory.

        Returns:
            The wrapped backbone's outputs and one record per site.

        Raises:
            FGCError: A producer did not run, or ran twice; a consumer was
                replaced and may read closed channels; the images have another
                dtype than the weights.
        """
        keep = self.training if keep_activation is None else keep_activation
        call = GatedCall(self._site_hooks, keep)
        return self._run(call, x)

    def _run(
        self, call: GatedCall, x: Tensor
    ) -> tuple[tuple[Tensor, ...], list[GateRecord]]:
        """Run a gated call; afterwards only the graph holds its state."""
        try:
            outputs = call.run(self.backbone, x)
        except (RuntimeError, TypeError) as error:
            check_dtypes(self.backbone, x, error)
            raise
        states = list(call.states.values())
        records = [state.hooks.record(state) for state in states]
        self._check_reached(states)
        returned = outputs
        if call.grad:
            returned, records = join_outputs(call, outputs, records)
            call.finish(outputs)
        return returned, records

    def remove_gates(self, names: Collection[str]) -> None:
        """Remove the gates of the sites with these names.

        Raises:
            FGCError: No site would remain.
        """
        left = [site for site in self.sites if site.name not in names]
        if not left:
            raise FGCError(
                f'the neck and the head do not depend on any site of '
                f'{type(self.backbone).__name__}, so there is nothing to '
                'gate; choose other out_indices, neck or head.'
            )
        for hooks in self._site_hooks:
            if hooks.name in names:
                _detach(hooks, self.backbone)
                del self.gates[hooks.site.key]
        self._site_hooks = [x for x in self._site_hooks if x.name not in names]
        self.sites = left

    def __getattr__(self, name: str) -> Any:
        """A public attribute of the wrapped network.

        Tools of mmpretrain read attributes such as ``out_indices``.
        """
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get('_modules', {}).get('backbone')
            own = name.startswith('_') or name in NOT_FORWARDED
            if own or not hasattr(inner, name):
                raise
            return getattr(inner, name)

    def named_modules(
        self,
        memo: set[nn.Module] | None = None,
        prefix: str = '',
        remove_duplicate: bool = True,
    ) -> Iterator[tuple[str, nn.Module]]:
        """As ``nn.Module.named_modules``, with the gates first.

        mmpretrain's ``vis_cam.py`` assumes that the last norm layer of
        ``model.backbone`` is the last one of the network. Called on a whole
        model, the order is that of registration.
        """
        found = super().named_modules(memo, prefix, remove_duplicate)
        if memo is not None:  # a call of the module that contains this one
            yield from found
            return
        start = f'{prefix}.gates.' if prefix else 'gates.'
        first, *others = found
        yield first
        yield from sorted(
            others, key=lambda pair: not f'{pair[0]}.'.startswith(start)
        )

    def get_layer_depth(
        self, param_name: str, prefix: str = ''
    ) -> tuple[int, int]:
        """Depth for layer-wise learning rates, from the wrapped network.

        Returns:
            The depth and the number of depths. Gates, which are not
            pretrained, are as deep as the head.

        Raises:
            FGCError: The wrapped network has no ``get_layer_depth``.
        """
        inner: Any = self.backbone
        if not hasattr(inner, 'get_layer_depth'):
            raise FGCError(
                f'{type(inner).__name__} has no get_layer_depth, which '
                'layer-wise learning rates need; use another optimizer '
                'constructor.'
            )
        # some networks expect their own names after this prefix
        own = f'{prefix}backbone.'
        if param_name.startswith(own):
            param_name = prefix + param_name.removeprefix(own)
        else:  # a gate, which is not in the network: as the head
            param_name = param_name.removeprefix(prefix)
        return inner.get_layer_depth(param_name, prefix)

    def describe(self) -> str:
        """A table of the sites: layer, channels, consumers, share of MACs.

        ``print(backbone)`` shows it; ``print(backbone.backbone)`` shows the
        layers of the wrapped network.
        """
        return f'{self!r}\n{site_table(self.sites, self.backbone)}'

    def __str__(self) -> str:
        return self.describe()

    def __repr__(self) -> str:
        kinds = dict.fromkeys(type(g).__name__ for g in self.gates.values())
        return (
            f'{type(self).__name__}({type(self.backbone).__name__}, '
            f'{len(self.sites)} sites, {", ".join(kinds)})'
        )

    def _find_sites(
        self,
        backbone: nn.Module,
        sites: str | Sequence[str] | Mapping[str, Any],
    ) -> list[GateSite]:
        self.found = search_sites(backbone, sites)
        chosen = select_sites(self.found.sites, sites)
        names: dict[str, str] = {}
        for site in chosen:
            other = names.setdefault(site.key, site.name)
            if other != site.name:
                raise FGCError(
                    f'the layers {other} and {site.name} would have gates of '
                    f'the same name ({site.key}), since dots become hyphens; '
                    'rename one of these modules.'
                )
        return chosen

    def _build_gate(self, gate: dict, site: GateSite) -> nn.Module:
        return build_gate(gate, site.in_channels, site.channels)

    def _check_reached(self, states: Sequence[SiteState]) -> None:
        for site, state in zip(self.sites, states):
            if state.decision is None:
                raise FGCError(
                    f'{site.producer} did not run in the forward pass, so '
                    'its gate made no decision: '
                    f'{self._reason_not_run(state)}.'
                )
            if site.branch_end is not None and not state.masked_at_end:
                raise FGCError(
                    f'{site.branch_end} did not mask its output: it did not '
                    'run, or another module has replaced it, e.g. by '
                    'sync_bn; leave residual sites out of sites.'
                )
            if torch.compiler.is_compiling():
                continue
            path = state.hooks.replaced_consumer(self.backbone)
            if path is not None:
                raise FGCError(
                    f'{path} may read the closed channels of {site.producer}: '
                    'another module, or one with further layers, has replaced '
                    'it since the network was wrapped; wrap the network that '
                    'will run.'
                )

    def _reason_not_run(self, state: SiteState) -> str:
        """Why a producer did not run, and the remedy."""
        modules = dict(self.backbone.named_modules())
        if state.hooks.is_attached(modules.get(state.hooks.site.producer)):
            return (
                'the executed layers depend on the values of the images; '
                'leave this site out of sites'
            )
        return (
            'another module has replaced it since the network was wrapped; '
            'wrap the network that will run'
        )

    def _rename_plain_keys(
        self, state_dict: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Rename a plain checkpoint's keys to the wrapped backbone's.

        Keys of gates that an earlier version has saved are renamed, too. It
        is a load-state-dict hook, so it is called for ``load_from``,
        ``init_cfg`` and ``load_state_dict``.
        """
        for key in list(state_dict):
            new = OLD_KEY.sub(lambda found: found[0].replace('/', '-'), key)
            state_dict[new] = state_dict.pop(key)
        plain = set(self.backbone.state_dict())
        own = set(self.state_dict())
        for key in [k for k in state_dict if k.startswith(prefix)]:
            name = key[len(prefix) :]
            if name in plain and name not in own:
                state_dict[f'{prefix}backbone.{name}'] = state_dict.pop(key)

    def _refuse_other_gates(
        self, state_dict: dict[str, Any], prefix: str, *_: Any
    ) -> None:
        """Raise an error if a checkpoint has gates of another kind.

        mmengine only warns about weights that do not match. A site without a
        gate in the checkpoint keeps its initial one.
        """
        for site in self.sites:
            start = f'{prefix}gates.{site.key}.'
            if not any(key.startswith(start) for key in state_dict):
                continue
            wrong = _parameter_mismatch(
                self.gates[site.key], start, state_dict
            )
            if wrong:
                raise FGCError(
                    f"the checkpoint's gate of {site.name} does not match "
                    f"this model's ({wrong}), so it has another kind, width "
                    'or group; give the config that it was trained with, or '
                    'load a checkpoint without gates.'
                )


def _parameter_mismatch(
    gate: nn.Module, start: str, given: dict[str, Any]
) -> str:
    """Describe a missing or misshapen parameter of a gate; '' if none."""
    for name, own in gate.named_parameters():
        shape = getattr(given.get(start + name), 'shape', None)
        if shape != own.shape:
            there = 'none' if shape is None else f'{tuple(shape)}'
            return f'{name} of shape {tuple(own.shape)}, there {there}'
    return ''


def _with_group_sizes(site: GateSite, gate: nn.Module) -> GateSite:
    """The site, with the group sizes of its gate."""
    sizes = gate.sizes if isinstance(gate, GroupedGate) else None
    return replace(site, group_sizes=sizes)


def _detach(site_hooks: GateHooks, backbone: nn.Module) -> None:
    """Remove all hooks of a site."""
    for module in backbone.modules():
        for hooks in (module._forward_pre_hooks, module._forward_hooks):
            for key, hook in list(hooks.items()):
                if owner_of(hook) is site_hooks:
                    del hooks[key]


def _write_sites(
    backbone: GatedBackbone, _: dict, __: str, metadata: dict[str, Any]
) -> None:
    """Save the sites in checkpoints, so that resuming needs no search."""
    write_metadata(backbone.found, metadata)


def _refuse_quantized(network: nn.Module) -> None:
    for path, module in network.named_modules():
        if 'quantized' in type(module).__module__.split('.'):
            raise FGCError(
                f'{path or type(network).__name__} is quantized '
                f'({type(module).__name__} of {type(module).__module__}), '
                'but gates need floating-point layers; wrap the network '
                'before it is quantized.'
            )


def as_outputs(outputs: Any) -> Any:
    """A backbone's outputs as a tuple, as necks and heads expect them.

    Args:
        outputs: A tensor, a list or tuple (timm's ``features_only``), or a
            mapping: that of torchvision's ``IntermediateLayerGetter`` has
            one entry per map; of the named outputs of Hugging Face the
            feature maps are used, else the last map, else the pooled token.
    """
    if isinstance(outputs, Tensor):
        return (outputs,)
    if isinstance(outputs, Mapping):
        return _features_of(outputs)
    return tuple(outputs) if type(outputs) is list else outputs


def _features_of(outputs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The features among the named outputs of a network."""
    if outputs.get('feature_maps') is not None:
        return tuple(outputs['feature_maps'])
    last = outputs.get('last_hidden_state')
    if last is None:
        return tuple(outputs.values())
    # tokens (N, L, C) are not a map, and a linear head reads one vector
    pooled = outputs.get('pooler_output') if last.ndim == 3 else None
    return (last if pooled is None else pooled,)


def check_dtypes(network: nn.Module, x: Tensor, error: Exception) -> None:
    """Raise FGCError if a pass may have failed due to the images' dtype."""
    weights = {p.dtype for p in network.parameters() if p.is_floating_point()}
    if not weights or x.dtype in weights:
        return
    names = ' and '.join(sorted(map(str, weights)))
    raise FGCError(
        f'the images are {x.dtype} and the weights of '
        f'{type(network).__name__} {names}, but a layer needs the same dtype '
        f'for both; convert the images, images.to({names}), or the model.'
    ) from error
