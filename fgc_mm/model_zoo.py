"""The names of the models that have published results."""

from functools import cache

from fgc_mm.config_files import configs_folder


@cache
def register_models() -> None:
    """Registers the models of ``configs/metafile.yml`` with mmpretrain.

    ``mmpretrain.list_models``, ``get_model``, ``inference_model`` and the
    inferencers then find them by name. Their weights are not published: give
    ``pretrained=CHECKPOINT``.

    Example:
        >>> import fgc_mm, mmpretrain
        >>> fgc_mm.register_models()
        >>> 'fgc_resnet20_folder16_55' in mmpretrain.list_models('fgc_')
        True
    """
    # takes 6 s to import
    from mmpretrain.apis import ModelHub

    ModelHub._register_mmpretrain_models()
    file = configs_folder().parent / 'model-index.yml'
    ModelHub.register_model_index(file, config_prefix=file.parent)
