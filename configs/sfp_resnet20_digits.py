_base_ = ['./dense_resnet20_digits.py', './_base_/methods/sfp.py']
