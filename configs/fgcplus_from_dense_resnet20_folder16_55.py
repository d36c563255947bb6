_base_ = ['./fgcplus_resnet20_folder16_55.py']

# starts from the dense network, set with tools/compare.py --pretrain
# configs/dense_resnet20_folder16.py, or with --cfg-options load_from=...
model = dict(
    # the teacher is the network without gates, with the weights of load_from
    distillation=dict(temperature=4.0, loss_weight=1.0),
)
optim_wrapper = dict(optimizer=dict(lr=0.05))
