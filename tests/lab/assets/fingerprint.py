# Prints one line for each entry below the given roots: everything that a restore must bring back.
# usage: fingerprint ROOT...
# Two trees are equal when their lines are equal. Hard links are told by the first path of their inode; holes by the
# list of data ranges.
import hashlib
import os
import stat
import sys

KINDS = {stat.S_IFREG: "file", stat.S_IFDIR: "dir", stat.S_IFLNK: "link", stat.S_IFIFO: "fifo", stat.S_IFSOCK: "socket",
         stat.S_IFCHR: "char", stat.S_IFBLK: "block"}
first_paths = {}


def data_ranges(fd, size):
    ranges, at = [], 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        ranges.append("%d-%d" % (begin, at))
    return "+".join(ranges) or "none"


def content(path, size):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while True:
            part = file.read(1 << 20)
            if not part:
                break
            digest.update(part)
        return digest.hexdigest()[:32] + " data=" + data_ranges(file.fileno(), size)


def entry(path, shown):
    info = os.lstat(path)
    kind = KINDS[stat.S_IFMT(info.st_mode)]
    words = [repr(shown), kind, "%04o" % stat.S_IMODE(info.st_mode), "%d:%d" % (info.st_uid, info.st_gid),
             "mtime=%d" % info.st_mtime_ns]
    for name in sorted(os.listxattr(path, follow_symlinks=False)):
        words.append("%s=%s" % (name, os.getxattr(path, name, follow_symlinks=False).hex()))
    if kind == "link":
        words.append("-> " + repr(os.readlink(path)))
    if kind != "dir" and info.st_nlink > 1:
        words.append("same-as=" + repr(first_paths.setdefault((info.st_dev, info.st_ino), shown)))
    if kind == "file":
        words.append("size=%d %s" % (info.st_size, content(path, info.st_size)))
    print(" ".join(words))
    if kind == "dir":
        for name in sorted(os.listdir(path)):
            entry(path + b"/" + name, shown + b"/" + name)


for root in sys.argv[1:]:
    root = os.fsencode(root)
    entry(root, b".")
