# SPDX-License-Identifier: GPL-3.0-or-later
"""Loaded by each Python of a machine: keeps what zipimport compiles, by the content of the source.

An Ansible module comes in a zip archive of its own, so at each call Python compiles it, and what it imports of Ansible.
In emulation that is a third of the time of a module, or more. The same source gives the same code, which is kept in
memory, for root, until the machine boots again.
"""

import _imp
import marshal
import os
import zipimport

TYPE_CHECKING = False  # importing more, as typing, would cost more than it is worth
if TYPE_CHECKING:
    from types import CodeType

FOLDER = "/run/zipimport"
_zipimport = vars(zipimport)
_compile = _zipimport["_compile_source"]


def _kept(path: str, source: bytes) -> "CodeType":
    file = f"{FOLDER}/{_imp.source_hash(0, source).hex()}-{len(source)}"
    try:
        with open(file, "rb") as stream:
            code: CodeType = marshal.load(stream)
    except OSError:
        code = _compile(path, source)
        _keep(file, code)
    else:
        vars(_imp)["_fix_co_filename"](code, path)
    return code


def _keep(file: str, code: "CodeType") -> None:
    made = f"{file}.{os.getpid()}"
    try:
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        with open(made, "wb") as stream:
            marshal.dump(code, stream)
        os.replace(made, file)
    except OSError:  # without it the next one compiles, too
        return


if os.geteuid() == 0:
    _zipimport["_compile_source"] = _kept
