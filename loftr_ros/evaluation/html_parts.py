"""Parts of a report in HTML: one file with pictures and tables that needs no network."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path

import cv2
import numpy as np

from loftr_ros.output_files import writing

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1120px; margin: 2em auto; padding: 0 1em; color: #222; }
h1 { font-size: 1.6em; } h2 { margin-top: 2em; border-bottom: 1px solid #ddd; }
img { max-width: 100%; } table { border-collapse: collapse; } td, th { padding: 2px 14px 2px 0; text-align: left; }
.note { color: #666; }
"""


def write_document(path: Path, title: str, parts: list[str]) -> None:
    """Write a page with the title and these parts."""
    document = (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        f'<title>{html.escape(title)}</title><style>{STYLE}</style></head>'
        f'<body><h1>{html.escape(title)}</h1>{"".join(parts)}</body></html>'
    )
    with writing(path) as file:
        file.write_text(document, encoding='utf-8')


def section(title: str, body: str, note: str = '') -> list[str]:
    """Return a part with a heading and a note below it."""
    return [f'<h2>{html.escape(title)}</h2>', f'<p class="note">{html.escape(note)}</p>' if note else '', body]


def picture_html(picture: np.ndarray) -> str:
    """Return an image, uint8 (H, W, 3), blue first."""
    return _image_html(cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes(), 'jpeg')


def figure_html(figure) -> str:
    """Return a figure of matplotlib."""
    stream = io.BytesIO()
    figure.savefig(stream, format='png', dpi=100)
    return _image_html(stream.getvalue(), 'png')


def _image_html(data: bytes, kind: str) -> str:
    return f'<img src="data:image/{kind};base64,{base64.b64encode(data).decode()}" alt="">'


def table(values: dict) -> str:
    """Return a row for each value."""
    rows = ''
    for key, value in values.items():
        if isinstance(value, dict):
            value = ', '.join(f'{name} {_text(item)}' for name, item in value.items())
        elif isinstance(value, (list, tuple)):
            value = ' '.join(_text(item) for item in value) or 'none'
        rows += f'<tr><th>{html.escape(key)}</th><td>{html.escape(_text(value))}</td></tr>'
    return f'<table>{rows}</table>'


def _text(value) -> str:
    return f'{value:.4g}' if isinstance(value, float) else str(value)
