# Any folder of class folders, as images of 16 x 16 held in memory: a quarter
# of the MACs of 32 x 32, for comparisons on a CPU.
#   data_root/train/<class>/*.jpg and data_root/test/<class>/*.jpg
# Another folder: --cfg-options train_dataloader.dataset.dataset.data_root=...
# and the same for val_dataloader and test_dataloader.
data_root = 'data/folder'
data_preprocessor = dict(
    type='fgc_mm.NonBlockingDataPreprocessor',
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)
# run once per image; scaling 32 to 16 takes the mean of 2 x 2 pixels
pipeline = [
    dict(type='fgc_mm.LoadImage'),
    dict(type='Resize', scale=(16, 16)),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='fgc_mm.InMemoryImages',
        dataset=dict(
            type='fgc_mm.ImageFolder',
            data_root=data_root,
            data_prefix='train',
            pipeline=pipeline,
        ),
        padding=2,  # as 4 for a width of 32
        flip=0.5,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(
        type='fgc_mm.InMemoryImages',
        dataset=dict(
            type='fgc_mm.ImageFolder',
            data_root=data_root,
            data_prefix='test',
        ),
        # here, where mmpretrain's inferencers look for it
        pipeline=pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
