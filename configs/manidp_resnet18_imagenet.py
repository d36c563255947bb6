_base_ = [
    './_base_/models/gated_resnet18_imagenet.py',
    './_base_/datasets/imagenet.py',
    './_base_/schedules/imagenet_130e.py',
    './_base_/default_runtime.py',
]

# As configs/_base_/methods/manidp_400e.py. Ours: 130 epochs, batches of 256
# and keep=0.6, since the published recipe for ImageNet is not known to us.
model = dict(
    backbone=dict(
        gate=dict(
            _delete_=True,
            type='fgc_mm.ManiDPGate',
            keep=dict(
                start_value=1.0,
                end_value=0.6,
                begin=0,
                end=129,
                curve='cosine',
            ),
        ),
        sites=dict(
            _delete_=True,
            type='auto',
            residual=True,
            patterns=['layer*.*.conv[12]'],
        ),
    ),
    gate_losses=[
        dict(
            type='fgc_mm.SaliencyL1Loss',
            reduction='site_means',
            easiness=True,
            loss_weight=5e-3,
        ),
        dict(type='fgc_mm.GramSimilarityLoss', loss_weight=0.1, detach=False),
    ],
)
custom_hooks = [dict(type='fgc_mm.LossProgressHook')]
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(
    _delete_=True,
    type='CosineAnnealingLR',
    by_epoch=True,
    T_max=130,
    convert_to_iter_based=True,
)
# python tools/train.py configs/dense_resnet18_imagenet.py
load_from = 'work_dirs/dense_resnet18_imagenet/epoch_160.pth'
