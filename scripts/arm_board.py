"""A 64-bit Arm board in QEMU: Debian's kernel and Python, a Raspberry Pi's processor and names.

    sudo python scripts/arm_board.py make
    python scripts/arm_board.py run --as rpi5 -- kedge device-class detect

Two kernels are there: 6.1, and 5.10 of 2024 (``--kernel 5.10``), near to what Jetsons have. Every
instruction is emulated: what a command answers is what a board would answer, how long it
takes is not. ``make`` fetches Debian packages and wheels (some six minutes, 1.5 GB in
``~/.cache/kedge/arm-board``); ``run`` starts the board anew, runs one command as root, shows what
it prints and ends with its status. ``--share FOLDER`` is ``/host`` there; with ``--net`` this
machine is 10.0.2.2. A command that needs more packages finds pip's wheels in a shared folder.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

_PROJECT = Path(__file__).parents[1]
_HOME = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "kedge/arm-board"
_EXTRAS = "agent,onnxruntime,ncnn,video"
_PACKAGES = "python3,busybox-static,ca-certificates,iproute2,procps"
#: The Python of Debian 12, and what its C library can load.
_PYTHON = "3.11"
_PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_28_aarch64", "manylinux_2_34_aarch64")
#: In the order in which they are loaded, as far as a kernel has them as modules.
_MODULES = ("virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
            "virtio_pci", "virtio_blk", "crc16", "crc32c_generic", "mbcache", "jbd2", "ext4",
            "failover", "net_failover", "virtio_net", "netfs", "fscache", "9pnet",
            "9pnet_virtio", "9p")  # fmt: skip
_TOOLS: Mapping[str, str] = MappingProxyType(
    {
        "mmdebstrap": "mmdebstrap",
        "mke2fs": "e2fsprogs",
        "cpio": "cpio",
        "dtc": "device-tree-compiler",
        "qemu-system-aarch64": "qemu-system-arm",
        "qemu-aarch64-static": "qemu-user-static binfmt-support",
    }
)
#: Packages by version: Debian 12's, and one of Debian 11 from before stable kernels were given what
#: newer ones do.
KERNELS: Mapping[str, str] = MappingProxyType(
    {"6.1": r"linux-image-6\.1\.[0-9]+-[0-9]+-arm64", "5.10": r"linux-image-5\.10\.0-32-arm64"}
)
#: Unpacked and not installed: what installing makes is of no use here, and takes minutes.
_KERNEL = """
set -e; cd "$1"; export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
apt-get download "$(apt-cache pkgnames | grep -E '^{pattern}$' | sort -V | tail -n 1)"
dpkg-deb -x linux-image-*.deb kernel-{version}; rm linux-image-*.deb
"""
_SOURCES = tuple(
    f"deb http://deb.debian.org/debian {each} main" for each in ("bookworm", "bullseye")
)
_FIRST = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
for each in {" ".join(_MODULES)}; do
    [ ! -e /modules/$each.ko ] || insmod /modules/$each.ko
done
until [ -e /dev/vda ]; do sleep 0.1; done
mount -t ext4 /dev/vda /new
for each in control host; do
    mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 $each /new/$each
done
exec switch_root /new /sbin/board
"""
_BOARD = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts pts /dev/pts
for each in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $each; done
mount -t cgroup2 cgroup /sys/fs/cgroup
ip link set lo up; ip link set eth0 up
ip addr add 10.0.2.15/24 dev eth0; ip route add default via 10.0.2.2
hostname board; cd /host
setsid -c -w sh /control/command; echo $? > /control/status
sync; exec /bin/busybox poweroff -f
"""
_KEDGE = "#!/usr/bin/python3\nfrom kedge_shared.cli import main\n\nmain()\n"


@dataclass(frozen=True)
class Board:
    """What an emulated board says that it is.

    Attributes:
        processor: QEMU's name of it.
        model: Of the device tree.
        compatible: Of the device tree, the board's own name first, the SoC's last.
    """

    processor: str
    model: str
    compatible: tuple[str, ...]


#: By device class.
BOARDS: Mapping[str, Board] = MappingProxyType(
    {
        "rpi5": Board("cortex-a76", "Raspberry Pi 5 Model B Rev 1.0",
                      ("raspberrypi,5-model-b", "brcm,bcm2712")),
        "rpi4": Board("cortex-a72", "Raspberry Pi 4 Model B Rev 1.4",
                      ("raspberrypi,4-model-b", "brcm,bcm2711")),
        "rk3588": Board("cortex-a76", "Radxa ROCK 5B", ("radxa,rock-5b", "rockchip,rk3588")),
    }
)  # fmt: skip


def make(home: Path) -> None:
    """Puts a board's disk, kernel and first steps into a folder."""
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home) as scratch:
        root = Path(scratch) / "root"
        _tell("Debian, its kernels and Python")
        hooks = (_KERNEL.format(version=name, pattern=each) for name, each in KERNELS.items())
        _do("mmdebstrap", "--quiet", "--arch=arm64", "--variant=minbase", "--format=directory",
            f"--include={_PACKAGES}", *(f"--customize-hook={each}" for each in hooks),
            "bookworm", root, *_SOURCES)  # fmt: skip
        for name in KERNELS:
            kernel = root / f"kernel-{name}"
            (found,) = kernel.glob("boot/vmlinuz-*")
            shutil.move(found, home / f"kernel-{name}")
            _first_steps(
                kernel, root / "bin/busybox", Path(scratch) / name, home / f"first-{name}.cpio"
            )
            shutil.rmtree(kernel)
        _tell(f"kedge[{_EXTRAS}] and what it wants, for Python {_PYTHON}")
        _install(root, Path(scratch) / "wheels")
        _tell("disk")
        for each in ("control", "host"):
            (root / each).mkdir()
        _program(root / "sbin/board", _BOARD)
        disk = Path(scratch) / "disk"
        _do("mke2fs", "-q", "-t", "ext4", "-d", root, disk, "4G")
        disk.replace(home / "disk")


