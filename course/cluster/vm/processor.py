"""The processor that a guest sees: Proxmox VE's names of models, as QEMU's.

Emulation (TCG) knows fewer features than a processor: ``host`` is there everything that it can do.
"""

from __future__ import annotations

_V2 = "+popcnt,+pni,+sse4.1,+sse4.2,+ssse3"
_V3 = f"+aes,{_V2},+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+abm,+movbe,+xsave"
_LEVELS = {
    "x86-64-v2": f"qemu64,{_V2}",
    "x86-64-v2-AES": f"qemu64,+aes,{_V2}",
    "x86-64-v3": f"qemu64,{_V3}",
    "x86-64-v4": f"qemu64,{_V3}",
}
_OF_KVM = "+kvm_pv_eoi,+kvm_pv_unhalt"
_USUAL = "+lahf_lm,+sep"


def model(setting: str, *, kvm: bool) -> str:
    """Return the words of ``-cpu``.

    Args:
        setting: the configuration's ``cpu``, such as ``host,flags=+aes;-pcid``; empty for the default.
        kvm: whether the processor itself runs the guest.
    """
    given = dict(part.partition("=")[::2] for part in setting.split(",") if part)
    name = given.get("cputype") or next((key for key, value in given.items() if not value), "kvm64")
    parts = [_LEVELS.get(name, "max" if name == "host" and not kvm else name)]
    if kvm:
        parts += ["enforce", _OF_KVM] if name != "host" else [_OF_KVM]
    if name == "kvm64":
        parts.append(_USUAL)
    if given.get("hidden") == "1":
        parts.append("kvm=off")
    parts += [flag for flag in given.get("flags", "").split(";") if flag]
    return ",".join(parts)
