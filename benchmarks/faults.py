"""Fault injection: what the tools do in case of faults, as a Markdown table.

    python benchmarks/faults.py [--kills 50] [--out table.md] [--only SIGKILL]

Real runs of ``tools/train.py`` on scikit-learn's digits, on a CPU, are killed,
get a full disk, or damaged files. Exits with 1 if a result is not the expected
one.
"""

import argparse
import os
import pickle
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import fgc_mm.registered  # noqa: F401  (checks the installation)
from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

COUPLING = 'model.gate_losses.2'
OPTIONS = (
    'randomness.seed=3',
    'model.backbone.backbone.base_channels=4',
    'model.head.in_channels=16',
    f'{COUPLING}.num_neighbors=5',
    f'{COUPLING}.warmup_epochs=1',
    f'{COUPLING}.loss_weight=0.003',
    'train_dataloader.batch_size=8',
    'train_dataloader.dataset.indices=80',
    'val_dataloader.dataset.indices=60',
    'train_cfg.max_epochs=4',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.logger.interval=1',
)
NAN = """
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
@HOOKS.register_module()
class SpoilHook(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == 17:
            data_batch['inputs'] = data_batch['inputs'].float() * float('nan')
"""
NAN_CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['fgc_mm', 'spoil'], allow_failed_imports=False)
custom_hooks = [dict(type='SpoilHook')]
"""
Result = tuple[bool, str]


class Bench:
    """A working folder, and an uninterrupted run for comparison."""

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.folder, self.kills, self.seed = folder, kills, seed
        self.must(self.train('whole'))
        self.want = self.result('whole')

    def start(
        self,
        name: str,
        *arguments: str,
        config: str = 'fgc_resnet20_digits.py',
        options: tuple[str, ...] = (),
        before: tuple[str, ...] = (),
    ) -> subprocess.Popen:
        """The process of a training run in a work dir."""
        command = [*before, sys.executable, '-u', ROOT / 'tools/train.py']
        command += [ROOT / 'configs' / config, '--work-dir']
        command += [self.folder / name, *arguments]
        if config == 'fgc_resnet20_digits.py':
            options = OPTIONS + options
        if options:
            command += ['--cfg-options', *options]
        return subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            env={**os.environ, 'PYTHONPATH': f'{ROOT}:{self.folder}'},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def train(self, *arguments: str, **how: object) -> tuple[int, str]:
        """A run to its end: exit code and output."""
        process = self.start(*arguments, **how)
        try:
            text, _ = process.communicate(timeout=300)
        finally:
            process.kill()
        return process.returncode, text

    def must(self, done: tuple[int, str]) -> str:
        """The output of a run that must not fail."""
        code, text = done
        if code != 0:
            raise RuntimeError(f'exit code {code}:\n{text}')
        return text

    def result(self, name: str) -> dict[str, torch.Tensor]:
        """Weights, momentum and banks after the last epoch."""
        saved = read_checkpoint(self.folder / name / 'epoch_4.pth')
        parts = 'state_dict', 'optimizer', 'fgc_memory_banks'
        leaves, _ = tree_flatten_with_path([saved[part] for part in parts])
        return {
            keystr(path): value
            for path, value in leaves
            if isinstance(value, torch.Tensor)
        }

    def differs(self, name: str) -> bool:
        """Whether a run's result differs from the uninterrupted one's."""
        found = self.result(name)
        return found.keys() != self.want.keys() or not all(
            torch.equal(found[key], self.want[key]) for key in found
        )

    def copy(self, name: str) -> Path:
        """A work dir like the uninterrupted run's."""
        copy = self.folder / name
        shutil.copytree(self.folder / 'whole', copy)
        (copy / 'last_checkpoint').write_text(str(copy / 'epoch_4.pth'))
        return copy


def wait_for(process: subprocess.Popen, pattern: str) -> None:
    """Reads a run's output until a line matches."""
    for line in process.stdout:
        if re.search(pattern, line):
            return
    raise RuntimeError(f'the run ended without {pattern}')


def _told(done: tuple[int, str], *parts: str) -> Result:
    """Whether a run ended with one sentence that has all these parts."""
    code, text = done
    lines = re.findall(r'^error: (.*)', text, re.MULTILINE)
    good = (
        code == 2
        and len(lines) == 1
        and 'Traceback' not in text
        and all(part in lines[0] for part in parts)
    )
    said = lines[0] if lines else text.strip().splitlines()[-1]
    return good, f'exit {code}: "{said}"'


