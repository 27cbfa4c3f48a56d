"""Waiting for something that napari wants before its call returns, while the window lives."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtWidgets import QApplication, QProgressDialog

from napari_affmae.errors import AffmaeError

R = TypeVar("R")
_LOOK_MILLISECONDS = 50
_PARTS = 1000


def wait_with_dialog(text: str, job: Callable[[Callable[[int, int], None]], R]) -> R:
    """Do a job in a thread, and show how far it is in a dialog that can cancel it.

    Parameters
    ----------
    text : str
        What is done.
    job : Callable
        Called in the thread, with what it is to call now and then, with what
        is done and what is to do.

    Returns
    -------
    R
        What the job returns.

    Raises
    ------
    AffmaeError
        If it was cancelled; the job's own errors too.
    """
    cancelled = threading.Event()
    at = (0, 0)

    def tell(done: int, total: int) -> None:
        nonlocal at
        at = (done, total)
        if cancelled.is_set():
            raise AffmaeError(f"cancelled: {text}")

    dialog = QProgressDialog(text, "Cancel", 0, 0, QApplication.activeWindow())
    dialog.setWindowModality(Qt.WindowModality.ApplicationModal)
    dialog.setAutoReset(False)
    dialog.setAutoClose(False)
    dialog.canceled.connect(cancelled.set)
    loop, timer = QEventLoop(), QTimer()

    def look() -> None:
        done, total = at
        if total and not cancelled.is_set():
            dialog.setRange(0, _PARTS)
            dialog.setValue(min(_PARTS, _PARTS * done // total))
        if future.done():
            loop.quit()

    timer.setInterval(_LOOK_MILLISECONDS)
    timer.timeout.connect(look)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job, tell)
        timer.start()
        loop.exec_()
    timer.stop()
    dialog.deleteLater()
    return future.result()
