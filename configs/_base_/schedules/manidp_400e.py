_base_ = ['./cifar10_500e_cosine.py']

# starts from the trained dense network, with batches of 128
optim_wrapper = dict(optimizer=dict(lr=0.05))
param_scheduler = dict(T_max=400)
train_cfg = dict(max_epochs=400)
auto_scale_lr = dict(base_batch_size=128)
