"""The table of all commands."""

from typing import NamedTuple


class Command(NamedTuple):
    """A command of ``fgc-mm``.

    Attributes:
        module: In ``fgc_mm.cli.parsers``: its description and its
            ``add_arguments(parser)``; in ``fgc_mm.cli.commands``: its
            ``main(args)``.
        summary: One line for ``fgc-mm --help``.
        needs_openmmlab: Whether the OpenMMLab packages are imported first.
    """

    module: str
    summary: str
    needs_openmmlab: bool = True


COMMANDS = {
    'train': Command('train', 'train a model'),
    'test': Command('test', 'test a checkpoint'),
    'compare': Command('compare', 'train and test several methods: a table'),
    'demo': Command('demo', 'dense and dynamic ResNet-20 on digits', False),
    'configs': Command('configs', 'list the configs of the package', False),
    'macs': Command('get_macs', 'MACs of a config before it is trained'),
    'plan-budget': Command('plan_budget', "FTWT's ratio for a MACs budget"),
    'analyze': Command('analyze_gates', 'statistics and figures of gates'),
    'sweep': Command('sweep_threshold', 'accuracy at other gate thresholds'),
    'benchmark': Command('benchmark', 'times of dense and dynamic networks'),
    'prune-static': Command('prune_static', 'prune a dense model'),
    'export onnx': Command('onnx', 'masked or gathered model as ONNX'),
    'export torch-export': Command('torch_export', 'masked model as .pt2'),
    'export bundle': Command('bundle', 'dynamic model as one .fgc file'),
    'export compact': Command('compact', 'remove channels never opened'),
    'export keep-ratio': Command(
        'set_keep_ratio', 'checkpoint with a given keep ratio'
    ),
    'publish': Command('publish_model', 'checkpoint without training state'),
    'convert fgc-pr': Command('fgc_pr', 'checkpoint of the published code'),
    'update-results': Command('update_results', 'stored results in documents'),
    'coverage sites': Command('zoo_coverage', "gates on mmpretrain's models"),
    'coverage programs': Command(
        'program_coverage', "mmpretrain's backbones on the runtime"
    ),
}


def find_command(words: list[str]) -> tuple[str, list[str]] | None:
    """The command at the beginning of an argument list, and the arguments."""
    for count in (2, 1):
        name = ' '.join(words[:count])
        if len(words) >= count and name in COMMANDS:
            return name, words[count:]
    return None
