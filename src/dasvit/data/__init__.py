"""Where images come from: sources, the cache of decoded images, splits, augmentation, batches."""

from dasvit.data.augment import CropFlip, EachImage, Transform, train_transform
from dasvit.data.decode import open_image
from dasvit.data.folders import find_images
from dasvit.data.image_set import Data, ImageSet
from dasvit.data.load import load_data, test_names
from dasvit.data.loader import Loader
from dasvit.data.preprocess import MEAN, STD, Preprocess
from dasvit.data.sources import SOURCES
from dasvit.data.splits import split_indices
from dasvit.data.view import View, predict_transform

__all__ = [
    "MEAN",
    "SOURCES",
    "STD",
    "CropFlip",
    "Data",
    "EachImage",
    "ImageSet",
    "Loader",
    "Preprocess",
    "Transform",
    "View",
    "find_images",
    "load_data",
    "open_image",
    "predict_transform",
    "split_indices",
    "test_names",
    "train_transform",
]
