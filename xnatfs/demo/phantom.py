"""A synthetic MR series: a smooth 3-D phantom with noise, the same bytes every time.

dcm2niix makes one volume of it; UIDs, positions and dates follow from the slice number.
"""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage

SIDE = 256
_UID = "1.2.826.0.1.3680043.10.1339"
_BLOBS = (  # centre and radius as parts of the volume, brightness
    ((0.50, 0.50, 0.50), (0.36, 0.42, 0.40), 500.0),
    ((0.50, 0.38, 0.52), (0.10, 0.08, 0.16), 350.0),
    ((0.38, 0.58, 0.48), (0.12, 0.14, 0.12), -180.0),
    ((0.62, 0.58, 0.48), (0.12, 0.14, 0.12), 240.0),
)


def _volume(slices: int, side: int) -> Iterator[NDArray[np.uint16]]:
    noise = np.random.default_rng(20210408)
    y, x = np.mgrid[0:side, 0:side] / np.float32(side)
    for number in range(slices):
        z = np.float32((number + 0.5) / slices)
        plane = np.zeros((side, side), np.float32)
        for (cx, cy, cz), (rx, ry, rz), light in _BLOBS:
            distance = ((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + ((z - cz) / rz) ** 2
            plane += np.float32(light) * np.clip(1.5 - distance, 0, 1)
        plane += noise.integers(0, 40, (side, side), dtype=np.uint16)
        yield np.clip(plane, 0, 4095).astype(np.uint16)


def series(
    slices: int, *, number: int, description: str, side: int = SIDE
) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each DICOM file of a series; about 2·side² bytes each."""
    for index, plane in enumerate(_volume(slices, side), start=1):
        yield (
            f"{_UID}.{number}.{index}.dcm",
            _file(plane, index=index, number=number, description=description),
        )


def _file(plane: NDArray[np.uint16], *, index: int, number: int, description: str) -> bytes:
    side = plane.shape[0]
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"{_UID}.{number}.{index}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = UID(f"{_UID}.0")
    image = FileDataset("", Dataset(), file_meta=meta, preamble=bytes(128))
    image.update(_header(side, index=index, number=number, description=description))
    image.add_new("PixelData", "OW", plane.astype("<u2").tobytes())
    out = io.BytesIO()
    image.save_as(out, enforce_file_format=True)
    return out.getvalue()


_ALWAYS = {
    "SpecificCharacterSet": "ISO_IR 100", "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
    "SOPClassUID": MRImageStorage, "AccessionNumber": "", "Modality": "MR",
    "StudyDate": "20210408", "SeriesDate": "20210408", "AcquisitionDate": "20210408",
    "StudyTime": "192845.000", "SeriesTime": "192845.000", "AcquisitionTime": "192845.000",
    "Manufacturer": "SIEMENS", "ManufacturerModelName": "Phantom", "StudyDescription": "Demo",
    "PatientName": "Haofei01", "PatientID": "Haofei01_MR1", "PatientBirthDate": "",
    "PatientSex": "O", "ScanningSequence": "GR", "SequenceVariant": "SP",
    "MRAcquisitionType": "3D", "SliceThickness": "1", "RepetitionTime": "2300",
    "EchoTime": "2.98", "MagneticFieldStrength": "3", "FlipAngle": "9", "PatientPosition": "HFS",
    "StudyInstanceUID": f"{_UID}.1", "FrameOfReferenceUID": f"{_UID}.2", "AcquisitionNumber": "1",
    "ImageOrientationPatient": ["1", "0", "0", "0", "1", "0"], "SamplesPerPixel": 1,
    "PhotometricInterpretation": "MONOCHROME2", "PixelSpacing": ["1", "1"], "BitsAllocated": 16,
    "BitsStored": 12, "HighBit": 11, "PixelRepresentation": 0,
}  # fmt: skip


def _header(side: int, *, index: int, number: int, description: str) -> Dataset:
    head, corner, height = Dataset(), f"{-side / 2:g}", f"{index - 97:g}"
    own = {
        "SOPInstanceUID": f"{_UID}.{number}.{index}", "SeriesInstanceUID": f"{_UID}.{number}",
        "SeriesDescription": description, "ProtocolName": description,
        "SeriesNumber": str(number), "InstanceNumber": str(index), "Rows": side, "Columns": side,
        "ImagePositionPatient": [corner, corner, height], "SliceLocation": height,
    }  # fmt: skip
    for name, value in (_ALWAYS | own).items():
        setattr(head, name, value)
    return head
