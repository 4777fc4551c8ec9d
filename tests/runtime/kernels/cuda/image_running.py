"""The calls of the kernels on images and maps, made on a device and waited for, and random data for them."""

import cv2
import numpy as np

from flawline.runtime.kernels.cuda import image_calls
from flawline.runtime.kernels.cuda.image_jobs import PART
from flawline.runtime.kernels.pse import ProximalError
from tests.runtime.kernels.cases import poisoned


def random_maps(rng, frames, size):
    """Not negative, as distances are."""
    return rng.gamma(2, 3, (frames, *size)).astype(np.float32)


def smooth(device, maps, sigma, *, order=0, kernel=None):
    """Smoothed maps and scores, by the kernel that is planned or another."""
    call = image_calls.smooth(maps.shape[1:], len(maps), sigma, device.put)
    call.job["maps"] = device.put(maps)
    call.job["out"] = out = device.put(poisoned(*maps.shape))
    call.job["scores"] = scores = device.put(np.zeros(len(maps), np.float32))
    device.launch(kernel or call.kernel, call.launch, call.job, order)
    return device.get(out), device.get(scores)


def random_pair(rng, dtype, *shape):
    """Images and what a poor reconstruction makes of them, in grey levels."""
    image = rng.integers(0, 256, shape).astype(dtype)
    return image, (image + rng.normal(0, 30, shape)).astype(np.float32)


def saliency(device, given, squared, *, order=0):
    """Maps and scores of what a network gives as saliency, (frames, height, width)."""
    call = image_calls.saliency(given.shape[1:], len(given), squared=squared)
    call.job["saliency"] = device.put(given)
    call.job["map"] = out = device.put(poisoned(*given.shape))
    call.job["scores"] = scores = device.put(np.zeros(len(given), np.float32))
    device.launch(*call, order)
    return device.get(out), device.get(scores)


class Errors:
    """The kernel for images of a shape, (B, channels, height, width), with the memory that it keeps between launches."""

    def __init__(self, device, image, sigma, *, planar=True, planar_reconstruction=True, normalised=True):
        frames, channels, *size = image.shape
        self._device = device
        self._planar = planar, planar_reconstruction
        self._call = image_calls.proximal_error(
            size,
            frames,
            sigma,
            image.dtype,
            device.put,
            channels=channels,
            planar=planar,
            planar_reconstruction=planar_reconstruction,
            normalised=normalised,
        )
        self.kernel = self._call.kernel
        self._call.job["parts"] = device.put(np.zeros((frames, image_calls.error_parts(size)), PART))
        self._call.job["finished"] = device.put(np.zeros(frames, np.uint32))

    def __call__(self, image, reconstruction, *, order=0, kernel=None):
        device, job = self._device, self._call.job
        frames, _, *size = image.shape
        for name, array, planar in zip(("image", "reconstruction"), (image, reconstruction), self._planar, strict=True):
            job[name] = device.put(array if planar else array.transpose(0, 2, 3, 1))
        job["map"] = device.put(poisoned(frames, *size))
        job["maxima"], job["means"] = device.put(poisoned(frames)), device.put(poisoned(frames))
        device.launch(kernel or self.kernel, self._call.launch, job, order)
        return ProximalError(*(device.get(int(job[name])) for name in ("map", "maxima", "means")))


def frame_maps(device, maps, frame_size, *, threshold=np.inf, upsampling="bilinear", wanted=("out", "mask"), order=0):
    """The maps and masks at the size of frames, those that are wanted."""
    call = image_calls.frame_map(
        maps.shape[1:], frame_size, len(maps), device.put, threshold=threshold, upsampling=upsampling
    )
    shape = (len(maps), *frame_size)
    buffers = {"out": poisoned(*shape), "mask": np.full(shape, 7, np.uint8)}
    call.job["maps"] = device.put(maps)
    for name in wanted:
        call.job[name] = device.put(buffers[name])
    device.launch(*call, order=order)
    return [device.get(int(call.job[name])) for name in wanted]


def random_frames(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


def preprocess(device, frames, size, interpolation="area", *, planar=False, within=None, slots=None, first=0, order=0):
    """The kernel, and the network's input, (B, height, width, channels), with the frames from slot `first` on.

    Frames are of that form too, or views of what they lie within. Slots that no frame is for hold 7.
    """
    channels = frames.shape[3]
    call = image_calls.preprocess(
        frames.shape[1:3],
        size,
        len(frames),
        device.put,
        channels=channels,
        planar=planar,
        interpolation=interpolation,
    )
    whole = frames if within is None else within
    slots = slots or len(frames)
    target = device.put(np.full((slots, channels, *size) if planar else (slots, *size, channels), 7, np.uint8))
    pixels = call.job["pixels"]
    pixels["source"] = device.put(whole) + frames.ctypes.data - whole.ctypes.data
    pixels["frame_stride"], pixels["row_stride"] = frames.strides[:2]
    pixels["target"] = target + first * size[0] * size[1] * channels
    device.launch(*call, order=order)
    out = device.get(target)
    return call.kernel, out.transpose(0, 2, 3, 1) if planar else out


def resized(frames, size, interpolation="area"):
    """The same by OpenCV, with the rules of `flawline.runtime.extractor`."""
    shrinks = frames.shape[1] >= size[0] and frames.shape[2] >= size[1]
    method = cv2.INTER_AREA if interpolation == "area" and shrinks else cv2.INTER_LINEAR
    out = [cv2.resize(frame, size[::-1], interpolation=method) for frame in frames]
    return np.reshape(out, (len(frames), *size, frames.shape[3]))
