"""`dasvit export`: a trained model as a file or folder that runs elsewhere, checked before it is there."""

from __future__ import annotations

from dasvit.commands.common import print_json
from dasvit.commands.options import ExportOptions
from dasvit.inference.export import export_model

HINTS = {
    "onnx": "Its input `images` takes normalised float images, any number of them; labels and preprocessing stand in "
    "its metadata.",
    "torch": "torch.export.load({out}).module() takes normalised float images, any number of them; labels and "
    "preprocessing stand in its extra file dasvit.json.",
    "hub": "Read README.md and add a licence to its head; then `hf upload USER/NAME {out}` puts it on the hub.",
}
"""What to do with each target."""


def export_command(options: ExportOptions) -> None:
    made = export_model(options.model, options.to, options.out, options.precision)
    if options.json:
        about = {"model": str(made.model), "to": made.target, "out": str(made.out)}
        kept = {"precision": made.precision, "accuracy": made.accuracy}
        print_json({**about, "difference": made.difference, "bytes": made.size, **kept})
        return
    print(f"{made.out}: {made.size / 1e6:.2f} MB{'' if made.is_new else ', as it was there already'}.")
    print(f"Checked against the model: logits differ by {made.difference:.2g} at most.")
    if made.accuracy:
        own, file, images = (made.accuracy[name] for name in ("float32", "exported", "images"))
        metric = "mAP" if made.accuracy.get("metric") == "map" else "top-1"
        print(f"On {images:,} test images: {metric} {file:.2f} % in {made.precision}, {own:.2f} % in float32.")
    elif made.precision != "float32":
        print("The accuracy that it keeps is not known: the test images of its run are not there.")
    print(HINTS[made.target].format(out=made.out))
