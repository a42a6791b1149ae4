import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
def call(number, *arguments):
    given = [a if isinstance(a, (bytes, ctypes.Array)) else ctypes.c_long(a) for a in arguments]
    result = libc.syscall(ctypes.c_long(number), *given)
    return result if result >= 0 else '-' + errno.errorcode[ctypes.get_errno()]
def mount(source, target, kind, flags=0, data=None):
    result = libc.mount(source, target, kind, ctypes.c_ulong(flags), data)
    return result if result >= 0 else '-' + errno.errorcode[ctypes.get_errno()]
def umount(target, flags=0):
    result = libc.umount2(target, flags)
    return result if result >= 0 else '-' + errno.errorcode[ctypes.get_errno()]
def want(wanted, *got):
    for one in got:
        if one != wanted:
            sys.exit(f'{got} and not {wanted}')
def attributes(set=0, clear=0):
    return struct.pack('QQQQ', set, clear, 0, 0)
# x86-64
OPEN_TREE, MOVE_MOUNT, FSOPEN, FSCONFIG, FSMOUNT, MOUNT_SETATTR, OPENAT2, PIVOT_ROOT = 428, 429, 430, 431, 432, 442, 437, 155
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, BIND, MOVE, REC = 1, 2, 4, 8, 32, 4096, 8192, 16384
