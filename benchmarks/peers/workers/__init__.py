"""Stand-alone scripts of the peer comparison. Other interpreters run them: they import no flawline but where one says so.

Each is run as `python -m workers.NAME` by the interpreter of one environment. `*_fit` reads its task from standard
input and writes models and `cases.json`; `*_score` answers to `serving.py`'s protocol.
"""
