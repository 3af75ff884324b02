"""Saving a search: its pictures with what they carry, and its report as JSON, CSV and a page."""

from __future__ import annotations

import base64
import io as bytes_io
import unicodedata
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from ...search.reporting.csv_table import candidates_csv
from ...search.reporting.html import report_page
from ...search.reporting.report import kept_candidates, read_reports, summary_of
from ..adapter.prompt_context import HIDDEN
from ..run.metadata import png_info
from .schema import inp, schema

FILES_KEY = "noise_search_files"  # of the `ui` output: the reports that were written
MAX_PREFIX = 200  # characters; file systems take names of 255 bytes
LARGEST_SIDE, QUALITY = 768, 85  # of a picture on the page
MAX_SHOWN = 64  # pictures on the page, of all searches together
TURNING = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}  # characters that make a name read otherwise
COMPRESSION = 4  # as ComfyUI's own Save Image


class NSSaveSearch(io.ComfyNode):
    """Save Image for a search."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="NSSaveSearch",
            display_name="Save Search",
            category="noise search",
            description="Saves a search's pictures as PNG, each with its own recipe and scores besides the workflow, and the "
            "report as JSON, CSV and a page for any browser.",
            search_aliases=["save image", "export report", "share search", "html report", "csv"],
            is_output_node=True,
            hidden=HIDDEN,
            not_idempotent=True,  # it asks for its id
            inputs=[
                inp(io.Image, "images", tooltip="The images output of the search; or what other nodes made of them, as many."),
                inp(io.String, "report", force_input=True, tooltip="The report output of the same search."),
                inp(io.String, "filename_prefix", default="noise_search/search", tooltip="Where in the output folder, and how "
                    "the names begin, as in Save Image. %date:yyyy-MM-dd% and the like work."),
                inp(io.Boolean, "save_json", default=True, optional=True, tooltip="Whether to write the report as it is: JSON."),
                inp(io.Boolean, "save_csv", default=True, optional=True, tooltip="Whether to write a table for spreadsheets: a "
                    "line for every candidate with its scores, cost and recipe."),
                inp(io.Boolean, "save_html", default=True, optional=True, tooltip="Whether to write a page with the curve, the "
                    "pictures and all candidates. It needs nothing else, not even a network."),
            ],
            outputs=[],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, images: Tensor, report: str, filename_prefix: str, save_json: bool = True, save_csv: bool = True,
        save_html: bool = True,
    ) -> io.NodeOutput:  # fmt: skip
        reports = read_reports(report)
        kept = kept_candidates(reports)
        frames = frames_each(images, len(kept))
        summaries = [summary_of(said, candidate) for said, candidate in kept]
        folder, name, counter, subfolder = place_of(filename_prefix, images)
        pictures = [to_picture(image) for image in images]
        saved = []
        for number, picture in enumerate(pictures):
            file = f"{name.replace('%batch_num%', str(number))}_{counter + number:05}_.png"
            info = png_info(cls.hidden, summaries[number // frames])
            picture.save(folder / file, pnginfo=info, compress_level=COMPRESSION)
            saved.append(_entry(file, subfolder))
        texts = {}
        if save_json:
            texts["json"] = report
        if save_csv:
            texts["csv"] = candidates_csv(reports)
        if save_html:
            texts["html"] = report_page(reports, shown_pictures(reports, pictures[::frames]))
        written = []
        for ending, text in texts.items():
            file = f"{name.replace('%batch_num%', '0')}_{counter:05}_.{ending}"
            # Half a surrogate pair is no text; in JSON its escape is.
            (folder / file).write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
            written.append(_entry(file, subfolder))
        return io.NodeOutput(ui={"images": saved, FILES_KEY: written})


def frames_each(images: Tensor, kept: int) -> int:
    """Return how many pictures each kept candidate has: 1, or the frames of a video."""
    if len(images) < kept or len(images) % kept:
        raise ValueError(
            f"images: {len(images)} pictures cannot be those of the {kept} that the report keeps: connect 'images' and 'report' "
            "of the same search"
        )
    return len(images) // kept


def place_of(prefix: str, images: Tensor) -> tuple[Path, str, int, str]:
    """Return folder, name, first number and subfolder of the files that a prefix asks for.

    Raises:
        ValueError: it is no name, or leads out of the output folder.
    """
    shown = ascii(prefix if len(prefix) <= 60 else f"{prefix[:60]}...")
    if len(prefix) > MAX_PREFIX:
        raise ValueError(f"filename_prefix: {len(prefix)} characters ({shown}) are too many for a name: at most {MAX_PREFIX}")
    if ".." in prefix:
        raise ValueError(f"filename_prefix: {shown} holds '..', which would lead out of a folder")
    if any(unicodedata.category(sign) in ("Cc", "Cs") or unicodedata.bidirectional(sign) in TURNING for sign in prefix):
        raise ValueError(f"filename_prefix: {shown} holds characters that a name cannot have or that turn its direction")
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            prefix, folder_paths.get_output_directory(), images.shape[2], images.shape[1]
        )
    except Exception as error:  # core has no class of its own for it
        raise ValueError(f"filename_prefix: {shown} cannot be a place in the output folder: {error}") from error
    return Path(folder), name, counter, subfolder


def to_picture(image: Tensor) -> Image.Image:
    """Return an image (H, W, 3 or 4) in [0, 1] as a picture of 8 bits, as ComfyUI's own Save Image rounds it."""
    return Image.fromarray(np.clip(255.0 * image.cpu().numpy(), 0, 255).astype(np.uint8))


def shown_pictures(reports: list[dict[str, Any]], pictures: list[Image.Image]) -> list[list[str]]:
    """Return the data: URIs of each report's pictures, one of each candidate, until there are enough on a page."""
    uris = [data_uri(picture) for picture in pictures[:MAX_SHOWN]]
    shown, first = [], 0
    for report in reports:
        shown.append(uris[first : first + len(report["kept"])])
        first += len(report["kept"])
    return shown


def data_uri(picture: Image.Image) -> str:
    """Return a picture as a JPEG of bounded size, in a data: URI."""
    small = picture.convert("RGB")
    small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    encoded = bytes_io.BytesIO()
    small.save(encoded, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def _entry(file: str, subfolder: str) -> dict[str, str]:
    return {"filename": file, "subfolder": subfolder, "type": "output"}


NODES = [NSSaveSearch]
