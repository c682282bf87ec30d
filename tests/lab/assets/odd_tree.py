# Makes a small tree of everything that is hard to back up. usage: odd_tree DIRECTORY [OWNER]
import os
import pwd
import socket
import sys

base = os.fsencode(sys.argv[1])
os.makedirs(base)


def path(*names):
    return b"/".join((base,) + names)


def write(name, data, mode=0o644):
    with open(path(name), "wb") as file:
        file.write(data)
    os.chmod(path(name), mode)


# Sizes around the limits of inline storage, one chunk, and one frame.
for size in (0, 1, 255, 256, 257, 4096, 131072, 131073, 3000000):
    write(b"size-%d" % size, bytes((i * 7 + size) % 251 for i in range(min(size, 4096))) * (size // 4096 + 1))
    os.truncate(path(b"size-%d" % size), size)

# Names: every byte but / and NUL is allowed.
for name in (b"new\nline", b"tab\tand space ", b"-rf", b"--", b"\xff\xfe not utf-8", "ümläut 文件".encode(), b"*?[a]'\"\\$(x)`y`",
             b"n" * 255, b"..x", b"%2F", b"\x01\x7f"):
    write(name, b"named " + name)

# Modes, also the special ones; one that its owner cannot read.
for mode in (0o000, 0o400, 0o755, 0o4755, 0o2755, 0o1644, 0o777):
    write(b"mode-%04o" % mode, b"mode", mode)
os.mkdir(path(b"sticky"))
os.chmod(path(b"sticky"), 0o1777)
os.mkdir(path(b"empty"), 0o700)

# Links: hard in two directories, soft, dangling, absolute, to itself, to a directory, long.
os.mkdir(path(b"links"))
write(b"hard", b"one inode, three names")
os.link(path(b"hard"), path(b"links", b"hard-2"))
os.link(path(b"hard"), path(b"links", b"hard-3"))
for name, target in ((b"soft", b"../hard"), (b"dangling", b"nowhere"), (b"absolute", b"/etc/passwd"), (b"self", b"self"),
                     (b"directory", b"../empty"), (b"long", b"x/" * 1000), (b"odd", b"new\nline \xff")):
    os.symlink(target, path(b"links", name))
os.link(path(b"links", b"soft"), path(b"links", b"soft-2"), follow_symlinks=False)

# Holes: at the beginning, in the middle, at the end, nothing but.
for name, size, parts in ((b"hole-begin", 1 << 20, [(1 << 19, b"end")]), (b"hole-middle", 1 << 20, [(0, b"a"), (917504, b"b")]),
                          (b"hole-end", 5000000, [(0, b"begin")]), (b"hole-only", 64 << 20, [])):
    with open(path(name), "wb") as file:
        for at, data in parts:
            file.seek(at)
            file.write(data)
        file.truncate(size)

# Attributes: small, large, binary; an access list; a capability; one on a directory and on a read-only file.
write(b"attributes", b"x", 0o440)
os.setxattr(path(b"attributes"), b"user.small", b"value")
os.setxattr(path(b"attributes"), b"user.binary", bytes(range(256)))
os.setxattr(path(b"attributes"), b"user.large", b"v" * 2000)
os.setxattr(path(b"empty"), b"user.directory", b"yes")
write(b"capable", b"x", 0o755)
write(b"listed", b"x")
os.system(b"setfacl -m u:33:rw,g:4:r " + path(b"listed") + b" && setfacl -d -m u:33:rwx " + path(b"sticky"))

# Things that are no files.
os.mkfifo(path(b"fifo"), 0o640)
socket.socket(socket.AF_UNIX).bind(path(b"socket"))

# Depth, and width.
deep = base
for level in range(60):
    deep += b"/level-%d" % level
    os.mkdir(deep)
with open(deep + b"/bottom", "wb") as file:
    file.write(b"found")
os.mkdir(path(b"wide"))
for number in range(3000):
    with open(path(b"wide", b"file-%04d" % number), "wb") as file:
        file.write(b"line of file %d\n" % number * (number % 90))

# The account's, and one entry that belongs to others. A change of owner takes set-id bits and capabilities off, so
# these are given again.
owner = pwd.getpwnam(sys.argv[2]) if len(sys.argv) > 2 else pwd.getpwuid(0)
for directory, names, files in os.walk(base):
    for name in [b"."] + names + files:
        os.lchown(directory + b"/" + name, owner.pw_uid, owner.pw_gid)
for mode in (0o4755, 0o2755):
    os.chmod(path(b"mode-%04o" % mode), mode)
os.setxattr(path(b"capable"), b"security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
write(b"owned", b"x")
os.chown(path(b"owned"), 33, 4)

# Times last, children before parents: before 1970, far away, and to the nanosecond.
TIMES = (-86400 * 10 ** 9 * 365 - 1, 1, 999999999, 4102444800 * 10 ** 9 + 123456789, 1700000000 * 10 ** 9 + 987654321)
count = 0
for directory, names, files in os.walk(base, topdown=False):
    for name in sorted(files) + sorted(n for n in names if os.path.islink(directory + b"/" + n)):
        os.utime(directory + b"/" + name, ns=(0, TIMES[count % 5]), follow_symlinks=False)
        count += 1
    os.utime(directory, ns=(0, TIMES[count % 5]))
    count += 1
