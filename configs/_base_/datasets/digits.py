dataset_type = 'fgc_mm.Digits'
data_preprocessor = dict(
    type='fgc_mm.NonBlockingDataPreprocessor',
    num_classes=10,
    mean=[77.8, 77.8, 77.8],
    std=[95.9, 95.9, 95.9],
    to_rgb=False,
)
train_pipeline = [
    dict(type='RandomCrop', crop_size=8, padding=1),
    dict(type='PackInputs'),
]
test_pipeline = [dict(type='PackInputs')]

# 1,437 images of 8 x 8 in memory: a worker process would only cost time
train_dataloader = dict(
    batch_size=64,
    num_workers=0,
    persistent_workers=False,
    drop_last=True,
    dataset=dict(type=dataset_type, split='train', pipeline=train_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=120,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(type=dataset_type, split='test', pipeline=test_pipeline),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
