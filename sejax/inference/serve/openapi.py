"""The description of the JSON interface (OpenAPI 3.1), with the columns of the model that is served."""

from collections.abc import Mapping, Sequence
from typing import Any

from sejax.inference.serve.limits import LEAST_EVERY, LONGEST_WINDOW, Limits

Tree = dict[str, Any]

_REFUSALS = {
    400: "The query or the body makes no sense.",
    403: "The host or the origin is not answered.",
    408: "The upload is too slow.",
    413: "The upload has too many bytes.",
    415: "The body is of another kind.",
    422: "The audio cannot be used.",
    503: "Too many requests are being answered.",
    504: "The prediction has taken too long.",
}
_WORDS = {
    "file": "Name of the audio.",
    "start": "Where the window begins, in seconds; null without `every`.",
    "end": "Where the window ends, in seconds; null without `every`.",
    "label": "The most probable class, or `unsure`.",
    "confidence": "Probability of the most probable class, after temperature scaling.",
    "note": "What is unusual about the audio.",
    "error": "Why the audio cannot be used from here on.",
}
_TEXTS = ("file", "label", "note", "error")


def describe(model: Mapping[str, Any], limits: Limits) -> Tree:
    """Returns the description.

    Args:
      model: what `GET /model` answers.
      limits: of the server.
    """
    binary = {"schema": {"type": "string", "format": "binary"}}
    form = _object({"file": {"type": "string", "format": "binary"}}, "A form whose field `file` is the audio.")
    refusals = {str(status): _answer(words, "Error") for status, words in _REFUSALS.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": f"sejax: {model['name']}",
            "version": model["sejax"],
            "summary": "Speech emotion recognition",
            "description": " ".join(
                [f"{note}." for note in model["notes"]]
                + [
                    f"At most {limits.megabytes:g} MB and {limits.audio_seconds:g} s of audio,",
                    f"{limits.requests} requests at once, {limits.request_seconds:g} s for an answer.",
                    "Nothing that is sent is kept.",
                ]
            ),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": {
            "/predict": {
                "post": {
                    "operationId": "predict",
                    "summary": "Predicts the emotion of audio, as a whole or over time.",
                    "parameters": _parameters(),
                    "requestBody": {
                        "required": True,
                        "description": "Audio in any format of libsndfile: wav, flac, mp3, ogg, aiff, ...",
                        "content": {
                            "audio/*": binary,
                            "application/octet-stream": binary,
                            "multipart/form-data": {"schema": form},
                        },
                    },
                    "responses": {"200": _answer("A record, or one per window.", "Answer"), **refusals},
                }
            },
            "/model": _get("model", "What the model is.", "Model"),
            "/health": _get("health", "Whether the model is compiled; requests wait for it.", "Health"),
            "/openapi.json": _get("openapi", "This description.", None),
        },
        "components": {"schemas": _schemas(model["columns"])},
    }


def _parameters() -> list[Tree]:
    window: Tree = {"type": "number", "minimum": LEAST_EVERY, "maximum": LONGEST_WINDOW}
    share: Tree = {"type": "number", "minimum": 0, "maximum": 1, "default": 0}
    return [
        _parameter("every", window, "A record per window, so many seconds apart, and no more than `window`."),
        _parameter("window", {**window, "default": 3}, "Seconds of a window; only with `every`."),
        _parameter("abstain", share, "The least confidence with which a class is named; else `unsure`."),
        _parameter("name", {"type": "string"}, "What records call the audio, unless a form says it."),
    ]


def _parameter(name: str, schema: Tree, words: str) -> Tree:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": words}


def _schemas(columns: Sequence[str]) -> Tree:
    names = {"type": "array", "items": {"type": "string"}}
    text, flag, number = {"type": "string"}, {"type": "boolean"}, {"type": "number"}
    return {
        "Record": _object({column: _column(column) for column in columns}, "What the model says about the audio."),
        "Answer": _object(
            {
                "model": {**text, "description": "Digest of the model: equal digests, equal predictions."},
                "records": {"type": "array", "items": {"$ref": "#/components/schemas/Record"}},
            },
            "The records of the audio.",
        ),
        "Error": _object({"error": {**text, "description": "A sentence."}}, "Why there is no answer."),
        "Health": _object({"status": {"enum": ["ready", "warming up"]}, "ready": flag}, "The state of the server."),
        "Model": _object(
            {
                "name": text,
                "digest": text,
                "sejax": {**text, "description": "Version of sejax."},
                "classes": names,
                "dimensions": names,
                "intervals": {**flag, "description": "Whether dimensions have intervals."},
                "spread": {**flag, "description": "Whether several runs predict."},
                "scale": {
                    "type": ["array", "null"],
                    "prefixItems": [number, number],
                    "minItems": 2,
                    "maxItems": 2,
                    "description": "The least and the greatest value of the dimensions; null where it is unknown.",
                },
                "columns": {**names, "description": "Of a record."},
                "notes": {**names, "description": "Sentences about the outputs."},
                "card": {**text, "description": "The model card, in Markdown."},
                "limits": _object(
                    dict.fromkeys(("bytes", "seconds", "least_every", "longest_window"), number),
                    "The most bytes and seconds of an upload, the least `every` and the greatest `window`.",
                ),
            },
            "The model.",
        ),
    }


def _column(name: str) -> Tree:
    kind = "string" if name in _TEXTS else "number"
    schema: Tree = {"type": kind if name == "file" else [kind, "null"]}
    if name.startswith("prob_"):
        words = f"Probability of {name.removeprefix('prob_')}, before temperature scaling."
    elif name.startswith("spread_"):
        words = f"Deviation of {name.removeprefix('spread_')} over the runs of the model."
    elif name.endswith(("_low", "_high")):
        words = "End of the interval that is meant to hold the truth."
    else:
        words = _WORDS.get(name, "Value of the dimension.")
    return {**schema, "description": words}


def _object(properties: Tree, words: str) -> Tree:
    return {"type": "object", "description": words, "required": list(properties), "properties": properties}


def _answer(words: str, schema: str | None) -> Tree:
    content = {"type": "object"} if schema is None else {"$ref": f"#/components/schemas/{schema}"}
    return {"description": words, "content": {"application/json": {"schema": content}}}


def _get(name: str, words: str, schema: str | None) -> Tree:
    refused = _answer(_REFUSALS[403], "Error")
    return {
        "get": {"operationId": name, "summary": words, "responses": {"200": _answer(words, schema), "403": refused}}
    }
