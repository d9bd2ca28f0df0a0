"""The filter of system calls for programs that a model wrote.

It is a classic BPF program for `seccomp(2)`, assembled here without a library.
It lists forbidden calls, since interpreters and compilers need different
ones. Calls that Linux added after 6.0 are unknown to the program.
"""

import functools
import platform
import struct

from r1jax.errors import UserError

# Name -> number on (x86_64, aarch64); None if the latter never had the call.
_DENIED = {
  # Other processes.
  "ptrace": (101, 117),
  "process_vm_readv": (310, 270),
  "process_vm_writev": (311, 271),
  "process_madvise": (440, 440),
  "process_mrelease": (448, 448),
  "kcmp": (312, 272),
  "pidfd_open": (434, 434),
  "pidfd_getfd": (438, 438),
  # Mounts, roots and namespaces.
  "mount": (165, 40),
  "umount2": (166, 39),
  "pivot_root": (155, 41),
  "chroot": (161, 51),
  "open_tree": (428, 428),
  "move_mount": (429, 429),
  "fsopen": (430, 430),
  "fsconfig": (431, 431),
  "fsmount": (432, 432),
  "fspick": (433, 433),
  "mount_setattr": (442, 442),
  "name_to_handle_at": (303, 264),
  "open_by_handle_at": (304, 265),
  "unshare": (272, 97),
  "setns": (308, 268),
  "sethostname": (170, 161),
  "setdomainname": (171, 162),
  # Files of all: locks, the cache of their content, news of their use. The
  # kernel keeps attributes and watches in memory that no limit counts.
  "flock": (73, 32),
  "fadvise64": (221, 223),
  "readahead": (187, 213),
  "sync": (162, 81),
  "syncfs": (306, 267),
  "sync_file_range": (277, 84),
  "sync_file_range2": (None, 84),
  "inotify_init": (253, None),
  "inotify_init1": (294, 26),
  "inotify_add_watch": (254, 27),
  "setxattr": (188, 5),
  "lsetxattr": (189, 6),
  "fsetxattr": (190, 7),
  "lookup_dcookie": (212, 18),
  # Communication: sockets of any family, System V and POSIX queues.
  "socket": (41, 198),
  "socketpair": (53, 199),
  "msgget": (68, 186),
  "semget": (64, 190),
  "mq_open": (240, 180),
  # Memory that no limit of a process counts, or that is placed explicitly.
  "shmget": (29, 194),
  "shmat": (30, 196),
  "memfd_create": (319, 279),
  "memfd_secret": (447, 447),
  "userfaultfd": (323, 282),
  "vmsplice": (278, 75),
  "mbind": (237, 235),
  "set_mempolicy": (238, 237),
  "migrate_pages": (256, 238),
  "move_pages": (279, 239),
  # Parts of the kernel that had security holes before.
  "bpf": (321, 280),
  "perf_event_open": (298, 241),
  "io_uring_setup": (425, 425),
  "io_uring_enter": (426, 426),
  "io_uring_register": (427, 427),
  "add_key": (248, 217),
  "request_key": (249, 218),
  "keyctl": (250, 219),
  "fanotify_init": (300, 262),
  "personality": (135, 92),
  "modify_ldt": (154, None),
  # The machine.
  "kexec_load": (246, 104),
  "kexec_file_load": (320, 294),
  "init_module": (175, 105),
  "finit_module": (313, 273),
  "delete_module": (176, 106),
  "reboot": (169, 142),
  "swapon": (167, 224),
  "swapoff": (168, 225),
  "acct": (163, 89),
  "quotactl": (179, 60),
  "quotactl_fd": (443, 443),
  "syslog": (103, 116),
  "iopl": (172, None),
  "ioperm": (173, None),
  "settimeofday": (164, 170),
  "adjtimex": (159, 171),
  "clock_settime": (227, 112),
  "clock_adjtime": (305, 266),
}  # fmt: skip
_FORKS = {"fork": (57, None), "vfork": (58, None)}
# Name -> (numbers, the argument that counts, the values that are allowed). The
# commands of fcntl are those that read or set the flags of a descriptor, copy
# it, or tell the size of a pipe and the seals of a file: no locks, leases,
# owners or larger pipes. The advice concerns only the caller's own memory.
_ALLOWED = {
  "fcntl": ((72, 25), 1, (0, 1, 2, 3, 4, 1030, 1032, 1034)),
  "madvise": ((28, 233), 2, (0, 1, 2, 3, 4, 8, 10, 11, 14, 15, 16, 17)),
}
_CLONE = (56, 220)
_CLONE3 = 435
# set_mempolicy_home_node, the last call of Linux 6.0. The calls of x32 have
# numbers from 2^30 on, so they are refused with the newer ones.
_LAST = 450

