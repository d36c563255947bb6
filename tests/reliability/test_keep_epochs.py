"""The checkpoint at the end of a stage is kept when others are removed."""

import pytest
from mmengine.config import Config

from fgc_mm.engine.scaled_schedule import scale_epochs
from fgc_mm.errors import FGCError
from fgc_mm.reliability.checkpoint_hook import SafeCheckpointHook
from fgc_mm.reliability.checkpoint_reader import read_checkpoint

HOOK = 'default_hooks.checkpoint'


def left(folder):
    return sorted(path.name for path in folder.glob('epoch_*.pth'))


def test_it_is_saved_between_two_intervals_and_never_removed(digits, tmp_path):
    options = {
        f'{HOOK}.interval': 2,
        f'{HOOK}.max_keep_ckpts': 1,
        f'{HOOK}.keep_epochs': [1],
        'train_dataloader.dataset.indices': 16,
    }
    digits.start(digits.tiny_config(tmp_path, epochs=3, **options)).train()
    assert left(tmp_path) == ['epoch_1.pth', 'epoch_3.pth']
    first = read_checkpoint(tmp_path / 'epoch_1.pth')
    assert (first['meta']['epoch'], first['meta']['iter']) == (1, 2)
    assert {'optimizer', 'state_dict', 'param_schedulers'} <= first.keys()
    # another epoch is to be kept from now on
    options[f'{HOOK}.keep_epochs'] = [1, 3]
    digits.start(
        digits.tiny_config(tmp_path, epochs=4, resume=True, **options)
    ).train()
    assert left(tmp_path) == ['epoch_1.pth', 'epoch_3.pth', 'epoch_4.pth']


@pytest.mark.parametrize(
    ('epochs', 'kept'), [(100, [20]), (10, [2]), (1, [1])]
)
def test_another_length_of_the_run_moves_it(epochs, kept):
    cfg = Config(
        dict(
            train_cfg=dict(by_epoch=True, max_epochs=500),
            default_hooks=dict(
                checkpoint=dict(interval=10, keep_epochs=[100])
            ),
        )
    )
    scaled = scale_epochs(cfg, epochs)
    assert scaled.default_hooks.checkpoint.keep_epochs == kept
    assert cfg.default_hooks.checkpoint.keep_epochs == [100]


@pytest.mark.parametrize('epochs', [100, [0], [1.5], ['1'], [True], {5: 1}])
def test_what_counts_no_epochs_is_refused(epochs):
    with pytest.raises(FGCError, match='must be a list of whole numbers'):
        SafeCheckpointHook(keep_epochs=epochs)


def test_epochs_and_iterations_do_not_mix():
    with pytest.raises(FGCError, match='counts iterations'):
        SafeCheckpointHook(keep_epochs=[1], by_epoch=False)
