import os, shutil, subprocess, sys, time

d = sys.argv[1] + "/garth-bench-files"
shutil.rmtree(d, ignore_errors=True)
os.makedirs(d)
os.chdir(d)
block = os.urandom(1 << 20)


def timed(name, work):
    begin = time.perf_counter()
    work()
    print(name.replace(" ", "_"), (time.perf_counter() - begin) * 1e3)


def sequential():
    f = os.open("big", os.O_CREAT | os.O_WRONLY)
    for _ in range(48):
        os.write(f, block)
    os.fsync(f)
    os.close(f)


def sequential_read():
    f = os.open("big", os.O_RDONLY)
    os.posix_fadvise(f, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.read(f, 1 << 20):
        pass
    os.close(f)


def synced():
    f = os.open("log", os.O_CREAT | os.O_WRONLY)
    for _ in range(60):
        os.write(f, block[:4096])
        os.fsync(f)
    os.close(f)


def make():
    for i in range(1000):
        with open(f"s{i}", "wb") as f:
            f.write(block[:2048])


def read():
    for i in range(1000):
        with open(f"s{i}", "rb") as f:
            f.read()


def look():
    for i in range(1000):
        os.stat(f"s{i}")
        os.chmod(f"s{i}", 0o640)
        os.rename(f"s{i}", f"t{i}")


def remove():
    for i in range(1000):
        os.unlink(f"t{i}")


def compile_c():
    for i in range(3):
        with open(f"c{i}.c", "w") as f:
            f.write("#include <stdio.h>\n#include <stdlib.h>\n")
            for n in range(40):
                f.write(f"int f{n}(int a) {{ for (int i = 0; i < a; i++) a ^= i * {n}; return printf(\"%d\", a); }}\n")
            f.write("int main(void) { return f0(1); }\n")
        subprocess.run(["cc", "-O1", "-o", f"c{i}", f"c{i}.c"], check=True)


# What a test runner does: a process for each case, some computing in it, a small file.
def cases():
    for i in range(60):
        pid = os.fork()
        if pid == 0:
            with open(f"case{i}", "w") as f:
                f.write(str(sum(n * n for n in range(10000))))
            os._exit(0)
        os.waitpid(pid, 0)


def interpreters():
    for _ in range(6):
        subprocess.run([sys.executable, "-c", "import json, unittest"], check=True)


timed("write 48 MiB, fsync", sequential)
timed("read 48 MiB", sequential_read)
timed("60 x write 4 KiB, fsync", synced)
timed("make 1000 files of 2 KiB", make)
timed("read them", read)
timed("stat, chmod, rename them", look)
timed("remove them", remove)
if "files" not in sys.argv:
    if shutil.which("cc"):
        timed("compile and link 3 C programs", compile_c)
    timed("60 test cases, a fork each", cases)
    timed("start 6 Python interpreters", interpreters)
os.chdir("/")
shutil.rmtree(d)
