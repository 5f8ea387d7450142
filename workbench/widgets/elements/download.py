"""Downloads: files sent to the browser compressed and in pieces, since a page with plotly inside takes 5 MB (2 MB compressed)."""

import gzip

import panel as pn

MESSAGE_BYTES = 1_000_000  # bytes of one message; a longer one would keep what else is on its way waiting
DOWNLOAD_JS = """
export function render({ model }) {
  let pieces = []
  const take = async ({ name, piece, last }) => {
    pieces.push(piece)
    if (!last) return
    const packed = new Blob(pieces).stream()
    pieces = []
    const file = await new Response(packed.pipeThrough(new DecompressionStream('gzip'))).blob()
    const link = document.createElement('a')
    link.href = URL.createObjectURL(file)
    link.download = name
    link.click()
    setTimeout(() => URL.revokeObjectURL(link.href), 60000)
  }
  model.on('msg:custom', take)
  return document.createElement('span')
}
"""


class Delivery(pn.custom.JSComponent):
    """Saves files on the visitor's machine, as a download; it takes no room on the page."""

    _esm = DOWNLOAD_JS

    def __init__(self) -> None:
        super().__init__(width=0, height=0, margin=0)

    def send(self, name: str, content: str) -> None:
        """Let the browser save `content` under `name`."""
        packed = gzip.compress(content.encode())
        for start in range(0, len(packed), MESSAGE_BYTES):
            self._send_msg(
                {"name": name, "piece": packed[start : start + MESSAGE_BYTES], "last": start + MESSAGE_BYTES >= len(packed)}
            )
