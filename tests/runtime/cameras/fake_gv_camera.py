"""A GigE Vision line camera that does not exist: Aravis' fake camera, with our own web, and with faults on request.

What it sends goes over real sockets. Each line begins with its number and the time by `time.monotonic_ns()` at which it
was made; the rest of it repeats with the number of the line. Run it in a network namespace of its own:

  python fake_gv_camera.py INTERFACE_OR_ADDRESS WIDTH [FIRST_LINE [WEB]]

WEB is an array of uint8 (lines, WIDTH), a .npy file: its lines are sent over and over, as they are. A number in their
first pixels would be a defect to whoever inspects them.

Commands come line by line on standard input, and the answer to each is the number of lines made so far:

  lines            nothing else
  loss RATIO       share of packets that are lost from now on
  register A V     writes a register, hexadecimal, as if the camera changed itself
  skip N           the ids of frames leap by N, as if so many had been lost before they were sent; their lines are counted
  repeat N         the last frame is sent again N times, under its id
  id N             the next frame has this id, and the ids go on from there
  back NS          the camera's clock goes back
"""

import ctypes
import struct
import sys
import time

import numpy as np

STAMP = struct.Struct("<QQ")
"""Number and time of a line, its first 16 pixels."""

SENSOR_HEIGHT, SENSOR_WIDTH, WIDTH, HEIGHT = 0x118, 0x11C, 0x100, 0x104
"""Registers of Aravis' fake camera."""


class Camera:
    """The camera, whose frames Aravis asks for in a thread of its own."""

    def __init__(self, interface: str, width: int, first_line: int = 0, web: str = "") -> None:
        self.library = ctypes.CDLL("libaravis-0.8.so.0")
        self.gobject = ctypes.CDLL("libgobject-2.0.so.0")
        pointer, number, long = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
        self.fill_type = ctypes.CFUNCTYPE(None, pointer, pointer, number, number, number)
        for name, result, *arguments in (
            ("gv_fake_camera_new", pointer, ctypes.c_char_p, ctypes.c_char_p),
            ("gv_fake_camera_get_fake_camera", pointer, pointer),
            ("fake_camera_set_fill_pattern", None, pointer, self.fill_type, pointer),
            ("fake_camera_write_register", ctypes.c_int, pointer, number, number),
            ("fake_camera_read_register", ctypes.c_int, pointer, number, ctypes.POINTER(number)),
            ("buffer_get_data", pointer, pointer, ctypes.POINTER(ctypes.c_size_t)),
            ("buffer_get_timestamp", long, pointer),
            ("buffer_set_timestamp", None, pointer, long),
            ("buffer_get_frame_id", long, pointer),
            ("buffer_set_frame_id", None, pointer, long),
        ):
            function = getattr(self.library, f"arv_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)
        self.gobject.g_object_set.argtypes = [pointer, ctypes.c_char_p]
        self.line = first_line
        self.frame_id: int | None = None
        self.repeats = 0
        self.back_ns = 0
        self.gv = self.gv_fake_camera_new(interface.encode(), b"WEB1")
        if not self.gv:
            raise SystemExit(f"no camera can listen on {interface}")
        self.fake = self.gv_fake_camera_get_fake_camera(self.gv)
        for register, value in ((SENSOR_WIDTH, width), (SENSOR_HEIGHT, 65536)):
            self.write(register, value)
        # Made beforehand, since nothing may be slow while frames are sent.
        self.rows = np.load(web) if web else np.random.default_rng(0).integers(0, 256, (512, 8192), np.uint8)
        self.has_stamps = not web
        self.callback = self.fill_type(self.fill)
        self.fake_camera_set_fill_pattern(self.fake, self.callback, None)

    def write(self, register: int, value: int) -> None:
        self.fake_camera_write_register(self.fake, register, value)

    def read(self, register: int) -> int:
        value = ctypes.c_uint32()
        self.fake_camera_read_register(self.fake, register, ctypes.byref(value))
        return value.value

    def fill(self, buffer: int, *_: object) -> None:
        if self.repeats:
            self.repeats -= 1
            self.buffer_set_frame_id(buffer, self.frame_id)
            return
        now_ns = time.monotonic_ns()
        lines, width = self.read(HEIGHT), self.read(WIDTH)
        pixels = np.ctypeslib.as_array((ctypes.c_uint8 * (lines * width)).from_address(self.data(buffer)))
        web = pixels.reshape(lines, width)
        done = 0
        while done < lines:
            start = (self.line + done) % len(self.rows)
            part = self.rows[start : start + lines - done, :width]
            web[done : done + len(part)] = part
            done += len(part)
        if self.has_stamps:
            stamps = web[:, : STAMP.size]
            stamps[:, :8] = np.arange(self.line, self.line + lines, dtype="<u8").view(np.uint8).reshape(lines, 8)
            stamps[:, 8:] = np.full(lines, now_ns, "<u8").view(np.uint8).reshape(lines, 8)
        self.line += lines
        self.number(buffer)
        if self.back_ns:
            self.buffer_set_timestamp(buffer, self.buffer_get_timestamp(buffer) - self.back_ns)

    def data(self, buffer: int) -> int:
        return self.buffer_get_data(buffer, ctypes.byref(ctypes.c_size_t()))

    def number(self, buffer: int) -> None:
        if self.frame_id is None:
            self.frame_id = self.buffer_get_frame_id(buffer)
        else:
            self.frame_id = self.frame_id % 65535 + 1
        self.buffer_set_frame_id(buffer, self.frame_id)

    def obey(self, command: str, *values: str) -> None:
        if command == "loss":
            self.gobject.g_object_set(
                self.gv, b"gvsp-lost-ratio", ctypes.c_double(float(values[0])), ctypes.c_void_p(None)
            )
        elif command == "register":
            self.write(int(values[0], 16), int(values[1], 16))
        elif command == "skip":
            self.frame_id = (self.frame_id + int(values[0]) - 1) % 65535 + 1
            self.line += int(values[0]) * self.read(HEIGHT)
        elif command == "repeat":
            self.repeats = int(values[0])
        elif command == "id":
            self.frame_id = int(values[0]) - 1
        elif command == "back":
            self.back_ns = int(values[0])


def main() -> None:
    interface, width, *first_line_and_web = sys.argv[1:]
    camera = Camera(interface, int(width), int((first_line_and_web or ["0"])[0]), *first_line_and_web[1:])
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for command in sys.stdin:
        camera.obey(*command.split())
        sys.stdout.write(f"{camera.line}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