def _first_steps(kernel: Path, busybox: Path, folder: Path, to: Path) -> None:
    """Writes what the kernel runs before it can read the disk."""
    for each in ("bin", "modules", "dev", "proc", "sys", "new"):
        (folder / each).mkdir(parents=True)
    shutil.copy(busybox, folder / "bin/busybox")
    _program(folder / "init", _FIRST)
    for each in _MODULES:
        for found in kernel.rglob(f"{each}.ko"):
            shutil.copy(found, folder / "modules")
    names = "\n".join(str(each.relative_to(folder)) for each in folder.rglob("*"))
    with to.open("wb") as out:
        subprocess.run(
            ["cpio", "--quiet", "-o", "-H", "newc"], check=True, cwd=folder, stdout=out,
            input=names.encode(),
        )  # fmt: skip


def _install(root: Path, wheels: Path) -> None:
    """Puts this working tree and its dependencies where the board's Python looks."""
    pip = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")
    _do(*pip, "wheel", "--no-deps", "--wheel-dir", wheels, _PROJECT)
    (wheel,) = wheels.glob("kedge-*.whl")
    _do(*pip, "install", "--only-binary=:all:", "--python-version", _PYTHON,
        "--implementation", "cp", *(f"--platform={each}" for each in _PLATFORMS),
        "--target", root / "usr/local/lib" / f"python{_PYTHON}" / "dist-packages",
        f"{wheel}[{_EXTRAS}]")  # fmt: skip
    _program(root / "usr/local/bin/kedge", _KEDGE)


@dataclass(frozen=True)
class Wanted:
    """How a board is started.

    Attributes:
        name: Which, by device class.
        kernel: Which, by version.
        share: Folder that is ``/host`` there.
        net: This machine and what is beyond it can be reached.
    """

    name: str
    kernel: str
    share: Path | None
    net: bool


