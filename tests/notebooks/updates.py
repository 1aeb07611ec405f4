"""A pytest plugin that teaches nbval about updated displays: an output that was replaced is compared as it ends up.

nbval 0.11 drops ``update_display_data`` messages, so a progress bar or a live table would be compared as it began.
JupyterLab and nbclient, which wrote the expected outputs, apply them. Load it with ``-p tests.notebooks.updates``.
"""

import nbformat
from nbval.plugin import IPyNbCell, IPyNbFile

_get_kernel_message = IPyNbFile.get_kernel_message
_compare_outputs = IPyNbCell.compare_outputs


def get_kernel_message(self, timeout=None, stream="iopub"):
    """Note which displays there are, and swallow their updates."""
    while True:
        message = _get_kernel_message(self, timeout=timeout, stream=stream)
        kind, content = message["msg_type"], message["content"]
        if kind == "execute_input":
            self.shown, self.updated = [], {}
        name = content.get("transient", {}).get("display_id")
        if kind in ("display_data", "execute_result"):
            self.shown.append(name)
        if kind != "update_display_data":
            return message
        self.updated[name] = content["data"]


def compare_outputs(self, test, ref, skip_compare=None):
    """Compare what the displays became."""
    names = iter(self.parent.shown)
    for output in test:
        if output.output_type in ("display_data", "execute_result"):
            data = self.parent.updated.get(next(names, None))
            if data is not None:
                output["data"] = nbformat.from_dict(data)
    return _compare_outputs(self, test, ref, skip_compare)


IPyNbFile.get_kernel_message = get_kernel_message
IPyNbCell.compare_outputs = compare_outputs
