"""The engine in the package is what its source builds to."""

from __future__ import annotations

from latentlab.export import build_engine


def test_the_module_in_the_package_is_what_its_source_builds_to():
    """Byte for byte. Would catch a module that was built from another source, and a build that is never the same."""
    assert build_engine.build() == build_engine.MODULE.read_bytes()


def test_the_command_tells_another_module(tmp_path, monkeypatch, capsys):
    """The fake: one byte of the module was changed by hand."""
    module = bytearray(build_engine.MODULE.read_bytes())
    module[-1] ^= 1
    (tmp_path / "engine.wasm").write_bytes(module)
    monkeypatch.setattr(build_engine, "MODULE", tmp_path / "engine.wasm")
    assert build_engine.main(["--check"]) == 1
    assert "engine.wasm is not what engine.c builds to." in capsys.readouterr().out
    assert build_engine.main([]) == 0
    assert build_engine.main(["--check"]) == 0


def test_the_module_stays_small_and_asks_for_nothing():
    """Would catch a libc that slipped in, or an import that a page would have to provide."""
    module = build_engine.MODULE.read_bytes()
    assert len(module) < 24_000
    sections, at = [], 8
    while at < len(module):
        kind, at, size, shift = module[at], at + 1, 0, 0
        while True:
            byte = module[at]
            at, size, shift = at + 1, size | (byte & 127) << shift, shift + 7
            if byte < 128:
                break
        sections.append(kind)
        at += size
    assert 2 not in sections, "the module has an import section"
    assert 0 not in sections, "the module has custom sections, such as names or its builder's"
