"""The whole path on a folder of your own images, as a program.

    python examples/own_images.py FOLDER runs/mine

FOLDER holds train/CLASS/*.jpg and val/CLASS/*.jpg, or CLASS/*.jpg alone. Fields of the recipe may follow, as
train.epochs=20.
"""

import sys

import yaml

import dasvit


def main(images: str, folder: str, *fields: str) -> None:
    """Search, train what was found and a ViT, set them side by side, export, and name images."""
    options = {name: yaml.safe_load(value) for name, _, value in (field.partition("=") for field in fields)}
    found = dasvit.search(images, run=folder, options=options)
    print(found)
    models = {
        "found": dasvit.train(found),  # under the search's recipe, options included
        "ViT": dasvit.train("vit", recipe=found.config, run=f"{folder}/vit"),
    }
    for name, model in models.items():
        print(f"{name}: test top-1 {model.result['top1']:.1f} %, {model.result['params']:,} parameters")
    print(dasvit.report(found, models["ViT"], out=f"{folder}/comparison.html"))
    print(models["found"].export("torch").out)
    for row in models["found"].predict(images, top=1)[:10]:
        print(row["image"], row["predictions"][0]["label"])


if __name__ == "__main__":
    main(*sys.argv[1:])