_MACHINES = {"x86_64": 0, "aarch64": 1}
_AUDIT_ARCH = (0xC000003E, 0xC00000B7)

# linux/sched.h: NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID
# and NEWNET.
_CLONE_NEW = 0x80 | 0x20000 | 0x2000000 | 0x7C000000
_CLONE_THREAD = 0x10000

# linux/bpf_common.h and linux/seccomp.h.
_LOAD, _RETURN = 0x20, 0x06
_JUMP_EQUAL, _JUMP_ABOVE, _JUMP_SET = 0x15, 0x25, 0x45
_KILL, _ALLOW = 0x80000000, 0x7FFF0000
_EPERM, _ENOSYS = 0x00050001, 0x00050026
# Offsets in struct seccomp_data. The last is that of the low half of the first
# argument, since both machines are little endian; each argument has 8 bytes.
_NUMBER, _ARCH, _ARGUMENT = 0, 4, 16


@functools.cache
def program(machine: str | None = None, *, forks: bool = False) -> bytes:
  """The filter in the format of `bwrap --seccomp` and the kernel.

  Args:
    machine: "x86_64" or "aarch64"; by default this machine.
    forks: whether new processes are allowed; new threads always are.

  Returns:
    bytes: an array of struct sock_filter.

  Raises:
    UserError: there is no table of system calls for the machine.
  """
  machine = machine or platform.machine()
  if machine not in _MACHINES:
    raise UserError(
      f'code tests: no system call table for "{machine}"; known:'
      f" {', '.join(_MACHINES)}"
    )
  column = _MACHINES[machine]
  steps = []

  def add(code, k, if_true=0, if_false=0):
    steps.append(struct.pack("<HBBI", code, if_true, if_false, k))

  def answer(jump, k, action):
    add(jump, k, 0, 1)
    add(_RETURN, action)

  add(_LOAD, _ARCH)
  add(_JUMP_EQUAL, _AUDIT_ARCH[column], 1, 0)
  add(_RETURN, _KILL)
  add(_LOAD, _NUMBER)
  answer(_JUMP_ABOVE, _LAST, _ENOSYS)
  # The flags of clone3 are in memory, where a filter cannot see them. Libraries
  # then use clone.
  answer(_JUMP_EQUAL, _CLONE3, _ENOSYS)
  for numbers in (_DENIED if forks else _DENIED | _FORKS).values():
    if numbers[column] is not None:
      answer(_JUMP_EQUAL, numbers[column], _EPERM)
  for numbers, argument, values in _ALLOWED.values():
    add(_JUMP_EQUAL, numbers[column], 0, 2 * len(values) + 2)
    add(_LOAD, _ARGUMENT + 8 * argument)
    for value in values:
      answer(_JUMP_EQUAL, value, _ALLOW)
    add(_RETURN, _EPERM)
  add(_JUMP_EQUAL, _CLONE[column], 1, 0)
  add(_RETURN, _ALLOW)
  add(_LOAD, _ARGUMENT)
  answer(_JUMP_SET, _CLONE_NEW, _EPERM)
  if not forks:
    add(_JUMP_SET, _CLONE_THREAD, 1, 0)
    add(_RETURN, _EPERM)
  add(_RETURN, _ALLOW)
  return b"".join(steps)
