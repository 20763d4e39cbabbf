"""`pir-jax app` refuses in a sentence what it cannot work with."""

import importlib.util

import pytest

from pir_jax import app
from pir_jax.types import InputError


def test_a_missing_gradio_is_a_sentence(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(InputError, match=r"pip install 'pir_jax\[app\]'"):
    app.main()


def test_hosts_that_others_cannot_call():
  local = ("127.0.0.1", "127.1.2.3", "::1", "localhost")
  assert all(app._is_local(host) for host in local)
  assert not any(app._is_local(host) for host in ("0.0.0.0", "::", "me.local"))
