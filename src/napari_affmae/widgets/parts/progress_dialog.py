"""Wait for a result that napari needs at once, while its window stays alive."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from qtpy.QtCore import QEventLoop, QTimer
from qtpy.QtWidgets import QApplication, QDialog, QLabel, QProgressBar, QPushButton, QVBoxLayout

from napari_affmae.errors import AffmaeError

R = TypeVar("R")
_LOOK_MILLISECONDS = 50
_PARTS = 1000


class WaitingDialog(QDialog):
    """Says what is being done and how far it is, and has a button to cancel it.

    Parameters
    ----------
    text : str
        What is done.
    """

    def __init__(self, text: str) -> None:
        super().__init__(QApplication.activeWindow())
        self.setModal(True)
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.clicked.connect(self.reject)
        layout = QVBoxLayout(self)
        for widget in (QLabel(text), self.bar, self.cancel_button):
            layout.addWidget(widget)


def wait_with_dialog(text: str, job: Callable[[Callable[[int, int], None]], R]) -> R:
    """Do a job in a thread, and show how far it is in a dialog that can cancel it.

    Parameters
    ----------
    text : str
        What is done.
    job : Callable
        Called in the thread with a function, which it has to call now and then with
        the amount that is done and the whole amount.

    Returns
    -------
    R
        What the job returns.

    Raises
    ------
    AffmaeError
        If the user cancelled. Errors of the job are raised too.
    """
    cancelled = threading.Event()
    at = (0, 0)

    def tell(done: int, total: int) -> None:
        nonlocal at
        at = (done, total)
        if cancelled.is_set():
            raise AffmaeError(f"cancelled: {text}")

    dialog, loop, timer = WaitingDialog(text), QEventLoop(), QTimer()
    dialog.rejected.connect(cancelled.set)

    def look() -> None:
        done, total = at
        if total:
            dialog.bar.setRange(0, _PARTS)
            dialog.bar.setValue(min(_PARTS, _PARTS * done // total))
        if future.done():
            loop.quit()

    timer.setInterval(_LOOK_MILLISECONDS)
    timer.timeout.connect(look)
    dialog.show()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job, tell)
        timer.start()
        loop.exec_()
    timer.stop()
    dialog.hide()
    dialog.deleteLater()
    return future.result()
