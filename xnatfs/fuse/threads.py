"""What Python knows of libfuse's threads, kept from one request to the next.

libfuse starts threads of its own. ctypes makes such a thread known to Python for the time of one
callback and forgets it afterwards, which costs as much as many a request (38 us of CPU for a
getattr with it, 18 without, measured). So it is made known once, and forgotten when it ends.
"""

from __future__ import annotations

import ctypes
import threading

_kept = threading.local()

_state = ctypes.pythonapi.PyThreadState_Get
_state.restype = ctypes.c_void_p
_clear = ctypes.pythonapi.PyThreadState_Clear
_clear.argtypes = (ctypes.c_void_p,)
_delete = ctypes.pythonapi.PyThreadState_Delete
_delete.argtypes = (ctypes.c_void_p,)


def _forget(state: int) -> None:
    """A thread ends: pthread calls this on it, when Python's own note of it is gone already."""
    _clear(state)
    _delete(state)


_at_the_end = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_forget)


def _make_key() -> ctypes.c_uint:
    key = ctypes.c_uint()
    if ctypes.CDLL(None).pthread_key_create(ctypes.byref(key), _at_the_end):
        raise OSError("no key for data of threads is left")
    return key


_key = _make_key()
_note = ctypes.CDLL(None).pthread_setspecific
_note.argtypes = (ctypes.c_uint, ctypes.c_void_p)


def keep() -> None:
    """Keep what Python knows of the calling thread until the thread ends.

    Only for callbacks on threads that Python did not start: it looks after its own.
    """
    if not hasattr(_kept, "since"):
        # What is noted is handed to ``_forget`` at the end.
        if _note(_key, _state()) == 0:
            ctypes.pythonapi.PyGILState_Ensure()
        _kept.since = True
