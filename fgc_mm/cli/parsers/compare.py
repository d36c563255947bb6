"""Trains and tests several methods, and writes one table.

    fgc-mm compare CONFIG [CONFIG ...] --seeds 0 1 2 --work-dir DIR
    fgc-mm compare --plan configs/studies/NAME.yaml --work-dir DIR

A plan is a file with rows (configs, or variants of a config with options of
their own), seeds, epochs and questions; docs/comparing.md lists its keys. An
argument of the command line replaces the plan's setting for all rows, but not
the setting of a single row.

Every config is trained with every seed by fgc-mm train, and its last
checkpoint is tested by fgc-mm test. Finished runs in DIR are used, and
interrupted runs are continued when the same command is run again. After every
finished run the current table is written to DIR: compare.md, compare.csv,
runs.csv (one line per run), compare.png and compare.svg (error over MACs).
Logs: DIR/runs/METHOD/seedN/run.log.

A CONFIG written as IMPORTANCE:CONFIG is static pruning: the dense model of
--pretrain is pruned to --pruning-ratio by fgc-mm prune-static (importance:
fpgm, group_norm, bn_scale, random) and then trained by that config's recipe:

    fgc-mm compare configs/dense_resnet20_folder.py \\
        configs/fgc_resnet20_folder.py fpgm:configs/dense_resnet20_folder.py \\
        --pretrain configs/dense_resnet20_folder.py --pretrain-epochs 20 \\
        --epochs 100 --seeds 0 1 2 --work-dir work_dirs/compare

Several methods that share a first stage, here one of batch shaping:

    fgc-mm compare configs/bas_resnet20_cifar10_stage2.py \\
        configs/fgc_resnet20_cifar10_stage2.py \\
        --pretrain configs/bas_resnet20_cifar10_stage1.py \\
        --seeds 0 1 2 --work-dir work_dirs/stages

On a Slurm cluster, every run as a job (pip install submitit):

    fgc-mm compare --plan PLAN --work-dir DIR --slurm partition=gpu \\
        gpus_per_node=1 cpus_per_task=8 timeout_min=720

Exit status: 0 all done, 1 a run has failed, 2 bad input, 75 stopped by a
signal (the runs have saved a checkpoint first).
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fgc_mm.cli.arguments import add_cfg_options
from fgc_mm.config_files import config_file, find_config
from fgc_mm.errors import FGCError


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        'configs', nargs='*', metavar='CONFIG', help='or IMPORTANCE:CONFIG'
    )
    parser.add_argument(
        '--plan', type=Path, metavar='YAML',
        help='plan file: what to compare (see docs/comparing.md)',
    )  # fmt: skip
    parser.add_argument('--seeds', type=int, nargs='+', help='default: 0 1 2')
    parser.add_argument(
        '--work-dir',
        type=Path,
        required=True,
        metavar='DIR',
        help='folder of all runs; the same one continues them',
    )
    parser.add_argument(
        '--epochs', type=int, help="of all runs; default: each config's own"
    )
    parser.add_argument(
        '--jobs', type=int, metavar='K',
        help='number of runs at a time; default: one per GPU, or one without '
        'a GPU; with --slurm all',
    )  # fmt: skip
    parser.add_argument(
        '--launcher',
        default='',
        metavar='WORDS',
        help='words in front of every command, as in '
        '--launcher "srun -p PARTITION -n1 --gres=gpu:1"; it assigns the GPU',
    )
    parser.add_argument(
        '--slurm', nargs='*', metavar='NAME=VALUE',
        help='run every run as a Slurm job with these parameters of '
        'submitit: timeout_min, partition, gpus_per_node, cpus_per_task, '
        'mem_gb, account, ... (docs/comparing.md)',
    )  # fmt: skip
    parser.add_argument(
        '--threads', type=int, metavar='T',
        help='threads of each run; default: cores divided by runs at a time, '
        'or cpus_per_task of --slurm',
    )  # fmt: skip
    parser.add_argument(
        '--pretrain', metavar='CONFIG',
        help='config to train first, once per seed; all others start from it '
        '(a dense config, or the first stage of gated ones)',
    )  # fmt: skip
    parser.add_argument(
        '--pretrain-epochs', type=int, metavar='P',
        help="its number of epochs; default: --epochs, or that config's own",
    )  # fmt: skip
    parser.add_argument(
        '--pruning-ratio', type=float,
        help='fraction of the MACs that static pruning removes, and with '
        '--match-macs every method (default: 0.55)',
    )  # fmt: skip
    parser.add_argument(
        '--match-macs', action='store_true',
        help='train every method for --pruning-ratio, by its density, a '
        'planned ratio, or a MACsTargetLoss in place of its L0Loss',
    )  # fmt: skip
    parser.add_argument(
        '--results', type=Path, metavar='DIR',
        help='also store the results of every finished run as '
        'DIR/METHOD/seedN.json; a run whose results are there is not trained '
        'again',
    )  # fmt: skip
    parser.add_argument(
        '--published', type=Path, metavar='CSV',
        help="CSV of published numbers in the table (default: the package's)",
    )  # fmt: skip
    parser.add_argument(
        '--published-dataset', metavar='NAME',
        help='data set of published numbers (default: that in the names of '
        'the configs)',
    )  # fmt: skip
    add_cfg_options(parser, 'as in train.py, for every run')


def check_arguments(args: Namespace) -> None:
    check_rows(args)
    check_numbers(args)
    if args.launcher and args.slurm is not None:
        raise FGCError(
            f'--slurm and --launcher {args.launcher!r} both start the runs; '
            'leave one out.'
        )
    check_files(args)


def check_rows(args: Namespace) -> None:
    """Checks that the rows are given once, and that --pretrain fits them."""
    if bool(args.configs) == (args.plan is not None):
        raise FGCError(
            'compare accepts configs or a --plan, but both are given; leave '
            'one out.'
            if args.configs
            else 'compare has no configs to compare; give some, or a --plan.'
        )
    if args.plan is not None and (args.pretrain or args.pretrain_epochs):
        raise FGCError(
            '--pretrain cannot be combined with --plan, since a plan has '
            'its own setting; set pretrain in the plan.'
        )
    if args.pretrain is None and args.pretrain_epochs is not None:
        raise FGCError(
            f'--pretrain-epochs {args.pretrain_epochs} has nothing to train; '
            'add --pretrain DENSE_CONFIG.'
        )


def check_files(args: Namespace) -> None:
    """Checks that the plan, or every config, is there."""
    if args.plan is not None:
        config_file(args.plan)
    for text in args.configs:
        path = text.partition(':')[2] or text  # IMPORTANCE:CONFIG
        if find_config(text) is None and not path.startswith(':'):
            config_file(path)


def check_numbers(args: Namespace) -> None:
    """Checks that numbers are at least 1, and that --results is a folder."""
    results = args.results
    if results is not None and results.exists() and not results.is_dir():
        raise FGCError(
            f'--results {results} is a file, but results are stored in a '
            'folder; give a folder.'
        )
    for name in ('epochs', 'jobs', 'threads', 'pretrain_epochs'):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise FGCError(
                f'--{name.replace("_", "-")} is {value}; give a whole '
                'number of at least 1.'
            )