def killed(bench: Bench) -> Result:
    """SIGKILL at random moments of whole runs."""
    lost = different = 0
    moments = random.Random(bench.seed)
    for number in range(bench.kills):
        name = f'killed{number}'
        folder = bench.folder / name
        process = bench.start(name)
        epoch, step = moments.randint(1, 4), moments.randint(1, 10)
        wait_for(process, rf'Epoch\(train\) +\[{epoch}\]\[ *{step}/')
        time.sleep(moments.uniform(0, 0.2))  # a step, a save, a validation
        process.kill()
        process.wait()
        process.stdout.close()
        for path in folder.glob('*.pth'):
            try:
                read_checkpoint(path)
            except FGCError:
                lost += 1
        code, text = bench.train(name, '--resume')
        bad = code != 0 or 'Traceback' in text or bench.differs(name)
        different += bad
        where = re.findall(r'resumed epoch: \d, iter: \d+', text) or ['start']
        verdict = 'DIFFERS' if bad else 'equal'
        print(number, where[0], verdict, f'{lost} damaged', flush=True)
        shutil.rmtree(folder)
    said = f'{bench.kills} kills: {lost} damaged checkpoints, {different} '
    return lost == different == 0, said + 'differing runs'


def preempted(bench: Bench) -> Result:
    """SIGTERM in the middle of an epoch, with workers."""
    options = tuple(f'train_dataloader.{x}' for x in (
        'num_workers=2', 'persistent_workers=True'))  # fmt: skip
    process = bench.start('preempted', options=options)
    wait_for(process, r'Epoch\(train\) +\[2\]\[ *4/')
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=300)
    code = process.returncode
    bench.must(bench.train('preempted', '--resume', options=options))
    equal = not bench.differs('preempted')
    told = 'Stopped by SIGTERM' in text and 'Traceback' not in text
    verdict = 'bit-identical' if equal else 'DIFFERENT'
    return equal and told and code == 75, f'exit {code}, resumed: {verdict}'


def torn(bench: Bench) -> Result:
    """The last checkpoint cut in half."""
    folder = bench.copy('torn')
    last = folder / 'epoch_4.pth'
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    code, text = bench.train('torn', '--resume')
    said = re.findall(r'epoch_4.pth cannot be read .* (Resuming .*)', text)
    good = code == 0 and len(said) == 1 and 'Traceback' not in text
    equal = good and not bench.differs('torn')
    verdict = 'bit-identical' if equal else 'DIFFERENT'
    return equal, f'one warning, epoch 3 taken, final weights {verdict}'


def full_disk(bench: Bench) -> Result:
    """A disk of 16 MiB (tmpfs) without room for one more checkpoint."""
    folder = bench.folder / 'full'
    folder.mkdir()
    mount = ['mount', '-t', 'tmpfs', '-o', 'size=16m', 'tmpfs', str(folder)]
    if subprocess.run(mount, check=False).returncode != 0:
        print('no tmpfs can be mounted here: a limit on file sizes instead')
        return _starved(bench, mounted=False)
    try:
        good, said = _starved(bench, mounted=True)
        return good, f'tmpfs filled; {said}'
    finally:
        subprocess.run(['umount', str(folder)], check=True)


