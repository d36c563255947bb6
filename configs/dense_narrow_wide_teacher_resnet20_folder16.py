_base_ = ['./dense_wide_teacher_resnet20_folder16.py']

# 47.5 % of the MACs, with the teacher of
# fgcplus_wide_teacher_resnet20_folder16_55.py
model = dict(
    backbone=dict(backbone=dict(base_channels=11)),
    head=dict(in_channels=44),
)