def run(home: Path, wanted: Wanted, command: Sequence[str]) -> int:
    """Starts a board, runs a command there and returns its status; 1 if the board ended first."""
    board = BOARDS[wanted.name]
    with tempfile.TemporaryDirectory() as scratch:
        control, empty = Path(scratch) / "control", Path(scratch) / "empty"
        control.mkdir()
        empty.mkdir()
        (control / "command").write_text(shlex.join(command) + "\n")
        tree = Path(scratch) / "tree.dtb"
        machine = ("qemu-system-aarch64", "-cpu", board.processor, "-smp", "2", "-m", "3072",
                   "-accel", "tcg,thread=multi", "-display", "none", "-monitor", "none",
                   "-serial", "stdio", "-no-reboot", "-snapshot",
                   "-kernel", home / f"kernel-{wanted.kernel}",
                   "-initrd", home / f"first-{wanted.kernel}.cpio",
                   "-append", "console=ttyAMA0 quiet loglevel=0 panic=-1",
                   "-drive", f"if=none,id=disk,file={home / 'disk'},format=raw",
                   "-device", "virtio-blk-pci,drive=disk",
                   "-netdev", f"user,id=net,restrict={'off' if wanted.net else 'on'}",
                   "-device", "virtio-net-pci,netdev=net,romfile=",
                   *_shared("control", control),
                   *_shared("host", wanted.share or empty))  # fmt: skip
        _do(*machine, "-machine", f"virt,dumpdtb={tree}", quiet=True)
        _rename(tree, board)
        subprocess.run([*machine, "-machine", "virt", "-dtb", tree], check=True)
        status = control / "status"
        return int(status.read_text()) if status.exists() else 1


def _shared(tag: str, folder: Path) -> tuple[str, str]:
    return "-virtfs", f"local,path={folder},mount_tag={tag},security_model=none,id={tag}"


def _rename(tree: Path, board: Board) -> None:
    """Gives QEMU's device tree the names of another board."""
    source = subprocess.run(
        ["dtc", "-q", "-I", "dtb", "-O", "dts", tree], check=True, capture_output=True, text=True
    ).stdout
    names = ", ".join(f'"{each}"' for each in board.compatible)
    for old, new in (
        ('compatible = "linux,dummy-virt"', f"compatible = {names}"),
        ('model = "linux,dummy-virt"', f'model = "{board.model}"'),
    ):
        source = source.replace(old, new)
    subprocess.run(
        ["dtc", "-q", "-I", "dts", "-O", "dtb", "-o", tree], check=True, input=source, text=True
    )


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _do(*command: str | Path, quiet: bool = False) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=quiet)


def _tell(what: str) -> None:
    print(f"arm board: {what}", file=sys.stderr, flush=True)


def main() -> int:
    """Makes a board or runs a command on one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    tasks = parser.add_subparsers(dest="what", required=True)
    tasks.add_parser("make", help="fetch and install what a board is")
    runs = tasks.add_parser("run", help="start a board and run a command there")
    runs.add_argument("--as", dest="name", choices=sorted(BOARDS), default="rpi5")
    runs.add_argument("--kernel", choices=sorted(KERNELS), default="6.1")
    runs.add_argument("--share", type=Path, metavar="FOLDER", help="is /host there")
    runs.add_argument("--net", action="store_true", help="lets it reach this machine and beyond")
    runs.add_argument("command", nargs=argparse.REMAINDER)
    asked = parser.parse_args()
    missing = [package for tool, package in _TOOLS.items() if shutil.which(tool) is None]
    if missing:
        print(f"arm board: apt-get install {' '.join(missing)}", file=sys.stderr)
        return 2
    try:
        if asked.what == "make":
            make(_HOME)
            return 0
        if not (_HOME / "disk").exists():
            print("arm board: there is none; `sudo python scripts/arm_board.py make`",
                  file=sys.stderr)  # fmt: skip
            return 2
        wanted = Wanted(asked.name, asked.kernel, asked.share, asked.net)
        command = asked.command[asked.command[:1] == ["--"] :]
        return run(_HOME, wanted, command or ["sh"])
    except subprocess.CalledProcessError as error:
        print(f"arm board: {error.cmd[0]} ended with {error.returncode}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
