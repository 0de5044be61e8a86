# What `sweeper export --format onnx` wrote, without sweeper: pip install onnxruntime pillow
import numpy as np
from onnxruntime import InferenceSession
from PIL import Image, ImageOps

model = InferenceSession("model.onnx")
pixels = np.array(ImageOps.exif_transpose(Image.open("picture.jpg")).convert("RGB")).transpose(2, 0, 1)[None]
print(model.get_modelmeta().custom_metadata_map["classes"], model.run(None, {"pictures": pixels})[0])