def _starved(bench: Bench, mounted: bool) -> Result:
    bench.must(bench.train('full', options=('train_cfg.max_epochs=2',)))
    folder = bench.folder / 'full'
    before = {p.name: p.read_bytes() for p in folder.glob('*.pth')}
    size = (folder / 'epoch_2.pth').stat().st_size
    limit = () if mounted else ('prlimit', f'--fsize={size - 1000}')
    filler = folder / 'filler'
    if mounted:  # half of a checkpoint has room
        filler.write_bytes(bytes(shutil.disk_usage(folder).free - size // 2))
    good, said = _told(
        bench.train('full', '--resume', before=limit),
        'epoch_3.pth cannot be saved',
    )
    whole = before == {p.name: p.read_bytes() for p in folder.glob('*.pth')}
    left = list(folder.glob('.*.part'))
    filler.unlink(missing_ok=True)
    bench.must(bench.train('full', '--resume'))
    equal = whole and not left and not bench.differs('full')
    verdict = 'bit-identical' if equal else 'DIFFERENT'
    return good and equal, f'{said}; old ones whole, resumed: {verdict}'


def spoilt(bench: Bench) -> Result:
    """nan in the images of one step."""
    base = ROOT / 'configs' / 'dense_resnet20_digits.py'
    config = bench.folder / 'nan.py'
    config.write_text(NAN_CONFIG.format(base=str(base)))
    (bench.folder / 'spoil.py').write_text(NAN)
    done = bench.train('nan', config=str(config))
    return _told(done, 'is nan at epoch 1, iteration 18')


def corrupted_image(bench: Bench) -> Result:
    """A file of a folder data set that is no image."""
    for split in ('train', 'test'):
        for label in ('cat', 'dog'):
            folder = bench.folder / 'images' / split / label
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = np.full((32, 32, 3), 9 * number, np.uint8)
                cv2.imwrite(str(folder / f'{number}.png'), pixels)
    (bench.folder / 'images/train/cat/3.png').write_bytes(b'no image')
    return _told(_train_folder(bench, 'images'), 'train/cat/3.png')


def _train_folder(bench: Bench, root: str) -> tuple[int, str]:
    options = ['model.head.num_classes=2']
    for name in ('train', 'val', 'test'):
        loader = f'{name}_dataloader'
        options.append(f'{loader}.dataset.data_root={bench.folder / root}')
        options += [f'{loader}.batch_size=8', f'{loader}.num_workers=1']
    return bench.train(
        root, config='dense_resnet20_folder.py', options=tuple(options)
    )


def wrong_root(bench: Bench) -> Result:
    """A data root that is not there."""
    return _told(_train_folder(bench, 'nowhere'), str(bench.folder))


def two_jobs(bench: Bench) -> Result:
    """A second run in a work dir that is in use."""
    process = bench.start('shared')
    wait_for(process, r'Epoch\(train\) +\[1\]')
    process.send_signal(signal.SIGSTOP)
    good, said = _told(bench.train('shared'), 'is in use by process')
    process.send_signal(signal.SIGCONT)
    process.communicate(timeout=300)
    equal = process.returncode == 0 and not bench.differs('shared')
    verdict = 'not affected' if equal else 'AFFECTED'
    return good and equal, f'second: {said}; first: {verdict}'


class Hostile:
    """Makes a folder where its pickle is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple:
        """What a pickle asks to be called."""
        return os.mkdir, (str(self.mark),)


def hostile(bench: Bench) -> Result:
    """A checkpoint that is a program."""
    mark, file = bench.folder / 'made', bench.folder / 'hostile.pth'
    answers = []
    content = dict.fromkeys(('meta', 'message_hub'), Hostile(mark))
    torch.save(dict(state_dict=dict(a=torch.ones(1)), **content), file)
    answers.append(
        _told(bench.train('h', '--resume', str(file)), 'refers to code')
    )
    file.write_bytes(pickle.dumps(Hostile(mark), protocol=2))
    answers.append(_told(bench.train('h', '--resume', str(file))))
    # a text that MMEngine runs when it resumes
    last = bench.copy('config') / 'epoch_4.pth'
    content = read_checkpoint(last)
    content['meta']['config'] = f'import os\nos.mkdir({str(mark)!r})'
    torch.save(content, last)
    bench.must(bench.train('config', '--resume'))
    good = all(answer[0] for answer in answers) and not mark.exists()
    ran = 'no code was run' if not mark.exists() else 'IT WAS RUN'
    return good, f'{ran}; {answers[0][1]}'


FAULTS: tuple[tuple[str, str, Callable[[Bench], Result]], ...] = (
    ('SIGKILL at a random moment, then `--resume`',
     'no checkpoint lost, final weights, momentum and banks bit-identical',
     killed),
    ('SIGTERM in an epoch, two workers, then `--resume`',
     'exit 75, the epoch goes on where it was, bit-identical', preempted),
    ('last checkpoint torn', 'the one before is taken, one warning', torn),
    ('disk full during a save', 'old checkpoints complete, one sentence',
     full_disk),
    ('nan in one batch (dense network)', 'one sentence, loss named', spoilt),
    ('corrupted image', 'one sentence, file named', corrupted_image),
    ('wrong data root', 'one sentence, path named', wrong_root),
    ('two jobs in one work dir', 'second refused, first not affected',
     two_jobs),
    ('hostile pickle as checkpoint', 'no code is run, one sentence', hostile),
)  # fmt: skip


def main() -> int:
    """Causes all faults and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=50)
    parser.add_argument('--seed', type=int, default=0, help='of the moments')
    parser.add_argument('--out', type=Path, help='file for the table')
    parser.add_argument(
        '--only', default='', help='faults whose text has this'
    )
    args = parser.parse_args()
    rows = ['| fault | promised | what happened | kept |', '|---|---|---|---|']
    kept = True
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.kills, args.seed)
        for fault, promise, provoke in FAULTS:
            if args.only not in fault:
                continue
            good, said = provoke(bench)
            kept = kept and good
            said = said.replace(folder, 'WORK').replace('|', '/')
            verdict = 'yes' if good else 'NO'
            rows.append(f'| {fault} | {promise} | {said} | {verdict} |')
            print(rows[-1], flush=True)
    table = '\n'.join(rows) + '\n'
    print(table)
    if args.out:
        args.out.write_text(table)
    return 0 if kept else 1


if __name__ == '__main__':
    sys.exit(main())
