# uvicorn serve:app   # pip install fastapi python-multipart uvicorn onnxruntime pillow
# curl -F picture=@picture.jpg http://127.0.0.1:8000/predict
from json import loads

import numpy as np
from fastapi import FastAPI, UploadFile
from onnxruntime import InferenceSession
from PIL import Image, ImageOps

app, model = FastAPI(), InferenceSession("model.onnx")


@app.post("/predict")
def predict(picture: UploadFile) -> dict[str, float]:
    pixels = np.array(ImageOps.exif_transpose(Image.open(picture.file)).convert("RGB")).transpose(2, 0, 1)
    classes = loads(model.get_modelmeta().custom_metadata_map["classes"])
    return dict(zip(classes, model.run(None, {"pictures": pixels[None]})[0][0].tolist(), strict=True))
