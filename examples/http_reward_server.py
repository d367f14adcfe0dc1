"""A scorer of your own behind HTTP: how much of the image is in focus (variance of Laplacian).

    uvicorn --app-dir examples http_reward_server:app --port 9000

and in the config

    rewards:
      - name: sharp
        kind: http
        options:
          url: "http://127.0.0.1:9000/score"
          allowed_hosts: ["127.0.0.1:9000"]
          allow_private: true

docs/http_reward.json is the schema of requests and answers.
"""

import json
from io import BytesIO

import numpy as np
from fastapi import FastAPI, Request
from PIL import Image

app = FastAPI()


@app.post("/score")
async def score(request: Request):
    """One answer an item of the request, in the same order."""
    form = await request.form()
    asked = json.loads(await form["request"].read())
    answers = []
    for item in asked["items"]:
        grey = np.asarray(Image.open(BytesIO(await form[item["image"]].read())).convert("L"), float)
        answers.append({"value": sharpness(grey), "parts": {"brightness": grey.mean() / 255}})
    return {"protocol": 1, "version": "sharpness 1", "answers": answers}


def sharpness(grey):
    """Log of 1 + the variance of the Laplacian; 0 is flat."""
    centre = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.log1p((around - 4 * centre).var()))
