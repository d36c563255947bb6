# As folder16.py, at 32 x 32, with the images held on the GPU if there is one.
_base_ = ['./folder16.py']
# run once per image
pipeline = [
    dict(type='fgc_mm.LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
# pin_memory=False: mmpretrain's tools pin memory by default, and memory of a
# GPU cannot be pinned
train_dataloader = dict(
    dataset=dict(dataset=dict(pipeline=pipeline), padding=4, device='auto'),
    pin_memory=False,
)
val_dataloader = dict(
    dataset=dict(pipeline=pipeline, device='auto'), pin_memory=False
)
test_dataloader = val_dataloader
