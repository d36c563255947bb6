# Any folder of class folders, as small images:
#   data_root/train/<class>/*.jpg and data_root/test/<class>/*.jpg
# Another folder: --cfg-options train_dataloader.dataset.data_root=... and the
# same for val_dataloader and test_dataloader, and model.head.num_classes=...
# Every fifth image, evenly over the classes: train_dataloader.dataset.every=5
# A data set that lacks a class of train/ is an error, unless it has a list of
# all classes: val_dataloader.dataset.classes=data/folder/classes.txt (one name
# per line), and the same for test_dataloader. Images of 10, 12 or 14 bits in
# 16-bit files: dict(type='fgc_mm.LoadImage', bits=12)
dataset_type = 'fgc_mm.ImageFolder'
data_root = 'data/folder'
data_preprocessor = dict(
    type='fgc_mm.NonBlockingDataPreprocessor',
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=True,
)
train_pipeline = [
    dict(type='fgc_mm.LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='RandomCrop', crop_size=32, padding=4),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='fgc_mm.LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=256,
    num_workers=4,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='train',
        pipeline=train_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=True),
)
val_dataloader = dict(
    batch_size=256,
    num_workers=2,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix='test',
        pipeline=test_pipeline,
    ),
    sampler=dict(type='DefaultSampler', shuffle=False),
)
test_dataloader = val_dataloader
