_base_ = [
    './fgcplus_distilled_resnet20_folder16_55.py',
    './_base_/models/wide_teacher.py',
]

# the teacher is the dense network with twice the channels
# (dense_wide_resnet20_folder16.py): teacher of a row of tools/compare.py, or
# --cfg-options model.distillation.checkpoint=...
model = dict(distillation=dict(teacher=_base_.wide_teacher))
