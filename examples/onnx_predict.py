# What `sweeper export --format onnx` wrote, without sweeper: pip install onnxruntime pillow
import numpy as np
from onnxruntime import InferenceSession
from PIL import Image

model = InferenceSession("model.onnx")
picture = np.array(Image.open("picture.jpg").convert("RGB")).transpose(2, 0, 1)
print(model.get_modelmeta().custom_metadata_map["classes"], model.run(None, {"pictures": picture[None]})[0])
