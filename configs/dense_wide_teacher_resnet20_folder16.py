_base_ = [
    './dense_distilled_resnet20_folder16.py',
    './_base_/models/wide_teacher.py',
]

# the dense network with the teacher of
# fgcplus_wide_teacher_resnet20_folder16_55.py
model = dict(distillation=dict(teacher=_base_.wide_teacher))
