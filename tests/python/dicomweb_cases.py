"""Instances to store by DICOMweb: the slices of a phantom, and objects derived from them."""

import io

import highdicom as hd
import numpy as np
import pydicom
from pydicom.sr.codedict import codes
from pydicom.uid import ExplicitVRLittleEndian, generate_uid


def encoded(dataset):
    """The bytes of a DICOM file."""
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def segmentation(slices, kind):
    """A SEG of the given type with two segments over all slices."""
    labels = np.zeros((len(slices), slices[0].Rows, slices[0].Columns), np.uint8)
    labels[:, 5:20, 7:31], labels[2:5, 30:41, 9:12] = 1, 2
    described = [
        hd.seg.SegmentDescription(
            segment_number=number, segment_label=label, segmented_property_category=codes.SCT.Organ,
            segmented_property_type=property_type,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, label, property_type in [(1, "liver", codes.SCT.Liver), (2, "spleen", codes.SCT.Spleen)]
    ]
    return hd.seg.Segmentation(
        source_images=slices, pixel_array=labels, segmentation_type=kind, segment_descriptions=described,
        series_instance_uid=generate_uid(), series_number=900, sop_instance_uid=generate_uid(),
        instance_number=1, manufacturer="tests", manufacturer_model_name="tests", software_versions="1",
        device_serial_number="1", transfer_syntax_uid=ExplicitVRLittleEndian,
    )


def of_study(source, sop_class, modality):
    """An instance without an image, in the study of `source`."""
    made = pydicom.Dataset()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyID",
                    "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName"):
        setattr(made, keyword, source.get(keyword, ""))
    made.SOPClassUID, made.SOPInstanceUID = sop_class, generate_uid()
    made.SeriesInstanceUID, made.SeriesNumber, made.InstanceNumber = generate_uid(), 901, 1
    made.Modality, made.SeriesDescription = modality, "made by a test"
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID, made.file_meta.MediaStorageSOPInstanceUID = sop_class, made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return made


def report(source):
    """A structured report with a single text."""
    made = of_study(source, "1.2.840.10008.5.1.4.1.1.88.33", "SR")
    made.CompletionFlag, made.VerificationFlag, made.ContentDate, made.ContentTime = "COMPLETE", "UNVERIFIED", "20240101", "10"
    name = pydicom.Dataset()
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121070", "DCM", "Findings"
    item = pydicom.Dataset()
    item.ValueType, item.RelationshipType, item.TextValue = "TEXT", "CONTAINS", "größer"
    item.ConceptNameCodeSequence = [name]
    made.SpecificCharacterSet = "ISO_IR 192"
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "SEPARATE"
    made.ConceptNameCodeSequence, made.ContentSequence = [name], [item]
    return made


def screenshot(source):
    """A Secondary Capture in colour."""
    made = of_study(source, "1.2.840.10008.5.1.4.1.1.7", "OT")
    made.Rows, made.Columns, made.SamplesPerPixel, made.PlanarConfiguration = 5, 3, 3, 0
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PhotometricInterpretation, made.ConversionType = "RGB", "WSD"
    made.PixelData = bytes(range(45)) + b"\0"
    made["PixelData"].VR = "OB"
    return made
