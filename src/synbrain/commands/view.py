"""``synbrain view``: look at a run in the browser."""

from __future__ import annotations

import threading
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING

from synbrain.viewer.options import ViewOptions

if TYPE_CHECKING:
    from synbrain.data.dataset import Dataset
    from synbrain.viewer.source import Source

AS_USUAL = ViewOptions()


def view(
    model: Path,  # not called run: demo is no folder
    dataset: Path | None = None,
    /,
    *,
    export: Path | None = None,
    decoder: Path | None = None,
    options: ViewOptions = AS_USUAL,
    device: str = "auto",
    overwrite: bool = False,
) -> None:
    """Open a local page: drop a picture and see the response that is expected on the cortex.

    Args:
        model: run folder, id of a run on the Hugging Face hub, or demo, which comes with the package.
        dataset: dataset of the run's subject: its test images, measured responses and noise ceiling.
        export: write the page with test images to this .html file instead; it needs no server.
        decoder: folder of a decoder of the subject (synbrain decoder train): its pictures stand beside.
        options: what is shown.
        device: auto, cpu, cuda, ...
        overwrite: replace what stands at export.
    """
    from synbrain.data.dataset import load_dataset
    from synbrain.errors import SynBrainError
    from synbrain.model.folder import DEMO, demo_dataset
    from synbrain.progress import announce
    from synbrain.viewer.requirements import require_server
    from synbrain.viewer.view import export_page

    if export is None:
        require_server()
    if str(model) in ("demo", DEMO) and not model.exists():
        model, dataset = Path(DEMO), dataset or demo_dataset()
    if dataset is None and (export is not None or decoder is not None):
        what = "--export shows test images" if export is not None else "--decoder shows training images"
        raise SynBrainError(what, "give a dataset: synbrain view RUN DATASET ...")
    announce("opening the run", show=True)  # torch takes seconds
    source = _source(model, None if dataset is None else load_dataset(dataset), decoder, options, device)
    if export is None:
        _serve(source, options)
    else:
        export_page(source, export, overwrite=overwrite)
        print(f"{export}: {export.stat().st_size / 1e6:.2f} MB, open it in a browser")


def _source(
    model: Path, recordings: Dataset | None, decoder: Path | None, options: ViewOptions, device: str
) -> Source:
    """The run, the dataset and the decoder, opened."""
    from synbrain.features.encoder import pick_device
    from synbrain.model.synbrain import SynBrain
    from synbrain.viewer.source import Source

    place = pick_device(device)
    run = SynBrain.from_pretrained(model, device=place)
    decode = None
    if decoder is not None and recordings is not None:
        from synbrain.decoding.decoder import Decoder
        from synbrain.viewer.decoded import DecodedPictures

        decode = DecodedPictures.of(Decoder.from_pretrained(decoder, device=str(place)), recordings)
    return Source(run, recordings, options, decode)


def _serve(source: Source, options: ViewOptions) -> None:
    """Answer on a local page until Ctrl-C."""
    from synbrain.viewer.server import bind, hosts_of, make_app, serve

    listening = bind(options.port)
    port = listening.getsockname()[1]
    app = make_app(source, hosts_of(port))
    address = f"http://127.0.0.1:{port}/"
    print(f"{address}   (Ctrl-C ends)", flush=True)
    if options.browser:
        later = threading.Timer(1.0, webbrowser.open, [address])
        later.daemon = True
        later.start()
    serve(app, listening)
