# As folder16.py, at 32 x 32, with the images held on the GPU if there is one.
_base_ = ['./folder16.py']
# run once per image
pipeline = [
    dict(type='fgc_mm.LoadImage'),
    dict(type='Resize', scale=(32, 32)),
    dict(type='PackInputs'),
]
train_dataloader = dict(
    dataset=dict(dataset=dict(pipeline=pipeline), padding=4, device='auto')
)
val_dataloader = dict(dataset=dict(pipeline=pipeline, device='auto'))
test_dataloader = val_dataloader
