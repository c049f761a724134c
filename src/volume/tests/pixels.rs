//! Tests of the meaning of stored values.

use super::*;

/// Three slices, the second one changed.
fn changed(change: impl Fn(&mut Dataset)) -> Series {
    let mut slices: Vec<Dataset> = (0..3).map(|i| slice(i, [0., 0., i as f64], AXIAL)).collect();
    change(&mut slices[1]);
    series(slices)
}

fn put(tag: dicom_core::Tag, vr: VR, value: &'static str) -> impl Fn(&mut Dataset) {
    move |dataset| {
        dataset.put(DataElement::new(tag, vr, value));
    }
}

#[test]
fn a_value_that_would_be_read_wrongly_is_refused_by_name() {
    let ct = put(tags::MODALITY, VR::CS, "CT");
    type Change = Box<dyn Fn(&mut Dataset)>;
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(put(tags::RESCALE_INTERCEPT, VR::DS, "-1024,0")), "RescaleIntercept"),
        (Box::new(put(tags::RESCALE_SLOPE, VR::DS, "NaN")), "RescaleSlope"),
        (Box::new(put(tags::RESCALE_SLOPE, VR::DS, "inf")), "RescaleSlope"),
        (Box::new(put(tags::RESCALE_SLOPE, VR::DS, "0")), "RescaleSlope"),
        (Box::new(put(tags::RESCALE_SLOPE, VR::DS, "1\\2")), "RescaleSlope"),
        (
            Box::new(put(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "PALETTE COLOR")),
            "PhotometricInterpretation",
        ),
        (Box::new(put(tags::HIGH_BIT, VR::US, "11")), "HighBit"),
        (Box::new(put(tags::PIXEL_REPRESENTATION, VR::US, "2")), "PixelRepresentation"),
        (
            Box::new(|dataset: &mut Dataset| {
                dataset.remove_element(tags::PIXEL_REPRESENTATION);
            }),
            "PixelRepresentation",
        ),
        (
            // Having only one of the two is as bad as a wrong value, for any modality.
            Box::new(|dataset: &mut Dataset| {
                dataset.remove_element(tags::RESCALE_INTERCEPT);
            }),
            "RescaleIntercept",
        ),
        (
            Box::new(move |dataset: &mut Dataset| {
                dataset.remove_element(tags::RESCALE_INTERCEPT);
                dataset.remove_element(tags::RESCALE_SLOPE);
                ct(dataset);
            }),
            "RescaleSlope",
        ),
        (
            Box::new(|dataset: &mut Dataset| {
                let items = vec![Dataset::new_empty()];
                let items = dicom_core::value::DataSetSequence::from(items);
                dataset.put(DataElement::new(tags::MODALITY_LUT_SEQUENCE, VR::SQ, items));
            }),
            "ModalityLUTSequence",
        ),
    ];
    for (change, attribute) in cases {
        let e = plan(&changed(&change)).unwrap_err();
        assert!(
            e.message().contains("1.2.1") && e.message().contains(attribute),
            "{attribute}: {e}"
        );
        assert_eq!(e.details()["sopInstanceUID"], "1.2.1");
        assert_eq!(e.details()["attribute"], attribute, "{e}");
    }
}

#[test]
fn an_mr_without_a_rescale_is_taken_as_it_is() {
    let mut one = slice(1, [0.; 3], AXIAL);
    one.remove_element(tags::RESCALE_SLOPE);
    one.remove_element(tags::RESCALE_INTERCEPT);
    one.put(DataElement::new(tags::MODALITY, VR::CS, "MR"));
    let plan = plan(&series(vec![one])).unwrap();
    assert_eq!((plan.slices[0].rescale, plan.units), ((1.0, 0.0), None));
}

#[test]
fn monochrome1_is_inverted_before_the_rescale_as_itk_does() {
    // What ITK reads for stored 0, 1, 100 and 4095, 12 bits unsigned, with slope 2 and intercept
    // -10.
    let itk = [(0.0, 8180.0), (1.0, 8178.0), (100.0, 7980.0), (4095.0, -10.0)];
    let mut one = slice(1, [0.; 3], AXIAL);
    one.put(DataElement::new(tags::PHOTOMETRIC_INTERPRETATION, VR::CS, "MONOCHROME1"));
    one.put(DataElement::new(tags::BITS_STORED, VR::US, PrimitiveValue::from(12_u16)));
    one.put(DataElement::new(tags::PIXEL_REPRESENTATION, VR::US, PrimitiveValue::from(0_u16)));
    one.put(DataElement::new(tags::RESCALE_INTERCEPT, VR::DS, "-10"));
    let unsigned = plan(&series(vec![one.clone()])).unwrap();
    let (slope, intercept) = unsigned.slices[0].rescale;
    for (stored, expected) in itk {
        assert_eq!(stored * slope + intercept, expected);
    }
    assert!(unsigned.warnings.iter().any(|w| w.contains("MONOCHROME1")), "{:?}", unsigned.warnings);
    // Signed 16 bits: 1712 becomes -1713, 0 becomes -1.
    one.put(DataElement::new(tags::BITS_STORED, VR::US, PrimitiveValue::from(16_u16)));
    one.put(DataElement::new(tags::PIXEL_REPRESENTATION, VR::US, PrimitiveValue::from(1_u16)));
    one.put(DataElement::new(tags::RESCALE_SLOPE, VR::DS, "1"));
    one.put(DataElement::new(tags::RESCALE_INTERCEPT, VR::DS, "0"));
    let (slope, intercept) = plan(&series(vec![one])).unwrap().slices[0].rescale;
    assert_eq!((1712.0 * slope + intercept, 0.0 * slope + intercept), (-1713.0, -1.0));
}

#[test]
fn units_are_told() {
    let with = |modality: &str, tag, units: &str| {
        let mut one = slice(1, [0.; 3], AXIAL);
        one.put(DataElement::new(tags::MODALITY, VR::CS, modality));
        one.put(DataElement::new(tag, VR::LO, units));
        plan(&series(vec![one])).unwrap().units
    };
    assert_eq!(with("CT", tags::RESCALE_TYPE, "").as_deref(), Some("HU"));
    assert_eq!(with("CT", tags::RESCALE_TYPE, "US").as_deref(), Some("HU"));
    assert_eq!(with("PT", tags::UNITS, "BQML").as_deref(), Some("BQML"));
    assert_eq!(with("MR", tags::RESCALE_TYPE, "normalized").as_deref(), Some("normalized"));
    assert_eq!(with("MR", tags::RESCALE_TYPE, "John Doe"), None, "no text of any kind");
}

#[test]
fn a_single_mosaic_is_refused_as_one() {
    let mut one = slice(1, [0.; 3], AXIAL);
    let kind = ["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"].map(String::from).to_vec();
    one.put(DataElement::new(tags::IMAGE_TYPE, VR::CS, PrimitiveValue::Strs(kind.into())));
    let e = plan(&series(vec![one])).unwrap_err();
    assert!(e.message().contains("instance 1.2.0") && e.message().contains("mosaic"), "{e}");
    let mut private = slice(1, [0.; 3], AXIAL);
    let creator = "SIEMENS MR HEADER";
    private.put(DataElement::new(dicom_core::Tag(0x0019, 0x0010), VR::LO, creator));
    private.put(DataElement::new(
        dicom_core::Tag(0x0019, 0x100A),
        VR::US,
        PrimitiveValue::from(25_u16),
    ));
    assert!(plan(&series(vec![private])).unwrap_err().message().contains("mosaic"));
}
